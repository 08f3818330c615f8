"""What a user can do next where a file did not pass, as command lines that are ready to run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from targets.artifact import file_sha256
from targets.errors import ArtifactError
from targets.host.text import argument, shell_command, shell_word
from targets.metadata import load_artifact
from toolchain.core.quantities import percent_text
from toolchain.formats import catalog
from toolchain.gate.limit import Verdict
from toolchain.gate.limits.drop import DropLimit
from toolchain.gate.policy import default_policy
from toolchain.report.judgement import Judgement
from toolchain.stats.decision import Outcome
from toolchain.stats.paired_difference import decide

if TYPE_CHECKING:
    from toolchain.evaluation.compare import Comparison
    from toolchain.recipe import Recipe
    from toolchain.report.report import Report

_SMALLER = "static-int4"
_READS_LIKE_FLOAT = ("weight-int8", "qat-int8")
_BYTES = {"size", "packed", "shrink", "memory"}
_PREPROCESS = "preprocess"
_UNQUANTIZED = ("float", "float16")
"""Recipes whose files hold no quantized layer, so other quantization does not help if their answers differ."""
_TIMES = {"p50", "p95", "p50_ratio", "p95_ratio"}


def open_limits(verdicts: Iterable[Verdict]) -> dict[str, Outcome]:
    """Return the limits that keep a file from shipping, with their outcomes."""
    return {
        verdict.limit: verdict.outcome
        for verdict in verdicts
        if verdict.action == "fail" and verdict.outcome is not Outcome.PASS
    }


def next_steps(
    verdicts: Iterable[Verdict],
    *,
    source: Path,
    candidate: Path | None,
    data: Sequence[str],
    quantized: bool = True,
    images: int | None = None,
) -> list[str]:
    """Return a line of advice for each thing that may help a candidate that did not pass; none if it passed.

    Each line is a text, a colon and a command.

    source: the float file that it is judged against or was made from. data: the options that name the images, empty
    where there were none. candidate: None where the file may be missing. quantized: whether the candidate is. images:
    how many it was judged on, None where that is not known.
    """
    limits = open_limits(verdicts)
    if not limits:
        return []
    answers_differ = quantized and not limits.keys() <= _BYTES | _TIMES | {_PREPROCESS}
    lines: list[str] = []
    if _PREPROCESS in limits:
        lines.append("convert it again without a turn or scale of its own: it must take images as the baseline does")
    # The candidate was made from the source only if both have one format; a stored baseline is no model file. A pruned
    # or distilled one was made from another float file, which a press does not keep.
    own_format = catalog.of(source) if candidate and source.suffix == candidate.suffix else None
    if data and candidate and own_format and not own_format.opaque and _may_be_made_of(candidate, source):
        if answers_differ:
            explain = _command("explain", source, candidate, *data)
            lines += [*_quantizing(source, data, images), f"see which layers lose most: {explain}"]
        if _BYTES & limits.keys():
            lines.append(f"make it smaller: {_quantize(source, data, 'int4', '--scheme', _SMALLER)}")
    if candidate and _TIMES & limits.keys():
        profile = _command("profile", candidate, "--per-op")
        lines.append(f"see what takes the time: {profile}")
    return [*lines, *_policy(limits)]


def pressed_next(
    report: Report, out: Path, data: Sequence[str], recipes: Mapping[str, Recipe] = MappingProxyType({})
) -> list[str]:
    """Return what helps the first file of a press that did not pass, a failed one first; nothing if all passed.

    recipes: those of the press, by the words that named them.
    """
    stopped = [row for row in report.rows if not row.added and row.outcome not in (None, Outcome.PASS)]
    if not stopped:
        return []
    row = min(stopped, key=lambda row: (row.outcome is not Outcome.FAIL, row.recipe in _UNQUANTIZED))
    quantized = row.recipe not in _UNQUANTIZED
    source = next((file.name for file in report.rows if file.recipe == "float" and file.format == row.format), row.name)
    steps = next_steps(
        row.verdicts,
        source=out / source,
        candidate=out / row.name,
        data=data,
        quantized=quantized,
        images=report.dataset.images,
    )
    # Other recipes do not help a float file whose answers differ, but may help one that is too large or too slow.
    retry = quantized or (_BYTES | _TIMES) & open_limits(row.verdicts).keys()
    trained = [line for word, recipe in recipes.items() if recipe.name == row.recipe for line in _trained(word, recipe)]
    answers_differ = not open_limits(row.verdicts).keys() <= _BYTES | _TIMES | {_PREPROCESS}
    again = pressed_again(report.command, out, row.verdicts) if retry else []
    return [*(trained if answers_differ else []), *again, *steps]


def _trained(word: str, recipe: Recipe) -> list[str]:
    """Return how a recipe can train better; nothing where it does not train. word: names the recipe."""
    changes: list[str] = []
    for step in recipe.shaping:
        settings = dict(step)
        if epochs := settings.get("epochs"):
            changes.append(f"more `epochs` of {step.kind} (now {epochs})")
        if settings.get("bytes") and step.builds_student:
            changes.append(f"larger `bytes` (now {settings['bytes']})")
        if "teacher" in settings:
            changes.append(f"another `teacher` ({settings['teacher'] or 'now the model itself'})")
    if not changes:
        return []
    copy = f"{recipe.name}-next.toml"
    listed = f"{', '.join(changes[:-1])} or {changes[-1]}" if changes[1:] else changes[0]
    show = _command("recipe", "show", word)
    return [f"train it better: {show} > {copy}; in it {listed}; then --recipe {copy}"]


def gate_next(
    judgement: Judgement, *, baseline: Path | None, candidates: Sequence[Path], data: Sequence[str]
) -> list[str]:
    """Return what helps the first candidate that keeps a gate from passing; nothing if it passed.

    baseline, candidates: the files, None and empty where stored evidence was judged.
    """
    if judgement.outcome is Outcome.PASS:
        return []
    judged = next(candidate for candidate in judgement.candidates if candidate.outcome is judgement.outcome)
    candidate = candidates[judgement.candidates.index(judged)] if candidates else None
    if "drop" in open_limits(judged.verdicts) and _broken(judged.comparison):
        return _mending(judged.comparison, baseline, candidate, data)
    return next_steps(
        judged.verdicts,
        source=baseline or Path(),
        candidate=candidate,
        data=data,
        quantized=candidate is None or _quantized(candidate),
        images=judged.comparison.images,
    )


def _broken(compared: Comparison) -> bool:
    """Return whether a candidate reads so badly that it is nearer to chance than to its baseline."""
    chance = max(row.images for row in compared.per_class) / compared.images
    return compared.candidate_accuracy < (chance + compared.baseline_accuracy) / 2


def _mending(compared: Comparison, baseline: Path | None, candidate: Path | None, data: Sequence[str]) -> list[str]:
    """Return how to find what is wrong with a file that no limit is too strict for."""
    reads = f"{percent_text(compared.candidate_accuracy)} of the images, and the baseline "
    reads += percent_text(compared.baseline_accuracy)
    broken = f"this file is broken or given its images wrongly (it reads {reads}), so no wider limit helps"
    known = catalog.of(candidate) if candidate else None
    if not candidate or known is None:
        return [f"{broken}; check its orientation, scale and order of classes, and how it was converted"]
    lines = [f"{broken}, but its input and its sidecar may say why: {_command('inspect', candidate)}"]
    if data:
        found = _command("adopt", candidate, *data, "--force")
        lines.append(f"find how it takes images, and write that into its sidecar: {found}")
        own = baseline is not None and catalog.of(baseline) is known and not known.opaque
        if baseline and own and _quantized(candidate) and _may_be_made_of(candidate, baseline):
            lines.append(f"see in which layer it goes wrong: {_command('explain', baseline, candidate, *data)}")
    return lines


def _may_be_made_of(candidate: Path, source: Path) -> bool:
    """Return whether a candidate was made of the float file `source`, or nothing says of what."""
    try:
        return load_artifact(candidate).parent_sha256 in (None, file_sha256(source))
    except (ArtifactError, OSError):
        return True


def _quantized(path: Path) -> bool:
    """Return whether a candidate may hold quantized layers: it does, or nothing says how it was made."""
    try:
        return load_artifact(path).recipe not in _UNQUANTIZED
    except ArtifactError:
        return True


def pressed_again(command: Sequence[str], out: Path, verdicts: Iterable[Verdict]) -> list[str]:
    """Return the command of the press again, with recipes that may help and another output folder."""
    limits = open_limits(verdicts)
    if not limits or tuple(command[1:2]) != ("press",):
        return []
    answers_differ = not limits.keys() <= _BYTES | _TIMES
    recipes = _READS_LIKE_FLOAT if answers_differ else (_SMALLER,)
    arguments = _without(command, ("--recipe", "--out"), ("--json", "--force"))
    # What follows `--` is never an option.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [*(word for recipe in recipes for word in ("--recipe", recipe)), "--out", f"{out}-next"]
    command_line = [*arguments[:end], *options, *arguments[end:]]
    return [f"try other recipes: {shell_command(command_line)}"]


def _command(name: str, *arguments: str | Path) -> str:
    """Return a command line of glyphpress. Arguments that are files are given as paths."""
    return " ".join(
        ["glyphpress", name, *(argument(word) if isinstance(word, Path) else shell_word(word) for word in arguments)]
    )


def _quantizing(source: Path, data: Sequence[str], images: int | None) -> list[str]:
    fallback = f"keep the layers float that lose most: {_quantize(source, data, 'fallback', '--fallback', '8')}"
    ranges = f"choose ranges by least squared error: {_quantize(source, data, 'mse', '--calibration', 'mse')}"
    return [fallback, ranges] if images is None or _can_pass(images) else [ranges]


def _can_pass(images: int) -> bool:
    """Return whether that many images can show that a file holds the default policy's [drop], if no answer changes."""
    limit = default_policy().settings(DropLimit)
    return limit is None or decide(0, 0, images, limit.max, limit.confidence).item() == Outcome.PASS


