"""Draw a page as one HTML file, which asks nothing of any other address and runs nothing but its own script.

Every text is escaped by Jinja2, after control characters and direction marks were made visible. The page's content
security policy names its style and its script by their digests, so that markup that got in nevertheless would neither
run nor fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from targets.host.text import one_line, visible
from toolchain.report.charts.gallery import GlyphSheet
from toolchain.report.page.blocks import Code, Page, Table, blocks_within

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent
_FALLBACK = re.compile(r'="var\((--[a-z]+), #[0-9A-Fa-f]{6}\)"')
_UNIT = re.compile(r"(\d) (?=(%|pp|dB|[nu]?s|ms|bytes|[KMG]B|MHz|°C|[kMG]?MAC|times|images)(?![\w-]))")
"""The space between a number and its unit, where no line may end."""


def html(page: Page, tools: Mapping[str, str]) -> str:
    """Return the page as an HTML document. tools: versions of packages, of which the footer names glyphpress."""
    from markupsafe import Markup

    kinds = _wide_tables(page)
    style, script = _style(kinds), _text("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    made_by = f"Made by glyphpress {tools.get('glyphpress', '')}".rstrip()
    own: dict[str, object] = {"style": Markup(style), "script": Markup(script), "policy": policy, "made_by": made_by}
    # The template puts every character that it shows on the sheet, and the sheet below them.
    own["glyphs"] = GlyphSheet()
    own["kind"] = lambda table: kinds[tuple(table.headings)]
    return _template().render(page=page, **own) + "\n"


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        """Return what an expression gives, on one line unless it is a command or markup of our own."""
        return value if isinstance(value, Markup) else _UNIT.sub("\\1\u00a0", visible(str(value)))

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _inlined
    environment.filters["lines"] = _escaped_lines
    return environment.get_template("page.html")


def _inlined(svg: str) -> str:
    """Return a picture without the fallbacks of its colours, which the page's stylesheet defines."""
    from markupsafe import Markup

    return Markup(_FALLBACK.sub(r'="var(\1)"', svg))


def _escaped_lines(code: Code) -> str:
    """Return lines of code, escaped, each on one line whatever names it holds."""
    from markupsafe import Markup, escape

    return Markup("\n").join(escape(one_line(line)) for line in code.code)


def _wide_tables(page: Page) -> dict[tuple[str, ...], str]:
    """Return the class of the wide tables with each row of headings."""
    headings = dict.fromkeys(
        tuple(block.headings)
        for part in page.sections
        for block in blocks_within(part.blocks)
        if isinstance(block, Table) and block.wide
    )
    return {heading: f"t{number}" for number, heading in enumerate(headings)}


def _style(kinds: Mapping[tuple[str, ...], str]) -> str:
    """Return the stylesheet, and the heading of each column of wide tables, which it shows where rows are blocks.

    Rules for whole columns take less of the page than an attribute of each cell.
    """
    labels = [
        f'.{kind} td:nth-child({column}){{--label:"{_css_text(heading)}"}}'
        for headings, kind in kinds.items()
        for column, heading in enumerate(headings[1:], 2)
    ]
    return "\n".join([_text("page.css").rstrip("\n"), *labels, ""])


def _css_text(text: str) -> str:
    """Return the content of a CSS string (CSS Syntax 3, 4.3.7), without what could end it or the stylesheet."""
    return re.sub(r"[^\w ,.%-]", lambda match: f"\\{ord(match[0]):x} ", visible(text), flags=re.ASCII)


@cache
def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the source expression of an inline element in a content security policy (CSP level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
