"""The program: `glyphpress`, or `python -m glyphpress`."""

from glyphpress.program import main

if __name__ == "__main__":
    main()
