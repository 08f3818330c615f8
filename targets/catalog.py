"""The catalog of targets: names and families, whose modules are imported when they are used; plug-ins add names.

A target word is `NAME`, `NAME,SETTING=VALUE...` (`litert-cpu,xnnpack=off`), `arm64:CPU`, `ssh://[USER@]HOST[:PORT]`,
or the name or file of a device profile (`targets.profiles`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from glyphpress.registry import Registry, resolved, subclass
from targets.artifact import Format
from targets.errors import UnknownTarget, nearest
from targets.target import Target

if TYPE_CHECKING:
    from targets.profiles import DeviceProfile


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


def _reserved() -> list[str]:
    """Return the words that name no target of the table, and no target of a plug-in either."""
    from targets.profiles import profile_names

    return [*FAMILIES, *profile_names()]


REGISTRY = Registry("target", lambda: TARGETS, subclass(Target), _reserved)  # type: ignore[type-abstract]

DEFAULTS: dict[Format, str] = {"onnx": "ort-cpu", "ort": "ort-cpu", "tflite": "litert-cpu"}


def names() -> list[str]:
    """Return the names of targets of this machine, in the order of the catalog."""
    return list(REGISTRY)


def listed() -> list[str]:
    """Return the words of all targets that need no address: `names`, and the members of families."""
    members = ((family, resolved(entry).members) for family, entry in FAMILIES.items())
    return [*REGISTRY, *(f"{family}:{member}" for family, all_members in members for member in all_members)]


def every() -> dict[str, Target]:
    """Return the targets of all words that `listed` returns, but for those of plug-ins that do not load."""
    broken = REGISTRY.plugins().keys() - REGISTRY.added().keys()
    return {word: get(word) for word in listed() if word not in broken}


def get(word: str) -> Target:
    """Return the target that a word names.

    Raises UnknownTarget with similar names, or with the settings that the target takes.
    """
    family, colon, rest = word.partition(":")
    if colon and family in FAMILIES:
        target: Target = resolved(FAMILIES[family])(rest)
        return target
    name, *settings = word.split(",")
    if name not in TARGETS and _profile(word):
        return get(_followed(word))
    try:
        target_class = REGISTRY.get(name)
    except KeyError:
        from targets.profiles import profile_names

        near = nearest(name, [*REGISTRY, *profile_names()], "`glyphpress targets list` shows them")
        raise UnknownTarget(f"no target '{word}'; {near}") from None
    return _configured(target_class, name, settings)


def _profile(word: str) -> DeviceProfile | None:
    """Return the device profile of that name or file, if there is one."""
    from targets.profiles import DeviceProfile, is_profile  # which boards do not have

    return DeviceProfile.load(word) if is_profile(word) else None


def _followed(word: str) -> str:
    """Return the target word at the end of a chain of device profiles; raises UnknownTarget for a ring."""
    chain = [word]
    while chain[-1] not in TARGETS and (profile := _profile(chain[-1])):
        following = profile.address()
        if following in chain:
            ring = " to ".join([*chain, following])
            raise UnknownTarget(f"{word}: its reach refers back to itself ({ring}); name a target in one of them")
        chain.append(following)
    return chain[-1]


def address(word: str) -> str:
    """Return the word itself, or the `reach` of a device profile; raises as `DeviceProfile.address`."""
    profile = _profile(word)
    return profile.address() if profile else word


def isa(word: str) -> Collection[str]:
    """Return the CPU flags of a target: those of its device profile where it lists some, else `Target.isa`.

    Raises as `get` and `Target.isa` do.
    """
    profile = _profile(word)
    return (profile.features if profile else ()) or get(word).isa()


def default_for(kind: Format) -> Target:
    """Return the target that runs a file of this format by default: of plug-ins' formats, the first that does.

    Raises UnknownTarget where there is none.
    """
    if kind in DEFAULTS:
        return get(DEFAULTS[kind])
    # No target of ours runs a format that is not ours.
    for target in (target_class() for target_class in REGISTRY.added().values()):
        if kind in target.formats:
            return target
    raise UnknownTarget(f"no target runs .{kind} files; install a plug-in that has one")


def full_name(name: str, settings: Mapping[str, tuple[str, ...]], **values: str) -> str:
    """Return a target's name with its settings, defaults left out; raises UnknownTarget for other values."""
    for key, value in values.items():
        if value not in settings[key]:
            raise UnknownTarget(f"{name} takes {key}={'|'.join(settings[key])}, not '{value}'")
    return ",".join([name, *(f"{key}={value}" for key, value in values.items() if value != settings[key][0])])


def _configured(target_class: type[Target], name: str, pairs: list[str]) -> Target:
    """Return the target with settings `KEY=VALUE`, which its class takes as keywords; raises UnknownTarget."""
    known = target_class.settings
    given = dict[str, str]()
    for pair in pairs:
        key, _, value = pair.partition("=")
        if value not in known.get(key, ()) or key in given:
            takes = "; ".join(f"{key}={'|'.join(values)}" for key, values in known.items()) or "none"
            raise UnknownTarget(f"{name} has no setting '{pair}', or it is given twice; it takes: {takes}")
        given[key] = value
    return target_class(**given)
