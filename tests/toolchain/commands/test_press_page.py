"""The page that a real press leaves: every section, from what the press measured anyway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targets.host.machine import COUNTERS
from targets.session import TimingPlan
from tests.fixtures.pages import ReadPage, check_page
from toolchain.commands.press import press
from toolchain.commands.press_request import PressRequest
from toolchain.core.context import RunContext
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import Policy
from toolchain.recipe import Prune, Quantize, Recipe
from toolchain.report.report import Report


@pytest.fixture(scope="module")
def pressed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, ReadPage]:
    """The report of a press to ONNX, and its page."""
    request = PressRequest(
        checkpoint=str(checkpoint),
        data="builtin:digits",
        recipes=(Recipe(name="pruned", steps=(Prune(ratio=0.25, epochs=1), Quantize(scheme="static-int8"))),),
        formats=("onnx",),
        policy=Policy(drop=DropLimit(max=0.05, confidence=0.95)),
        plan=TimingPlan(warmup=2, min_runs=60, min_seconds=0.0, inner=1),
        prefer="size",
        command=("glyphpress", "press", "digits.pt", "--data", "builtin:digits"),
    )
    out = tmp_path_factory.mktemp("page") / "out"
    report = press(request, out, RunContext(threads=1))
    extra = {f"report.{suffix}" for suffix in ("json", "md", "html")} | {"timings.npz", "digits.pruned.pt2"}
    files = {row.name for row in report.rows} | {f"{row.name}.json" for row in report.rows}
    assert {path.name for path in out.iterdir()} - {"converters.log"} == extra | files, "no ranges, no scratch file"
    text = (out / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    return report, check_page(text)


def test_every_section_is_there_in_order(pressed: tuple[Report, ReadPage]) -> None:
    _, page = pressed
    headings = [match[1] for match in re.finditer(r"#([a-z]+)", " ".join(link["href"] for link in page.all("a")))]
    assert headings[1:] == [
        *("picture", "files", "limits", "classes", "confusions", "flipped", "layers", "latency", "operators"),
        *("ranges", "reliability", "machine", "versions", "commands"),
    ]


def test_the_page_names_the_winner_its_layers_ranges_and_the_time_of_the_press(
    pressed: tuple[Report, ReadPage],
) -> None:
    report, page = pressed
    assert report.winners["size"] == "digits.pruned.onnx"
    assert page.text.startswith("digits.pt, pressed")
    assert "Ready to ship Ship digits.pruned.onnx: it is " in page.text
    for fact in ("Quantization error by layer", "The network of digits.pruned.onnx", "ranges by min-max"):
        assert fact in page.text
    assert "not known" not in page.text, "a pruned file is compared with the float file of the pruned model"
    assert "digits.pruned.onnx on ort-cpu: the slowest operators" in page.text
    assert "time of a layer" in page.text
    assert not {*COUNTERS, "end"} & report.machine.keys()
    assert f"of {report.machine['cores']} cores while files were timed" in page.text
    assert re.search(r"\d+ \w+ 20\d\d, \d\d:\d\d UTC", page.text)
    data = "glyphpress gate --baseline digits.float.onnx --candidate digits.pruned.onnx --data builtin:digits"
    assert data in page.text
    assert "glyphpress explain digits" not in page.text, "the float file of the pruned model is not kept"
