"""Adapters: what Vulkan drivers offer, asked where a driver may crash; the one that this process is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from targets.errors import TargetUnavailable
from targets.host import gpu_adapters, vulkan
from targets.host.gpu_adapters import Adapter
from tests.fixtures.drivers import CHROMIUM, SWIFTSHADER, drivers_that_say, library, manifest, needs_chromium

GPU, BOARD = ("GeForce 4090", "discrete"), ("V3D 7.1", "integrated")


def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **answers: list[tuple[str, str]]) -> None:
    monkeypatch.setattr(vulkan, "__file__", str(drivers_that_say(answers, tmp_path / "drivers.py")))
    monkeypatch.setenv("VK_DRIVER_FILES", os.pathsep.join(answers))


@needs_chromium
def test_a_software_adapter_is_known_for_one() -> None:
    (adapter,) = gpu_adapters.adapters([SWIFTSHADER])
    assert adapter.software
    assert "SwiftShader" in adapter.name


@needs_chromium
def test_a_driver_that_crashes_hides_no_other(tmp_path: Path) -> None:
    code = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n"
    crashing = manifest(tmp_path / "crashing.json", library(tmp_path / "crashing.so", code))
    absent = manifest(tmp_path / "absent.json", "/nowhere.so")
    adapters = gpu_adapters.adapters([absent, crashing, SWIFTSHADER, crashing])
    assert [adapter.manifest for adapter in adapters] == [SWIFTSHADER]


@needs_chromium
def test_a_virtual_device_counts_as_software(tmp_path: Path) -> None:
    mock = manifest(tmp_path / "mock.json", CHROMIUM / "libVkICD_mock_icd.so")
    assert vulkan_devices(mock) == [["Vulkan Mock Device", "virtual"]]
    assert [adapter.software for adapter in gpu_adapters.adapters([mock, SWIFTSHADER])] == [True, True]
    assert gpu_adapters.adapters([mock, SWIFTSHADER])[0].manifest == SWIFTSHADER, "what Dawn is known to work with"


def vulkan_devices(driver: str) -> list[list[str]]:
    done = subprocess.run([sys.executable, "-I", vulkan.__file__, driver], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_no_loader_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = Path(vulkan.__file__).read_text(encoding="utf-8").replace(vulkan.LOADER, "libvulkan.so.99")
    (tmp_path / "vulkan.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(vulkan, "__file__", str(tmp_path / "vulkan.py"))
    with pytest.raises(TargetUnavailable, match=r"no Vulkan loader.*libvulkan1"):
        gpu_adapters.adapters([SWIFTSHADER])


def test_no_driver_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu_adapters, "manifests", list)
    with pytest.raises(TargetUnavailable, match="no Vulkan driver is installed; install"):
        gpu_adapters.find()


def test_no_device_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    say(monkeypatch, tmp_path, one=[], two=[])
    with pytest.raises(TargetUnavailable, match="none of 2 Vulkan drivers has a device"):
        gpu_adapters.find()


def test_a_gpu_comes_before_software_and_a_card_before_what_is_built_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(monkeypatch, tmp_path, lavapipe=[("llvmpipe", "cpu")], board=[BOARD], card=[GPU])
    assert gpu_adapters.find() == Adapter("GeForce 4090", False, "card")
    assert gpu_adapters.find("gpu").manifest == "card"
    assert gpu_adapters.find("software") == Adapter("llvmpipe", True, "lavapipe")


def test_a_driver_whose_devices_are_of_both_kinds_is_simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    say(monkeypatch, tmp_path, both=[("llvmpipe", "cpu"), BOARD], two=[BOARD, ("V3D 4.2", "integrated")])
    assert {one.manifest: one.software for one in gpu_adapters.adapters(["both", "two"])} == {
        "both": True,
        "two": False,
    }
    assert gpu_adapters.adapters(["two"])[0].name == "V3D 7.1 or V3D 4.2", "nothing says which one WebGPU takes"


@pytest.mark.parametrize(
    ("wanted", "devices", "message"),
    [
        ("gpu", [("llvmpipe", "cpu")], "the only Vulkan device is llvmpipe; take adapter=software"),
        ("software", [GPU], "the only Vulkan device is GeForce 4090; take adapter=gpu"),
    ],
)
def test_the_adapter_that_is_asked_for_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str, devices: list[tuple[str, str]], message: str
) -> None:
    say(monkeypatch, tmp_path, driver=devices)
    with pytest.raises(TargetUnavailable, match=message):
        gpu_adapters.find(wanted)


def test_a_process_stays_with_its_first_adapter_and_gets_its_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_adapters, "_opened", None)
    monkeypatch.setenv("VK_DRIVER_FILES", "own.json")
    monkeypatch.delenv("VK_ICD_FILENAMES", raising=False)
    before = dict(os.environ)
    card = Adapter("GeForce 4090", False, "card.json")
    for _ in range(2):
        with gpu_adapters.restricted_to(card):
            assert os.environ["VK_DRIVER_FILES"] == os.environ["VK_ICD_FILENAMES"] == "card.json"
    assert dict(os.environ) == before
    with (
        pytest.raises(TargetUnavailable, match=r"runs WebGPU on GeForce 4090, not on V3D"),
        gpu_adapters.restricted_to(Adapter("V3D", False, "board.json")),
    ):
        pytest.fail("a second adapter was opened")
