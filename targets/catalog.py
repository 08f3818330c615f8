"""The catalog of targets: names, families and device profiles; their modules are imported when they are used.

A target word is `NAME`, `NAME,SETTING=VALUE...` (`litert-cpu,xnnpack=off`), `arm64:CPU`, `ssh://[USER@]HOST[:PORT]`,
or the name or file of a device profile: a TOML file that describes a device, shipped or written by the user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from targets.artifact import Format
from targets.errors import TargetUnavailable, UnknownTarget, nearest, translated
from targets.target import Target


def table(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return name -> "module:Class"; raises ValueError for a name that is given twice."""
    by_name: dict[str, str] = {}
    for name, entry in entries:
        if name in by_name:
            raise ValueError(f"target {name} is in the catalog twice: {by_name[name]} and {entry}")
        by_name[name] = entry
    return by_name


TARGETS = table(
    [
        ("ort-cpu", "targets.onnxruntime.cpu:OrtCpu"),
        ("ort-precise", "targets.onnxruntime.cpu:OrtPrecise"),
        ("ort-reference", "targets.onnxruntime.cpu:OrtReference"),
        ("litert-cpu", "targets.litert.cpu:LiteRtCpu"),
        ("litert-reference", "targets.litert.cpu:LiteRtReference"),
        ("ort-webgpu", "targets.onnxruntime.gpu:OrtWebGpu"),
        ("litert-gpu", "targets.litert.gpu:LiteRtGpu"),
        ("ort-cuda", "targets.onnxruntime.gpu:OrtCuda"),
        ("ort-tensorrt", "targets.onnxruntime.gpu:OrtTensorRt"),
        ("openvino-cpu", "targets.openvino:OpenVinoCpu"),
        ("browser", "targets.browser:BrowserTarget"),
        ("null", "targets.null:NullTarget"),
    ]
)

FAMILIES = table([("arm64", "targets.arm64:Arm64Target"), ("ssh", "targets.ssh:SshTarget")])
"""Part of a word before the colon -> class that takes the part after it."""

KERNELS = ("ort-cpu", "ort-precise", "ort-reference", "litert-cpu", "litert-reference")
"""The same processor with other kernels: where the answers of a file are compared when no targets are given."""

DEFAULTS: dict[Format, str] = {"onnx": "ort-cpu", "ort": "ort-cpu", "tflite": "litert-cpu"}


def names() -> list[str]:
    """Return the names of targets of this machine, in the order of the catalog."""
    return list(TARGETS)


def listed() -> list[str]:
    """Return the words of all targets that need no address: `names`, and the members of families."""
    members = ((family, _class(entry).members) for family, entry in FAMILIES.items())
    return [*TARGETS, *(f"{family}:{member}" for family, all_members in members for member in all_members)]


def get(word: str) -> Target:
    """Return the target that a word names.

    Raises UnknownTarget with similar names, or with the settings that the target takes.
    """
    family, colon, rest = word.partition(":")
    if colon and family in FAMILIES:
        target: Target = _class(FAMILIES[family])(rest)
        return target
    name, *settings = word.split(",")
    if name in TARGETS:
        return _configured(name, settings)

    if is_profile(word):
        return get(_followed(word))
    known = [*TARGETS, *profile_names()]
    raise UnknownTarget(f"no target '{word}'; {nearest(name, known, '`glyphpress targets list` shows them')}")


def _followed(word: str) -> str:
    """Return the target word at the end of a chain of device profiles; raises UnknownTarget for a ring."""

    chain = [word]
    while is_profile(chain[-1]) and chain[-1] not in TARGETS:
        following = address(chain[-1])
        if following in chain:
            ring = " to ".join([*chain, following])
            raise UnknownTarget(f"{word}: its reach refers back to itself ({ring}); name a target in one of them")
        chain.append(following)
    return chain[-1]


def address(word: str) -> str:
    """Return the word itself, or the `reach` of a device profile; raises as `DeviceProfile.address`."""

    return DeviceProfile.load(word).address() if is_profile(word) else word


def isa(word: str) -> Collection[str]:
    """Return the CPU flags of a target: those of its device profile where it lists some, else `Target.isa`.

    Raises as `get` and `Target.isa` do.
    """

    listed_flags = DeviceProfile.load(word).features if is_profile(word) else ()
    return listed_flags or get(word).isa()


def default_for(kind: Format) -> Target:
    """Return the target that runs a file of this format by default."""
    return get(DEFAULTS[kind])


def full_name(name: str, settings: Mapping[str, tuple[str, ...]], **values: str) -> str:
    """Return a target's name with its settings, defaults left out; raises UnknownTarget for other values."""
    for key, value in values.items():
        if value not in settings[key]:
            raise UnknownTarget(f"{name} takes {key}={'|'.join(settings[key])}, not '{value}'")
    return ",".join([name, *(f"{key}={value}" for key, value in values.items() if value != settings[key][0])])


def _configured(name: str, pairs: list[str]) -> Target:
    """Return the target with settings `KEY=VALUE`, which its class takes as keywords; raises UnknownTarget."""
    target_class = _class(TARGETS[name])
    known: Mapping[str, tuple[str, ...]] = target_class.settings
    given = dict[str, str]()
    for pair in pairs:
        key, _, value = pair.partition("=")
        if value not in known.get(key, ()) or key in given:
            takes = "; ".join(f"{key}={'|'.join(values)}" for key, values in known.items()) or "none"
            raise UnknownTarget(f"{name} has no setting '{pair}', or it is given twice; it takes: {takes}")
        given[key] = value
    target: Target = target_class(**given)
    return target


