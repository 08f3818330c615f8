"""Files to copy into a project that runs the gate: a policy with every limit explained, and one for each CI service."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from targets.errors import nearest
from toolchain.ci.source import EXAMPLES, Source, installed_source
from toolchain.core.errors import UsageProblem
from toolchain.core.files import refuse_existing, write_whole
from toolchain.formats import catalog

# Service -> the file that comes with glyphpress, and where the service looks for it.
SERVICES = {
    "github": ("github.yml", Path(".github/workflows/gate.yml")),
    "gitlab": ("gitlab.yml", Path(".gitlab-ci.yml")),
    "pre-commit": ("pre-commit.yaml", Path(".pre-commit-config.yaml")),
}


@dataclass(frozen=True)
class Job:
    """What a CI file judges, and what it installs for that.

    source: None for what the running glyphpress was installed from. model: float file that is the baseline where the
    repository holds no baseline.npz.
    """

    source: Source | None = None
    model: str = "model.float.onnx"
    candidate: str = "model.int8.onnx"
    data: str = "images:balanced"


def ci_text(service: str, job: Job | None = None) -> str:
    """Return the CI file of a service.

    Raises UsageProblem, with the nearest names, for an unknown service; where there is nothing that CI could install;
    and for a value that a CI file cannot hold.
    """
    if service not in SERVICES:
        near = nearest(service, SERVICES, "see `glyphpress gate init --help`")
        raise UsageProblem(f"no CI file for '{service}'; {near}")
    job = job or Job()
    for value in (job.model, job.candidate, job.data):
        # GitHub replaces ${{ }} and GitLab $NAME before a shell sees the line.
        if not value.isprintable() or "$" in value or value.startswith("-"):
            raise UsageProblem(f"{value!r} cannot stand in a CI file; rename it without $ and without a leading dash")
    source = job.source or installed_source()
    values = _hook(job, source) if service == "pre-commit" else _steps(job, source)
    text = (files("toolchain") / "ci" / SERVICES[service][0]).read_text(encoding="utf-8")
    return re.sub(r"<([A-Z]+)>", lambda match: values[match[1]], text)


def _steps(job: Job, source: Source | None) -> dict[str, str]:
    """Return the values of a file whose job installs glyphpress by pip."""
    if source is None:
        raise UsageProblem(
            "CI cannot get this glyphpress from where it came from (a folder or repository of this machine, changed "
            f"code, or a commit that no remote has); push it, or give --install {EXAMPLES}"
        )
    install = source.requirement(*_extras(job.model, job.candidate))
    return {
        "GLYPHPRESS": _quoted(install),
        "MODEL": _quoted(job.model),
        "CANDIDATE": _quoted(job.candidate),
        "DATA": _quoted(job.data),
    }


def _hook(job: Job, source: Source | None) -> dict[str, str]:
    """Return the values of pre-commit's file: a hook of glyphpress's repository, else of the program on the PATH."""
    arguments = ["--policy", "gate.toml", "--baseline", "baseline.npz", "--candidate"]
    arguments += [job.candidate, "--data", job.data]
    # Weights may stand beside an ONNX file.
    file, stem = re.escape(job.candidate), re.escape(str(PurePosixPath(job.candidate).with_suffix(".data")))
    watched = rf"^({file}(\.json|[._]data)?|{stem}|baseline\.npz|gate\.toml)$"
    if source is None or source.repository is None:  # as `runs_from_path` says
        if job.source is not None:
            raise UsageProblem(
                "pre-commit installs hooks from git alone; give --install git+URL@COMMIT, or leave it out: the hook"
                " then runs the glyphpress on the PATH"
            )
        entry = _quoted(shlex.join(["glyphpress", "gate", *arguments]))
        repository = "local"
        lines = ["name: glyphpress gate", "language: system", f"entry: {entry}", "pass_filenames: false"]
        lines += ["require_serial: true"]
    else:
        repository = f"{_quoted(source.repository)}\n    rev: {_quoted(str(source.commit))}"
        lines = [f"args: [{', '.join(map(_quoted, arguments))}]"]
        if extras := _extras(job.candidate):
            lines += [f'additional_dependencies: [".[{",".join(extras)}]"]']
    return {"REPOSITORY": repository, "HOOK": "\n        ".join([*lines, f"files: {_quoted(watched)}"])}


def runs_from_path(service: str, job: Job) -> bool:
    """Return whether the file of a service installs nothing, but runs the glyphpress of whoever starts it."""
    source = job.source or installed_source()
    return service == "pre-commit" and (source is None or source.repository is None)


def _extras(*names: str) -> tuple[str, ...]:
    """Return the extras of glyphpress that running these files needs."""
    known = (catalog.of(Path(name)) for name in names)
    return tuple({file_format.extra: None for file_format in known if file_format and file_format.extra})


def _quoted(text: str) -> str:
    """Return a YAML string: those of JSON are."""
    return json.dumps(text, ensure_ascii=False)


def write_ci(service: str, output: Path | None = None, job: Job | None = None, *, force: bool = False) -> Path:
    """Write the CI file of a service, by default where the service looks for it, and return its path."""
    text = ci_text(service, job)
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
