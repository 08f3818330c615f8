"""LiteRT on a GPU: CompiledModel with the WebGPU accelerator in LiteRT's wheel."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter_ns
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from glyphpress.extras import pip_line
from targets.artifact import Artifact, Format
from targets.errors import Misplaced, RunFailed, TargetUnavailable, in_one_line, runtime_errors
from targets.host import gpu_adapters
from targets.host.runtime_session import (
    Array,
    RuntimeSession,
    captured_output,
    input_and_output,
    quiet_stderr,
    resolved_threads,
)
from targets.litert.cpu import codec_of, load_runtime
from targets.session import RuntimeFacts

if TYPE_CHECKING:
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.interpreter import Interpreter

ACCELERATOR = "GPU WebGPU"
"""LiteRT's name for it."""
_LIBRARY = "libLiteRtWebGpuAccelerator.so"
_COMPILE = """
import os, sys
from ai_edge_litert.compiled_model import CompiledModel, GpuOptions, HardwareAccelerator, Options
gpu = Options(hardware_accelerators=HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=True))
model = CompiledModel.from_file(sys.argv[1], options=gpu)
os._exit(0)
"""
_SELECTED = re.compile(r"Selected adapter: (?P<name>.+?), arch=.*adapterType=(?P<kind>.+)")
_UNSUPPORTED = re.compile(r"^(?!INFO|WARNING|ERROR)([A-Z][A-Z0-9_]+): ", re.MULTILINE)
_SHARES = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+)")


class LiteRtGpu(gpu_adapters.WebGpuTarget):
    """LiteRT on the GPU, by its WebGPU accelerator; a software adapter gives answers but no latency.

    Float operators compute in 32 bits (`enforce_f32`; by default LiteRT takes 16 where the device has them). A
    dynamically quantized file gives the answers of int8 weights alone, since activations are not rounded.
    adapter, copies: see `targets.host.gpu_adapters.SETTINGS`.
    """

    base_name = "litert-gpu"
    formats: frozenset[Format] = frozenset({"tflite"})

    def runtime(self) -> ModuleType:
        """Return the module of CompiledModel; raises TargetUnavailable."""
        load_runtime()
        try:
            compiled_model = import_module("ai_edge_litert.compiled_model")
        except ImportError as error:
            reason = f"this ai-edge-litert has no CompiledModel ({error})"
            raise TargetUnavailable(reason, f"install it with `{pip_line('ai_edge_litert')}`") from error
        if not Path(str(compiled_model.__file__)).with_name(_LIBRARY).is_file():
            raise TargetUnavailable(f"this ai-edge-litert comes without {_LIBRARY}", "install a wheel that has it")
        return compiled_model

    def open(self, artifact: Artifact, *, threads: int = 1) -> LiteRtGpuSession:
        """Load the file, every operator on the GPU; `threads` is only recorded."""
        compiled = self.runtime()
        interpreter = _interpreter(artifact)
        options = compiled.Options(
            hardware_accelerators=compiled.HardwareAccelerator.GPU,
            gpu_options=compiled.GpuOptions(enforce_f32=True),
        )
        adapter = gpu_adapters.find(self.adapter)
        _silence_exit()
        with gpu_adapters.restricted_to(adapter), captured_output(1, 2) as captured:
            _refuse_crashing(artifact)
            start = perf_counter_ns()
            environment = compiled.Environment.create()
            try:
                model = compiled.CompiledModel.from_file(str(artifact.path), environment=environment, options=options)
            except (ValueError, RuntimeError) as error:
                environment.close()
                raise _refused(artifact, adapter, error, captured()) from error
            load_ns = perf_counter_ns() - start
            device, software = _selected(captured())
        facts = RuntimeFacts(
            target=self.name,
            runtime="ai-edge-litert",
            version=version("ai-edge-litert"),
            device=device,
            threads=resolved_threads(threads),
            device_type="software" if software or adapter.software else "gpu",
            placement={ACCELERATOR: len(interpreter._get_ops_details())},
        )
        return LiteRtGpuSession(artifact, facts, interpreter, model, load_ns, copies=self.copies)