def _class(entry: str) -> Any:
    """Return the class of an entry "module:Class", a subclass of Target; imports its module."""
    module, name = entry.split(":")
    return getattr(import_module(module), name)


SHIPPED = Path(__file__).with_name("profiles")
_LIST = "`glyphpress targets list` shows them"
_EXAMPLE = "`glyphpress targets show raspberry-pi-4` shows the keys of one"
_THREADS = 4096
_BUDGET = re.compile(r"\s*\d{0,12}\.?\d{1,12}\s*(B|KB|MB|KiB|MiB|ns|us|µs|ms|s)\s*")
BUDGETS = ("size", "packed", "p50", "p95", "memory")


@dataclass(frozen=True)
class DeviceProfile:
    """A device for which artifacts are made.

    reach: the target that connects to it (`ort-cpu`, `ssh://pi@kitchen`), empty where only the user knows it. emulate:
    the target that emulates it. runtime, threads: what applications there use. features: its CPU flags, named as in
    `machine_state`. budgets: typical limits, by their names in a policy.
    """

    name: str
    summary: str = ""
    reach: str = ""
    emulate: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    memory: str = ""
    runtime: str = ""
    threads: int = 1
    budgets: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, word: str) -> DeviceProfile:
        """Read a profile by its name or path; `extends = NAME` takes missing keys from another profile.

        Raises UnknownTarget with the file and the key.
        """
        path = _path(word)
        values = _read(path)
        return cls(**values | {"name": path.stem, "features": tuple(values.get("features", ()))})

    def address(self) -> str:
        """Return the target word in `reach`; raises TargetUnavailable where there is none."""
        if self.reach:
            return self.reach
        emulator = f", or its emulator {self.emulate}" if self.emulate else ""
        raise TargetUnavailable(
            f"{self.name}: the profile names no host",
            f'take ssh://USER@HOST{emulator}, or write a profile with `extends = "{self.name}"` and '
            '`reach = "ssh://USER@HOST"`',
        )


def folders() -> tuple[Path, ...]:
    """Return the folders of profiles: the user's (GLYPHPRESS_TARGETS, else the configuration folder), then ours."""
    if named := os.environ.get("GLYPHPRESS_TARGETS"):
        return Path(named), SHIPPED
    from platformdirs import user_config_path  # not on boards, which run this module too

    try:
        return user_config_path("glyphpress") / "targets", SHIPPED
    except RuntimeError:
        # There is no home.
        return (SHIPPED,)


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted({path.stem for folder in folders() if os.access(folder, os.R_OK) for path in folder.glob("*.toml")})


def is_profile(word: str) -> bool:
    """Return whether a word is the name or the file of a profile."""
    return word.endswith(".toml") or word in profile_names()


def _path(word: str) -> Path:
    if word.endswith(".toml"):
        return Path(word)
    for folder in folders():
        if (path := folder / f"{word}.toml").is_file():
            return path
    raise UnknownTarget(f"no device profile '{word}'; {nearest(word, profile_names(), _LIST)}")


def _read(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the values of a file, added to those of the profile that it extends."""
    import tomllib  # since Python 3.11; boards run this module too

    try:
        with translated(
            lambda reason: UnknownTarget(f"{path}: not a device profile ({reason}); see `glyphpress targets show`")
        ):
            values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnknownTarget(f"{path}: not a device profile ({error}); see `glyphpress targets show`") from error
    base = values.pop("extends", None)
    _check(path, values)
    if base is None:
        return values
    if not isinstance(base, str) or path in extended_by:
        raise UnknownTarget(f"{path}: extends is not the name of another profile; {_LIST}")
    base_values = _read(_path(base), (*extended_by, path))
    return base_values | values | {"budgets": base_values.get("budgets", {}) | values.get("budgets", {})}


def _check(path: Path, values: dict[str, Any]) -> None:
    known = {each.name: str(each.type) for each in fields(DeviceProfile) if each.name != "name"}
    for key, value in values.items():
        if key not in known:
            raise UnknownTarget(f"{path}: no key '{key}'; {nearest(key, known, _EXAMPLE)}")
        if not _fits(known[key], value):
            raise UnknownTarget(f"{path}: {key} is not of type {known[key]}; correct it")
    if not 0 <= values.get("threads", 1) <= _THREADS:
        raise UnknownTarget(f"{path}: threads is {values['threads']}, not 0 (all cores) to {_THREADS:,}; correct it")
    for budget, text in values.get("budgets", {}).items():
        if budget in BUDGETS and not _BUDGET.fullmatch(text):
            raise UnknownTarget(f"{path}: the budget {budget} is '{text:.40}', not a number and unit such as 10ms")
    for budget in sorted(set(values.get("budgets", {})) - set(BUDGETS)):
        raise UnknownTarget(f"{path}: no budget '{budget}'; {nearest(budget, BUDGETS, _EXAMPLE)}")


def _fits(kind: str, value: object) -> bool:
    if kind.startswith("dict"):
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    return type(value).__name__ == kind