def _quantize(source: Path, data: Sequence[str], name: str, *options: str) -> str:
    stem = source.name.removesuffix(source.suffix).removesuffix(".float")
    output = source.with_name(f"{stem}.{name}{source.suffix}")
    return _command("quantize", source, *data, *options, "-o", str(output))


def _policy(limits: dict[str, Outcome]) -> list[str]:
    """Return what would decide the undecided limits, and how to change the policy so that it allows more."""
    undecided = [name for name, outcome in limits.items() if outcome is Outcome.INCONCLUSIVE]
    tables = ", ".join(f"[{name}]" for name in limits)
    wider = "a wider max, or " if limits.keys() - {_PREPROCESS} else ""
    deciders = {
        "more images": [name for name in undecided if name not in _TIMES],
        "a quiet machine, or more time to measure,": [name for name in undecided if name in _TIMES],
    }
    lines = [
        f"{what} would decide {', '.join(f'[{name}]' for name in names)}" for what, names in deciders.items() if names
    ]
    change = f'glyphpress gate init -o gate.toml; in it {tables}: {wider}action = "warn"; then --policy gate.toml'
    return [*lines, f"allow more: {change}"]


def _without(command: Sequence[str], valued: Collection[str], flags: Collection[str]) -> list[str]:
    """Return a command without some options. valued: those with a value, which goes too; flags: those without."""
    remaining: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word in valued:
            skip = True
        elif word not in flags and word.partition("=")[0] not in valued:
            remaining.append(word)
    return remaining
