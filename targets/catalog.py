"""The catalog of targets: tables of names and of families, whose modules are imported when they are used.

A target word is `NAME`, `NAME,SETTING=VALUE...` (`litert-cpu,xnnpack=off`), `arm64:CPU`, `ssh://[USER@]HOST[:PORT]`,
or the name or file of a device profile (`targets.profiles`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

from targets.artifact import Format
from targets.errors import UnknownTarget, nearest
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
    from targets.profiles import is_profile, profile_names

    if is_profile(word):
        return get(_followed(word))
    known = [*TARGETS, *profile_names()]
    raise UnknownTarget(f"no target '{word}'; {nearest(name, known, '`glyphpress targets list` shows them')}")


def _followed(word: str) -> str:
    """Return the target word at the end of a chain of device profiles; raises UnknownTarget for a ring."""
    from targets.profiles import is_profile

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
    from targets.profiles import DeviceProfile, is_profile

    return DeviceProfile.load(word).address() if is_profile(word) else word


def isa(word: str) -> Collection[str]:
    """Return the CPU flags of a target: those of its device profile where it lists some, else `Target.isa`.

    Raises as `get` and `Target.isa` do.
    """
    from targets.profiles import DeviceProfile, is_profile

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
