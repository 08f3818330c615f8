"""Lists the devices of Vulkan drivers through the system's loader.

This is also a program that needs the standard library alone: `python -I vulkan.py MANIFEST...` prints one line of JSON
per driver. It runs in a process of its own, since a driver can crash it, and should not be loaded into this one.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

LOADER = "libvulkan.so.1"
NO_LOADER = 3
"""Exit code of the program where there is no Vulkan loader."""
KINDS = ("other", "integrated", "discrete", "virtual", "cpu")
"""VkPhysicalDeviceType, in the order of its values."""


class _InstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo without application, layers and extensions: its type is 1, all else 0."""

    _fields_ = (("type", ctypes.c_int32), ("nothing", ctypes.c_uint8 * 60))


class _Properties(ctypes.Structure):
    """VkPhysicalDeviceProperties; what comes after the name (limits, 824 bytes in all) is not read."""

    _fields_ = (
        ("versions_and_ids", ctypes.c_uint32 * 4),
        ("kind", ctypes.c_uint32),
        ("name", ctypes.c_char * 256),
        ("rest", ctypes.c_uint8 * 1024),
    )


def devices(manifest: str) -> list[tuple[str, str]]:
    """Return name and kind (one of `KINDS`) of every device of one driver, given by its manifest (a JSON file).

    A driver that cannot be loaded has none. Raises OSError where there is no Vulkan loader.
    """
    # Loaders before 1.3.207 know only the second name; the first wins where both are known.
    os.environ.update(VK_DRIVER_FILES=manifest, VK_ICD_FILENAMES=manifest)
    vulkan = ctypes.CDLL(LOADER)
    instance = ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(_InstanceInfo(type=1)), None, ctypes.byref(instance)) != 0:
        return []
    count = ctypes.c_uint32()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    handles = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
    names = []
    for device in handles:
        properties = _Properties()
        vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), ctypes.byref(properties))
        kind = KINDS[properties.kind] if properties.kind < len(KINDS) else "other"
        names.append((properties.name.decode(errors="replace"), kind))
    vulkan.vkDestroyInstance(instance, None)
    return names


if __name__ == "__main__":
    # Output of drivers goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for path in sys.argv[1:]:
        try:
            print(json.dumps(devices(path)), file=answers, flush=True)
        except OSError:
            sys.exit(NO_LOADER)