class LiteRtGpuSession(RuntimeSession):
    """A .tflite file on the GPU, compiled for one image at a time where its batch is dynamic.

    `run_by_index` returns when its commands are queued (0.04 ms of 4.6), so an inference is timed until its logits are
    read.
    """

    def __init__(
        self,
        artifact: Artifact,
        facts: RuntimeFacts,
        interpreter: Interpreter,
        model: CompiledModel,
        load_ns: int,
        *,
        copies: bool,
    ) -> None:
        """Take the compiled model, and an interpreter that knows the scales of its input and output."""
        self._model, self._copies = model, copies
        details = interpreter.get_output_details()
        try:
            inputs = [codec_of(detail) for detail in interpreter.get_input_details()]
            source, sink, self._output = input_and_output(artifact, inputs, [codec_of(detail) for detail in details])
            self._shape = tuple(int(axis) for axis in details[self._output]["shape"])
            with captured_output(1, 2):
                self._inputs, self._outputs = model.create_input_buffers(0), model.create_output_buffers(0)
                super().__init__(artifact, facts, source, sink, batch=1, load_ns=load_ns)
        except RunFailed:
            self.__exit__()
            raise

    def _infer(self, batch: Array) -> Array:
        return self._call(batch, copies=True)

    def _prepared(self, batch: Array) -> Callable[[], object]:
        if len(batch) != self._shape[0]:
            raise RunFailed(
                f"{self.artifact.path}: it is compiled for a batch of {self._shape[0]} on the GPU; time it with that"
            )
        self._infer(batch)
        return lambda: self._call(batch, copies=self._copies)

    def _call(self, batch: Array, *, copies: bool) -> Array:
        try:
            if copies:
                self._inputs[0].write(batch)
            self._model.run_by_index(0, self._inputs, self._outputs)
            answer: Array = self._outputs[self._output].read(int(np.prod(self._shape)), self.sink.spec.dtype)
        except (ValueError, RuntimeError) as error:
            raise RunFailed(f"{self.artifact.path}: LiteRT failed ({in_one_line(error)}); export it again") from error
        return answer.reshape(self._shape)

    def __exit__(self, *_error: object) -> None:
        """Release the buffers, the model and its environment, in this order."""
        with captured_output(1, 2):
            self._inputs = self._outputs = []
            self._model.close()
            self._model.environment.close()


def _interpreter(artifact: Artifact) -> Interpreter:
    """Return an interpreter that knows the file's tensors and operators; raises RunFailed."""
    with quiet_stderr(), runtime_errors(f"{artifact.path}: LiteRT refuses it", kinds=ValueError):
        return load_runtime().Interpreter(model_path=str(artifact.path))


def _refuse_crashing(artifact: Artifact) -> None:
    """Raise RunFailed where compiling the file crashes a process, as in LiteRT 2.3 with int8 weights alone."""
    done = subprocess.run([sys.executable, "-c", _COMPILE, str(artifact.path)], capture_output=True, check=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise RunFailed(f"{artifact.path}: LiteRT's GPU accelerator crashes on it ({name}); take litert-cpu")


def _refused(artifact: Artifact, adapter: gpu_adapters.Adapter, error: Exception, output: str) -> Exception:
    """Return what to raise, from LiteRT's output: its exceptions name neither operators nor adapters."""
    if "No adapters found" in output:
        return TargetUnavailable(f"WebGPU cannot use {adapter.name}", "update its driver")
    if "not accelerated" in str(error):
        strays, shares = dict.fromkeys(_UNSUPPORTED.findall(output)), _SHARES.search(output)
        count = f"{shares[2]} of {int(shares[1]) + int(shares[2])}" if shares else "some"
        return Misplaced(
            f"{artifact.path}: {count} operators would run on the CPU, not on the GPU, which cannot "
            f"run {', '.join(strays)} of this file; replace them by others, or take litert-cpu"
        )
    return RunFailed(f"{artifact.path}: LiteRT's GPU accelerator refuses it ({in_one_line(error)}); take litert-cpu")


def _selected(output: str) -> tuple[str, bool]:
    """Return the adapter that LiteRT reports, and whether it is software; an unreported one counts as software."""
    match = _SELECTED.search(output)
    return (match["name"], "cpu" in match["kind"].lower()) if match else ("an unnamed adapter", True)


@cache
def _silence_exit() -> None:
    """Discard output on descriptor 2 when Python ends: an environment of LiteRT ends later, and writes to it."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
