"""Classifiers of scikit-learn in an ONNX graph: operators that hold a whole forest or support vector machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.core.errors import StageError
from toolchain.core.quantities import counted

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

DOMAIN = "ai.onnx.ml"
_TITLES = {"SVMClassifier": "a support vector machine", "LinearClassifier": "a linear classifier"}
_NUMBERS = ("coefficients", "intercepts", "nodes_values", "class_weights", "rho", "support_vectors")


@dataclass(frozen=True)
class EstimatorFacts:
    """A classifier in a graph. title: `a random forest`. size: what it holds. numbers: how many of them are learned."""

    title: str
    size: str
    numbers: int

    @property
    def refusal(self) -> str:
        """Return why no layer of it can be changed or converted."""
        return f"it is {self.title}, which has no layers; ship its float .onnx (--recipe float --format onnx)"


def estimator_in(proto: ModelProto) -> EstimatorFacts | None:
    """Return the classifier that a graph holds, None for a network."""
    node = next((node for node in proto.graph.node if node.domain == DOMAIN and "Classifier" in node.op_type), None)
    if node is None:
        return None
    values = {entry.name: entry for entry in node.attribute}
    numbers = learned(node)
    if node.op_type.startswith("TreeEnsemble"):
        trees = len(set(values["nodes_treeids"].ints)) if "nodes_treeids" in values else 0
        nodes = len(values["nodes_nodeids"].ints) if "nodes_nodeids" in values else 0
        title = "a decision tree" if trees == 1 else "a forest of decision trees"
        return EstimatorFacts(title, f"{counted(trees, 'tree')}, {counted(nodes, 'node')}", numbers)
    title = _TITLES.get(node.op_type, f"a classifier of {DOMAIN} ({node.op_type})")
    size = counted(numbers, "number")
    if vectors := sum(values["vectors_per_class"].ints) if "vectors_per_class" in values else 0:
        size = f"{vectors:,} support vectors of {len(values['support_vectors'].floats) // vectors:,} numbers"
    return EstimatorFacts(title, size, numbers)


def refuse_estimator(proto: ModelProto, name: str) -> None:
    """Raise StageError where a graph holds a classifier of scikit-learn, of which nothing can be quantized."""
    if estimator := estimator_in(proto):
        raise StageError(f"{name} cannot be quantized: {estimator.refusal}")


def answers_of(node: NodeProto) -> list[ValueInfoProto]:
    """Return what a classifier of scikit-learn's answers for one image, labels and scores; nothing for others."""
    from onnx import TensorProto, helper

    values = {entry.name: entry for entry in node.attribute}
    names = next((entry for name, entry in values.items() if name.startswith("classlabels")), None)
    if node.domain != DOMAIN or names is None or not all(node.output):
        return []
    # Without probabilities, a support vector machine answers a score for each pair of classes.
    pairs = len(values["rho"].floats) if "rho" in values and "prob_a" not in values else 0
    columns = max(pairs, len(names.ints), len(names.strings))
    ends = (TensorProto.INT64 if names.ints else TensorProto.STRING, [1]), (TensorProto.FLOAT, [1, columns])
    return [helper.make_tensor_value_info(name, *end) for name, end in zip(node.output, ends, strict=False)]


def learned(node: NodeProto | Any) -> int:
    """Return how many learned numbers an operator of scikit-learn's holds; 0 for any other operator."""
    if node.domain != DOMAIN:
        return 0
    return sum(len(entry.floats) for entry in node.attribute if entry.name in _NUMBERS)
