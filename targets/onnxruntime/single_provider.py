"""Sessions of ONNX Runtime that run every node on one execution provider, or are refused.

By default ONNX Runtime gives nodes that a provider cannot run to its CPU provider, and all nodes where the provider
does not start.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from targets.artifact import Artifact
from targets.errors import Misplaced, RunFailed, TargetUnavailable, in_one_line
from targets.host.stderr import captured_output
from targets.onnxruntime.cpu import BATCH, OrtSession, load_runtime
from targets.session import RuntimeFacts

INTEGER = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})
"""Operators of int8 arithmetic, from QDQ files and dynamic quantization."""

Attach = Callable[[Any], dict[str, Any]]


class DeviceSession(OrtSession):
    """An .onnx file on a GPU.

    Timed until the logits can be read. copies: each inference copies its input to the device (this happens when an
    input is bound, so it is bound again) and its logits to the host; else the input stays on the device, and the logits
    stay in `memory`. A device whose `synchronize_outputs` does not wait needs "cpu" there.
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

        def infer() -> None:
            if self._copies:
                binding.bind_ortvalue_input(self.source.spec.name, source)
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return infer


def single_provider_session(artifact: Artifact, provider: str, attach: Attach, threads: int) -> tuple[Any, int]:
    """Return a session of the file whose nodes all run on `provider`, and their number.

    attach: adds the provider to session options, and returns further arguments of InferenceSession. The number counts
    the nodes that the provider is given: with layout changes for it, before it fuses any. Raises Misplaced with the
    nodes that would run elsewhere, TargetUnavailable where the provider does not start, RunFailed where ONNX Runtime
    refuses the file.
    """
    with captured_output(1, 2) as captured:
        try:
            session = _open(artifact, attach, threads, strict=True)
        except Exception:  # noqa: BLE001 (they have no other base class)
            session = _opened_with_cpu(artifact, provider, attach, threads, captured)
    nodes = _placed(session)
    refuse_misplaced(provider, nodes, artifact)
    return session, len(nodes.get(provider, ()))


def refuse_misplaced(provider: str, nodes: dict[str, list[tuple[str, str]]], artifact: Artifact) -> None:
    """Raise Misplaced unless every node (provider -> operator and name) is placed on `provider`."""
    misplaced = {other: names for other, names in nodes.items() if other != provider}
    if misplaced:
        raise Misplaced(f"{artifact.path}: {_misplaced_text(nodes, misplaced, provider)}")


def _open(artifact: Artifact, attach: Attach, threads: int, *, strict: bool) -> Any:
    ort = load_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1" if strict else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(artifact.path, options, enable_fallback=0, **attach(options))


def _opened_with_cpu(
    artifact: Artifact, provider: str, attach: Attach, threads: int, captured: Callable[[], str]
) -> Any:
    """Return a session that may use the CPU too, which shows misplaced nodes; raises where that is not the cause."""
    try:
        session = _open(artifact, attach, threads, strict=False)
    except Exception as error:
        if "WebGPU adapter" in str(error):
            raise TargetUnavailable(f"{provider} finds no adapter that it can use", "update its driver") from error
        raise RunFailed(f"{artifact.path}: ONNX Runtime refuses it ({in_one_line(error)}); export it again") from error
    if provider not in session.get_providers():
        complaint = re.search(r"Failed to [^\x1b\n]{1,300}", captured())
        reason = complaint[0] if complaint else "it does not say why"
        raise TargetUnavailable(f"{provider} is listed but does not start ({reason})", "install what it needs")
    return session


def _placed(session: Any) -> dict[str, list[tuple[str, str]]]:
    """Return for each provider operator and name of its nodes."""
    nodes: dict[str, list[tuple[str, str]]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, []).extend((node.op_type, node.name) for node in part.get_nodes())
    return nodes


def _misplaced_text(
    nodes: dict[str, list[tuple[str, str]]], misplaced: dict[str, list[tuple[str, str]]], provider: str
) -> str:
    strays = [node for names in misplaced.values() for node in names]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in strays).items())
    named = [name for _, name in strays if name][:3]
    which = f"{kinds}: {', '.join(named)}" if named else kinds
    advice = "take the float file, or one whose weights alone are int8"
    if not INTEGER.intersection(kind for kind, _ in strays):
        advice = "replace them by other operators, or take a target on the CPU"
    total = sum(map(len, nodes.values()))
    return f"{len(strays)} of {total} nodes would run on {', '.join(misplaced)}, not on {provider} ({which}); {advice}"
