"""The generated parts of the documentation: `python -m bench.reference docs`, which `make format` runs.

A page holds generated text between `<!-- NAME -->` and `<!-- end of NAME -->`, where NAME is one of `SECTIONS`. All
other text of a page is written by hand.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import rich_click as click

from toolchain.cli.help import EXIT_CODES
from toolchain.cli.help_page import sections
from toolchain.cli.main import glyphpress

POLICIES = ("smoke", "default", "strict")


def commands() -> str:
    """Return a Markdown table of every command and the first sentence of its help."""
    rows = []
    for context in _contexts():
        if context.parent and not context.parent.parent:
            name, command = context.info_name, context.command
            rows.append((f"[`{name}`](#{name}){_below(command)}", _prose(_summary(command))))
    return _table(("command", "what it does"), rows)


def options() -> str:
    """Return the help of every command and subcommand, with its example and its options."""
    return "\n".join(_help(context) for context in _contexts() if context.parent)


def exit_codes() -> str:
    """Return a Markdown table of the exit codes."""
    return _table(
        ("code", "meaning"), [(f"{int(line[:3])}", _prose(line[3:].strip())) for line in EXIT_CODES.split("\n")]
    )


def limits() -> str:
    """Return a Markdown table of every limit, with the margin that each shipped policy gives it."""
    from toolchain.gate.limits import definitions

    shipped = [_shipped(policy) for policy in POLICIES]
    rows = []
    for name, definition in definitions().items():
        example = ", ".join(f"{key} = {_toml(value)}" for key, value in definition.example.items())
        margins = (_margin(policy.get(name)) for policy in shipped)
        rows.append((f"`{name}`", _prose(definition.about), f"`{example}`", *margins))
    return _table(("table", "what it limits", "example", *(f"`{name}`" for name in POLICIES)), rows)


def recipes() -> str:
    """Return every shipped recipe: its summary and its TOML."""
    from toolchain.recipe import shipped

    return "\n".join(
        f"## {name}\n\n{_prose(recipe.summary)}\n\n```toml\n{recipe.toml()}```\n" for name, recipe in shipped().items()
    )


def schemas() -> str:
    """Return what may change in a schema, and a Markdown table of all of them."""
    from toolchain.cli.json_schemas import SCHEMAS, STABILITY

    rows = [(f"[`{name}`](../schemas/{name}.schema.json)", _prose(each.what)) for name, each in SCHEMAS.items()]
    return f"{_prose(STABILITY)}\n\n" + _table(("`glyphpress schema NAME`", "what it describes"), rows)


def python() -> str:
    """Return every public name of `glyphpress`: how it is called, and its docstring."""
    import glyphpress as facade

    return "\n".join(_api(name, getattr(facade, name)) for name in facade.__all__ if name != "__version__")


SECTIONS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "options": options,
    "exit codes": exit_codes,
    "limits": limits,
    "recipes": recipes,
    "schemas": schemas,
    "python": python,
}


def with_sections(page: str) -> str:
    """Return a page's text with its generated parts made anew."""
    for name, section in SECTIONS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        if start in page:
            before, rest = page.split(start)
            page = before + start + "\n" + section() + "\n" + end + rest.split(end)[1]
    return page


def _contexts(above: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of the program, and those of all commands below it, each group before its own."""
    above = above or type(glyphpress).context_class(glyphpress, info_name="glyphpress")
    yield above
    if isinstance(above.command, click.Group):
        for name in above.command.list_commands(above):
            command = above.command.get_command(above, name)
            assert command is not None
            yield from _contexts(type(above)(command, info_name=name, parent=above))


def _below(command: click.Command) -> str:
    """Return the commands of a group, to stand behind its name."""
    return " " + ", ".join(f"`{name}`" for name in command.commands) if isinstance(command, click.Group) else ""


def _summary(command: click.Command) -> str:
    return (command.help or "").split("\n\n")[0].replace("\n", " ")


def _help(context: click.Context) -> str:
    path = context.command_path.removeprefix("glyphpress ")
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    description, _, example = inspect.cleandoc(context.command.help or "").partition("\b\nExample:\n")
    parts = [f"{'#' * (1 + len(path.split()))} {path}", _prose(description.strip())]
    if example:
        parts.append(f"```sh\n{inspect.cleandoc(example)}\n```")
    parts.append(f"Usage: `{usage}`")
    for title, rows in sections(context):
        # Commands have headings of their own, and these three options say the same everywhere.
        own = [row for row in rows if row[0].startswith("-") and not re.match("-[hqv],|--help$", row[0])]
        parts += [f"**{title}**"] if own else []
        parts += [f"`{name}`\n:   {_prose(text)}" for name, text in own]
    return "\n\n".join(parts) + "\n"


def _shipped(policy: str) -> dict[str, Any]:
    """Return the tables of a shipped policy as its file has them, with units."""
    text = resources.files("toolchain.gate.shipped").joinpath(f"{policy}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _toml(value: Any) -> str:
    """Return a setting as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items()) + " }"
    return json.dumps(value)


def _margin(table: dict[str, Any] | None) -> str:
    """Return a limit's margin, and that it only warns where it does."""
    if table is None:
        return "-"
    margin = table.get("max", table.get("min"))
    return f"{margin} (warns)" if table.get("action") == "warn" else str(margin)


def _api(name: str, value: Any) -> str:
    call = (
        "" if isinstance(value, type) and issubclass(value, Exception) else f"```python\n{_call(name, value)}\n```\n\n"
    )
    return f"## {name}\n\n{call}{_prose(inspect.getdoc(value) or '')}\n"


def _call(name: str, value: Any) -> str:
    """Return how something is called, with a parameter a line where it is too long for one."""
    arrow = ""
    if fields := getattr(value, "model_fields", None):
        parts = [f"{field}=..." for field in fields]
    else:
        signature = inspect.signature(value)
        parts = [_parameter(parameter) for parameter in signature.parameters.values()]
        result = signature.return_annotation
        arrow = f" -> {result}" if isinstance(result, str) and result != "None" else ""
    line = f"{name}({', '.join(parts)}){arrow}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    # A function or a factory is repr'd with its address, or without a meaning.
    return f"{stars}{parameter.name}: {parameter.annotation}" + (" = ..." if "<" in default else default)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ("---",) * len(head), *rows])


def _prose(text: str) -> str:
    """Return text in which Markdown sees no marks but those of code."""
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]|])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := with_sections(text)) != text:
            path.write_text(new, encoding="utf-8")
