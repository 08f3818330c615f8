"""Files to copy into a project that runs the gate: a policy with every limit explained, and one for each CI service."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from targets.errors import nearest
from toolchain.core.errors import UsageProblem
from toolchain.core.files import refuse_existing, write_whole

# Service -> the file that comes with glyphpress, and where the service looks for it.
SERVICES = {
    "github": ("github.yml", Path(".github/workflows/gate.yml")),
    "gitlab": ("gitlab.yml", Path(".gitlab-ci.yml")),
    "pre-commit": ("pre-commit.yaml", Path(".pre-commit-config.yaml")),
}


def ci_text(service: str) -> str:
    """Return the CI file of a service; raises UsageProblem, with the nearest names, for an unknown one."""
    if service not in SERVICES:
        near = nearest(service, SERVICES, "see `glyphpress gate init --help`")
        raise UsageProblem(f"no CI file for '{service}'; {near}")
    return (files("toolchain") / "ci" / SERVICES[service][0]).read_text(encoding="utf-8")


def write_ci(service: str, output: Path | None = None, *, force: bool = False) -> Path:
    """Write the CI file of a service, by default where the service looks for it, and return its path."""
    text = ci_text(service)
    path = output or SERVICES[service][1]
    write_whole(path, text, force=force)
    return path


def write_policy(policy: str | None = None, output: Path | None = None, *, force: bool = False) -> Path:
    """Write a policy as a commented gate.toml and return its path. policy: a shipped name or a TOML file."""
    from toolchain.gate.policy import choose_policy, template

    path = output or Path("gate.toml")
    refuse_existing(path, force=force)
    write_whole(path, template(choose_policy(policy), path.name), force=force)
    return path
