"""What a project copies to run the gate: a policy with every limit explained, and a ready file for each CI service."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from targets.errors import nearest
from toolchain.core.errors import UsageProblem
from toolchain.core.files import refuse_existing, write_whole

# service -> the text that comes with glyphpress, and where that service looks for it.
SERVICES = {
    "github": ("github.yml", Path(".github/workflows/gate.yml")),
    "gitlab": ("gitlab.yml", Path(".gitlab-ci.yml")),
    "pre-commit": ("pre-commit.yaml", Path(".pre-commit-config.yaml")),
}


def ci_text(service: str) -> str:
    """Return the ready file of a service; raises UsageProblem, with the nearest names, for one that is not known."""
    if service not in SERVICES:
        near = nearest(service, SERVICES, "see `glyphpress gate init --help`")
        raise UsageProblem(f"no CI file for '{service}'; {near}")
    return (files("toolchain") / "ci" / SERVICES[service][0]).read_text(encoding="utf-8")


def write_ci(service: str, output: Path | None = None, *, force: bool = False) -> Path:
    """Write the ready file of a service, by default where it looks for one, and return its place."""
    text = ci_text(service)
    return _written(output or SERVICES[service][1], text, force=force)


def write_policy(words: str | None = None, output: Path | None = None, *, force: bool = False) -> Path:
    """Write a policy, a shipped name or a TOML file, as a commented gate.toml, and return its place."""
    from toolchain.gate.policy import choose_policy
    from toolchain.gate.template import template

    place = output or Path("gate.toml")
    refuse_existing(place, force=force)
    return _written(place, template(choose_policy(words), place.name), force=force)


def _written(place: Path, text: str, *, force: bool) -> Path:
    write_whole(place, text, force=force)
    return place
