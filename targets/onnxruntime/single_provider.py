"""Sessions of ONNX Runtime that run every node on one execution provider, or are not opened.

ONNX Runtime gives what a provider cannot run to its CPU provider, and everything where the provider does not start.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import Misplaced, RunFailed, TargetUnavailable
from targets.host.stderr import captured_output
from targets.onnxruntime.cpu import BATCH, OrtSession, load_runtime
from targets.session import RuntimeFacts

INTEGER = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})
"""Operators of int8 arithmetic, as QDQ files and dynamic quantization have them."""

Attach = Callable[[Any], dict[str, Any]]


class DeviceSession(OrtSession):
    """An .onnx file on a GPU.

    Timed until the logits can be read. copies: each inference brings its input to the device (a bound input is copied
    when it is bound, so it is bound anew) and its logits to the host; else the input stays on the device, and the
    logits stay in `memory`. A device whose `synchronize_outputs` does not wait needs "cpu" there.
    """

    def __init__(
        self, artifact: Artifact, facts: RuntimeFacts, session: Any, load_ns: int, *, copies: bool, memory: str
    ) -> None:
        """See `OrtSession`."""
        self._copies, self._memory = copies, "cpu" if copies else memory
        super().__init__(artifact, facts, session, batch=BATCH, load_ns=load_ns)

    def _prepared(self, batch: NDArray[Any]) -> Callable[[], object]:
        ort = load_runtime()
        binding = self._session.io_binding()
        source, sink = (ort.OrtValue.ortvalue_from_numpy(array) for array in (batch, self._infer(batch)))
        binding.bind_ortvalue_input(self.source.spec.name, source)
        if self._memory == "cpu":
            binding.bind_ortvalue_output(self.sink.spec.name, sink)
        else:
            binding.bind_output(self.sink.spec.name, self._memory)

        def once() -> None:
            if self._copies:
                binding.bind_ortvalue_input(self.source.spec.name, source)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return once


def single_provider_session(artifact: Artifact, provider: str, attach: Attach, threads: int) -> tuple[Any, int]:
    """Return a session of the file whose nodes all run on `provider`, and their number.

    attach: adds the provider to session options; returns what InferenceSession wants beside them. The number is of
    nodes as they are handed to the provider: with the layout changes made for it, before it fuses any.
    Raises Misplaced naming the nodes that would run elsewhere, TargetUnavailable where the provider does not start,
    RunFailed where ONNX Runtime refuses the file.
    """
    with captured_output(1, 2) as said:
        try:
            session = _open(artifact, attach, threads, strict=True)
        except Exception:  # noqa: BLE001 (its exceptions share no other base)
            session = _explained(artifact, provider, attach, threads, said)
    nodes = _placed(session)
    refuse_misplaced(provider, nodes, artifact)
    return session, len(nodes.get(provider, ()))


def refuse_misplaced(provider: str, nodes: dict[str, list[tuple[str, str]]], artifact: Artifact) -> None:
    """Raise Misplaced unless every node (provider -> operator and name) is placed on `provider`."""
    elsewhere = {place: names for place, names in nodes.items() if place != provider}
    if elsewhere:
        raise Misplaced(f"{artifact.path}: {_sentence(nodes, elsewhere, provider)}")


def _open(artifact: Artifact, attach: Attach, threads: int, *, strict: bool) -> Any:
    ort = load_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if strict else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(artifact.path, options, enable_fallback=0, **attach(options))


def _explained(artifact: Artifact, provider: str, attach: Attach, threads: int, said: Callable[[], str]) -> Any:
    """Open once more with the CPU allowed, which tells what was in the way; raises unless nodes are misplaced."""
    try:
        session = _open(artifact, attach, threads, strict=False)
    except Exception as error:
        line = " ".join(str(error).split())
        if "WebGPU adapter" in line:
            raise TargetUnavailable(
                f"{provider} finds no adapter that it can work with", "update its driver"
            ) from error
        raise RunFailed(f"{artifact.path}: ONNX Runtime refuses it ({line[:300]}); export it again") from error
    if provider not in session.get_providers():
        complaint = re.search(r"Failed to [^\x1b\n]{1,300}", said())
        why = complaint[0] if complaint else "it does not say why"
        raise TargetUnavailable(f"{provider} is listed but does not start ({why})", "install what it needs")
    return session


def _placed(session: Any) -> dict[str, list[tuple[str, str]]]:
    """Return operator and name of the nodes of each provider."""
    nodes: dict[str, list[tuple[str, str]]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, []).extend((node.op_type, node.name) for node in part.get_nodes())
    return nodes


def _sentence(
    nodes: dict[str, list[tuple[str, str]]], elsewhere: dict[str, list[tuple[str, str]]], provider: str
) -> str:
    strays = [node for names in elsewhere.values() for node in names]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in strays).items())
    named = [name for _, name in strays if name][:3]
    which = f"{kinds}: {', '.join(named)}" if named else kinds
    advice = "take the float file, or one whose weights alone are int8"
    if not INTEGER.intersection(kind for kind, _ in strays):
        advice = "express them by other operators, or take a target on the CPU"
    total = sum(map(len, nodes.values()))
    return f"{len(strays)} of {total} nodes would run on {', '.join(elsewhere)}, not on {provider} ({which}); {advice}"
