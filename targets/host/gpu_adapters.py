"""Targets on WebGPU, and the adapter that they run on.

Dawn, the WebGPU implementation inside ONNX Runtime's and LiteRT's libraries, takes the best adapter that it can use.
Where it refuses the GPU's driver it silently continues on a software adapter. So this process lets its Vulkan loader
see the driver of one adapter only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from targets.catalog import full_name
from targets.errors import TargetUnavailable
from targets.host import vulkan
from targets.host.local_target import LocalTarget
from targets.session import Cost

SETTINGS: dict[str, tuple[str, ...]] = {"adapter": ("auto", "gpu", "software"), "copies": ("with", "without")}
"""Settings of targets on WebGPU.

adapter: `auto` takes a GPU, else a software adapter. copies: whether a timed inference copies its input to the device;
reading the logits is always timed, since nothing else waits until they are there.
"""

_SWIFTSHADER = ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome", "/opt/chromium.org/chromium")
_GPUS = ("discrete", "integrated")
_opened: Adapter | None = None


@dataclass(frozen=True)
class Adapter:
    """A driver's best device. software: it is emulated by the processor, or may be."""

    name: str
    software: bool
    manifest: str


def find(setting: str = "auto") -> Adapter:
    """Return the adapter for a setting (`auto`, `gpu`, `software`); raises TargetUnavailable with what is missing."""
    drivers = manifests()
    every = adapters(drivers)
    chosen = [adapter for adapter in every if setting in ("auto", "software" if adapter.software else "gpu")]
    if chosen:
        return chosen[0]
    if every:
        reason = f"the only Vulkan device is {every[0].name}"
        raise TargetUnavailable(reason, f"take adapter={'software' if every[0].software else 'gpu'}")
    reason = f"none of {len(drivers)} Vulkan drivers has a device" if drivers else "no Vulkan driver is installed"
    raise TargetUnavailable(
        reason, "install the GPU's driver, or chromium, which brings the software adapter SwiftShader"
    )


def manifests() -> list[str]:
    """Return the manifests of all Vulkan drivers: those that the user names, else the system's and SwiftShader's.

    The loader's search path: https://github.com/KhronosGroup/Vulkan-Loader, docs/LoaderDriverInterface.md.
    """
    named = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if named:
        return named.split(os.pathsep)
    environ = os.environ
    roots = [
        environ.get("XDG_CONFIG_HOME") or _at_home(".config"),
        *(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep),
        "/usr/local/etc",
        "/etc",
        environ.get("XDG_DATA_HOME") or _at_home(".local/share"),
        *(environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep),
    ]
    drivers = [str(path) for root in roots for path in sorted(Path(root, "vulkan/icd.d").glob("*.json"))]
    swiftshader = [
        str(path) for path in (Path(root, "vk_swiftshader_icd.json") for root in _SWIFTSHADER) if path.is_file()
    ]
    return list(dict.fromkeys([*drivers, *swiftshader]))


def _at_home(folder: str) -> str:
    """Return a folder in the user's home, or a path without files where there is no home."""
    try:
        return str(Path.home() / folder)
    except RuntimeError:
        return os.devnull


def adapters(drivers: list[str]) -> list[Adapter]:
    """Return the adapter of every driver that has one: GPUs first, SwiftShader before other software.

    Raises TargetUnavailable where there is no Vulkan loader. Drivers are loaded in another process, which they may
    crash.
    """
    ranked: list[tuple[int, Adapter]] = []
    remaining = drivers
    while remaining:
        command = [sys.executable, "-I", vulkan.__file__, *remaining]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
        except subprocess.TimeoutExpired as error:
            raise TargetUnavailable("a Vulkan driver does not answer", "see `vulkaninfo --summary`") from error
        if done.returncode == vulkan.NO_LOADER:
            raise TargetUnavailable(f"there is no Vulkan loader ({vulkan.LOADER})", "install the package libvulkan1")
        answers = done.stdout.splitlines()
        for position, answer in enumerate(answers):
            ranked += _adapter(remaining[position], json.loads(answer))
        # The first driver without an answer crashed the process.
        remaining = remaining[len(answers) + 1 :]
    return [adapter for _, adapter in sorted(ranked, key=lambda pair: pair[0])]


def _adapter(manifest: str, devices: list[tuple[str, str]]) -> list[tuple[int, Adapter]]:
    """Return rank and adapter of a driver; an empty list where it has no device.

    A virtual device may be a GPU or a program, so it counts as software.
    """
    if not devices:
        return []
    ranked = [(_GPUS.index(kind) if kind in _GPUS else 2 + ("SwiftShader" not in name), name) for name, kind in devices]
    best = min(rank for rank, _ in ranked)
    names = dict.fromkeys(name for rank, name in ranked if rank == best)
    return [(best, Adapter(" or ".join(names), max(ranked)[0] >= len(_GPUS), manifest))]


@contextmanager
def restricted_to(adapter: Adapter) -> Iterator[None]:
    """Restrict Vulkan to one adapter while the block opens a session; raises TargetUnavailable.

    Dawn keeps the adapters that it found first, so a process can use only the first adapter that it opens.
    """
    global _opened  # noqa: PLW0603 (one per process)
    if _opened not in (None, adapter):
        reason = f"this process runs WebGPU on {_opened.name}, not on {adapter.name}"
        raise TargetUnavailable(reason, "open it in a process of its own")
    _opened = adapter
    # Without a GPU that it recognizes (as on a board), ONNX Runtime's plugin works only with the last variable.
    variables = dict.fromkeys(("VK_DRIVER_FILES", "VK_ICD_FILENAMES"), adapter.manifest)
    variables["ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"] = "1"
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class WebGpuTarget(LocalTarget):
    """A target on WebGPU. On a software adapter it gives outputs, and no latency.

    base_name: the target's name without settings. adapter, copies: see `SETTINGS`.
    """

    base_name: ClassVar[str]
    settings = SETTINGS

    def __init__(self, *, adapter: str = "auto", copies: str = "with") -> None:
        """Take the settings; raises UnknownTarget."""
        self.name = full_name(self.base_name, self.settings, adapter=adapter, copies=copies)
        self.adapter, self.copies = adapter, copies == "with"

    @property
    def cost(self) -> Cost:
        """Latency on a GPU, outputs alone on a software adapter; raises TargetUnavailable where there is neither."""
        return "outputs" if find(self.adapter).software else "latency"

    def require(self) -> None:
        """See `LocalTarget.require`: the runtime, then an adapter."""
        self.runtime()
        find(self.adapter)

    @abstractmethod
    def runtime(self) -> ModuleType:
        """Return the package that runs files on WebGPU; raises TargetUnavailable."""
