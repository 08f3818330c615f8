"""The catalog of targets: an explicit table of names and of families, imported when a word is asked for.

A word is `NAME`, `NAME,SETTING=VALUE...` (`litert-cpu,xnnpack=off`), `arm64:CPU`, `ssh://[USER@]HOST[:PORT]`, or the
name or file of a device profile (`targets.profiles`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

from targets.artifact import Format
from targets.errors import UnknownTarget, nearest
from targets.target import Target


def table(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return name -> "module:Class"; raises ValueError on a name that stands there twice."""
    found: dict[str, str] = {}
    for name, place in entries:
        if name in found:
            raise ValueError(f"target {name} stands in the catalog twice: {found[name]} and {place}")
        found[name] = place
    return found


TARGETS = table(
    [
        ("ort-cpu", "targets.onnxruntime.cpu:OrtCpu"),
        ("ort-precise", "targets.onnxruntime.cpu:OrtPrecise"),
        ("ort-reference", "targets.onnxruntime.cpu:OrtReference"),
        ("litert-cpu", "targets.litert.cpu:LiteRtCpu"),
        ("litert-reference", "targets.litert.cpu:LiteRtReference"),
        ("ort-webgpu", "targets.onnxruntime.webgpu:OrtWebGpu"),
        ("litert-gpu", "targets.litert.gpu:LiteRtGpu"),
        ("ort-cuda", "targets.onnxruntime.cuda:OrtCuda"),
        ("ort-tensorrt", "targets.onnxruntime.cuda:OrtTensorRt"),
        ("openvino-cpu", "targets.openvino.cpu:OpenVinoCpu"),
        ("browser", "targets.browser.target:BrowserTarget"),
        ("null", "targets.null:NullTarget"),
    ]
)

FAMILIES = table([("arm64", "targets.arm64.target:Arm64Target"), ("ssh", "targets.ssh.target:SshTarget")])
"""What stands before the colon of a word -> a class that takes what stands after it."""

KERNELS = ("ort-cpu", "ort-precise", "ort-reference", "litert-cpu", "litert-reference")
"""The same processor by other kernels: what a file is compared on where nobody names other places."""

DEFAULTS: dict[Format, str] = {"onnx": "ort-cpu", "ort": "ort-cpu", "tflite": "litert-cpu"}


def names() -> list[str]:
    """Return the names of targets of this machine, in the order of the catalog."""
    return list(TARGETS)


def listed() -> list[str]:
    """Return the words of all targets that need no address: `names`, and the members of families."""
    members = ((family, _loaded(place).members) for family, place in FAMILIES.items())
    return [*TARGETS, *(f"{family}:{member}" for family, own in members for member in own)]


def get(word: str) -> Target:
    """Return the target that a word names.

    Raises UnknownTarget with the nearest names and all that are known, or with the settings that the target takes.
    """
    family, colon, rest = word.partition(":")
    if colon and family in FAMILIES:
        target: Target = _loaded(FAMILIES[family])(rest)
        return target
    name, *settings = word.split(",")
    if name in TARGETS:
        return _set(name, settings)
    from targets.profiles import is_profile, profile_names

    if is_profile(word):
        return get(_reached(word))
    known = [*TARGETS, *profile_names()]
    raise UnknownTarget(f"no target '{word}'; {nearest(name, known, '`glyphpress targets list` shows them')}")


def _reached(word: str) -> str:
    """Return the target that a device profile leads to, through others too; raises UnknownTarget for a ring."""
    from targets.profiles import is_profile

    seen = [word]
    while is_profile(seen[-1]) and seen[-1] not in TARGETS:
        following = address(seen[-1])
        if following in seen:
            ring = " to ".join([*seen, following])
            raise UnknownTarget(f"{word}: its reach refers back to itself ({ring}); name a target in one of them")
        seen.append(following)
    return seen[-1]


def address(word: str) -> str:
    """Return the word itself, or where a device profile's device is reached; raises as `DeviceProfile.address`."""
    from targets.profiles import DeviceProfile, is_profile

    return DeviceProfile.load(word).address() if is_profile(word) else word


def isa(word: str) -> Collection[str]:
    """Return the flags of the processor that a word leads to: those that its device profile states, else `Target.isa`.

    Raises as `get` and `Target.isa` do, where the profile states none.
    """
    from targets.profiles import DeviceProfile, is_profile

    stated = DeviceProfile.load(word).features if is_profile(word) else ()
    return stated or get(word).isa()


def default_for(kind: Format) -> Target:
    """Return the target that runs a file of that format when none is named."""
    return get(DEFAULTS[kind])


def spelled(name: str, settings: Mapping[str, tuple[str, ...]], **values: str) -> str:
    """Return the word of a target with these values of its settings, defaults left out; raises UnknownTarget."""
    for key, value in values.items():
        if value not in settings[key]:
            raise UnknownTarget(f"{name} takes {key}={'|'.join(settings[key])}, not '{value}'")
    return ",".join([name, *(f"{key}={value}" for key, value in values.items() if value != settings[key][0])])


def _set(name: str, words: list[str]) -> Target:
    """Return the target with its settings; the class takes each as a keyword, of those that its `settings` lists."""
    kind = _loaded(TARGETS[name])
    known: Mapping[str, tuple[str, ...]] = kind.settings
    given = dict[str, str]()
    for word in words:
        key, _, value = word.partition("=")
        if value not in known.get(key, ()) or key in given:
            takes = "; ".join(f"{key}={'|'.join(values)}" for key, values in known.items()) or "none"
            raise UnknownTarget(f"{name} has no setting '{word}', or has it twice; it takes: {takes}")
        given[key] = value
    target: Target = kind(**given)
    return target


def _loaded(entry: str) -> Any:
    """Return the class of an entry: one that derives from Target, made with what its words say."""
    module, name = entry.split(":")
    return getattr(import_module(module), name)
