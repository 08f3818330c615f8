"""`python -m targets.agent`: serve the host on stdin and stdout until it hangs up."""

from __future__ import annotations

import os

from targets.agent.serve import serve

if __name__ == "__main__":
    # Output of runtimes goes to stderr, since stdout is the wire.
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(os.fdopen(os.dup(0), "rb"), wire)
