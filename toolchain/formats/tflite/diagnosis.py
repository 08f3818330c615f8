"""Why a TFLite file is slow, from the kernels that LiteRT takes for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from targets import catalog
from targets.artifact import Artifact
from targets.session import Operator
from toolchain.formats.diagnosis import Diagnosis, listed


class TfliteDiagnosis(Diagnosis):
    """Why a TFLite file is slow."""

    def reasons(self, base: Artifact) -> list[str]:  # noqa: ARG002 (of every format)
        """Return what runs outside of XNNPACK, or in its slower kernels."""
        with catalog.default_for(self.artifact.format).open(self.artifact) as session:
            parts = session.facts.placement.get("XNNPACK", 0)
        found = []
        if parts != 1:
            found.append(f"XNNPACK has {f'the graph in {parts} parts' if parts else 'no part of the graph'}")
        if self._has_int16():
            found.append("int16 activations, for which XNNPACK has no kernels")
        if outside := [one for one in self.operators if one.kernel.isupper()]:
            found.append(f"outside XNNPACK: {self._shared(outside)}")
        if dynamic := [one for one in self.operators if one.kernel.startswith("Convert") and "QD8" in one.kernel]:
            found.append(f"activations are measured and quantized anew in each inference: {self._shared(dynamic)}")
        return found

    def computes_in_int8(self) -> bool:
        """Return whether XNNPACK runs an int8 kernel."""
        return any("QC8" in one.kernel or "QS8" in one.kernel for one in self.operators)

    def _has_int16(self) -> bool:
        from ai_edge_litert.interpreter import Interpreter

        tensors = Interpreter(str(self.artifact.path)).get_tensor_details()
        return any(tensor["dtype"] == np.int16 for tensor in tensors)

    def _shared(self, some: Sequence[Operator]) -> str:
        return f"{listed(Counter(one.kernel for one in some))}, {self.time_share(some)}"
