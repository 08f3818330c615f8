"""What is ONNX Runtime's own: fixed batches, layouts, integer inputs and outputs, width, overhead, .ort files."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from targets import catalog
from targets.artifact import ONNX_METADATA_KEY, Artifact
from targets.errors import ArtifactError, RunFailed, UnknownTarget
from targets.host.local_target import operators
from targets.host.machine import machine_state, saturates
from targets.metadata import adopt, explained, load_artifact, save_sidecar
from targets.onnxruntime.cpu import OrtCpu, OrtPrecise, OrtReference, switches_kernels
from targets.session import TimingPlan
from tests.fixtures.small_models import artifact, conv_net, glyphs, integer_net, stored


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_a_fixed_batch_is_filled_and_cut(tmp_path: Path, onnx_artifact: Artifact, count: int) -> None:
    fixed = artifact(conv_net(tmp_path / "fixed.onnx", batch=8))
    with OrtCpu().open(fixed) as session, OrtCpu().open(onnx_artifact) as free:
        np.testing.assert_allclose(session.run(glyphs(count)), free.run(glyphs(count)), atol=1e-5)


def test_a_fixed_batch_is_timed_as_it_is(tmp_path: Path) -> None:
    fixed = artifact(conv_net(tmp_path / "fixed.onnx", batch=8))
    with OrtCpu().open(fixed) as session:
        assert session.time(TimingPlan(batch=8, min_runs=5, min_seconds=0)).batch == 8
        with pytest.raises(RunFailed, match="fixed at 8"):
            session.time(TimingPlan(batch=1))


def test_input_and_output_are_found_whatever_they_are_called(tmp_path: Path, onnx_artifact: Artifact) -> None:
    foreign = artifact(conv_net(tmp_path / "nhwc.onnx", nhwc=True, names=("x:0", "dense_1")), layout="NHWC")
    with OrtCpu().open(foreign) as session, OrtCpu().open(onnx_artifact) as expected:
        np.testing.assert_allclose(session.run(glyphs(5)), expected.run(glyphs(5)), atol=1e-5)


def test_integer_borders_are_quantized_and_dequantized(tmp_path: Path) -> None:
    whole = artifact(integer_net(tmp_path / "integer.onnx"))
    with OrtCpu().open(whole) as session:
        logits = session.run(glyphs(20))
    weights = (np.random.default_rng(0).normal(size=(784, 10)) * 0.5).astype(np.float32)
    exact = glyphs(20).reshape(20, 784) / np.float32(255) @ weights
    assert np.abs(logits - exact).max() <= 0.2501, "half a step of the output"
    assert np.all(logits * 2 == np.rint(logits * 2))


def test_a_label_offset_drops_the_columns_before_it(onnx_artifact: Artifact) -> None:
    letters = artifact(onnx_artifact.path, classes=9, label_offset=1)
    with OrtCpu().open(letters) as session, OrtCpu().open(onnx_artifact) as ten:
        np.testing.assert_array_equal(session.run(glyphs(4)), ten.run(glyphs(4))[:, 1:])


def test_classes_that_do_not_fit_are_named_with_the_width(onnx_artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"\[10\].*47 classes with label offset 0"):
        artifact(onnx_artifact.path, classes=47)
    forged = replace(onnx_artifact, classes=tuple(map(str, range(47))))
    with pytest.raises(RunFailed, match=r"\[10\].*47 classes with label offset 0"):
        OrtCpu().open(forged)


def test_dynamic_quantization_is_judged_image_by_image(tmp_path: Path, onnx_artifact: Artifact) -> None:
    from onnxruntime.quantization import quantize_dynamic

    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(onnx_artifact.path, path)
    images = glyphs(8)
    images[1:] //= 16
    with OrtCpu().open(artifact(path)) as session:
        alone = np.concatenate([session.run(images[k : k + 1]) for k in range(8)])
        np.testing.assert_array_equal(session.run(images), alone)


def test_each_variant_runs_other_kernels(qdq_artifact: Artifact) -> None:
    fast, plain = _operators(OrtCpu(), qdq_artifact), _operators(OrtReference(), qdq_artifact)
    assert {"QLinearConv", "QGemm"} <= {kind for kind, _ in fast}
    assert {"Conv", "Gemm"} <= {kind for kind, _ in plain}
    assert not {kind for kind, _ in plain} & {"QLinearConv", "QGemm"}
    assert {weights for kind, weights in fast if kind in ("QLinearConv", "QGemm")} == {"INT8"}
    if not OrtPrecise().probe().ok:
        pytest.skip(f"ort-precise is not here ({OrtPrecise().probe().reason}): NOT checked")
    precise = _operators(OrtPrecise(), qdq_artifact)
    assert {weights for kind, weights in precise if kind in ("QLinearConv", "QGemm")} == {"UINT8"}


def test_all_variants_mean_the_same(qdq_artifact: Artifact) -> None:
    images = glyphs(200)
    with OrtReference().open(qdq_artifact) as session:
        meant, target = session.run(images), session.facts.target
    # An activation on the border between two steps may round either way: no more than some steps of the output.
    border = 0.05 * np.ptp(meant)
    exact = not saturates(machine_state().get("isa", ()))
    with OrtCpu().open(qdq_artifact) as session:
        assert session.facts.target != target
        # Without VNNI, sums of 16 bits saturate on these weights of 8: more than a border.
        assert (np.abs(session.run(images) - meant).max() < border) == exact
    if OrtPrecise().probe().ok:
        with OrtPrecise().open(qdq_artifact) as session:
            assert np.abs(session.run(images) - meant).max() < border


@pytest.mark.parametrize(
    ("isa", "switches"),
    [
        (["sse4_2", "avx", "avx2", "fma"], True),
        (["avx2", "fma", "avx512f", "avx512_vnni", "amx_int8"], True),
        (["sse4_2", "avx"], False),
        (["asimd", "asimddp", "i8mm"], False),
        ([], False),
    ],
    ids=["Haswell", "Sapphire Rapids", "Sandy Bridge", "Arm", "unknown"],
)
def test_only_some_processors_have_kernels_to_switch_to(isa: list[str], switches: bool) -> None:
    assert switches_kernels(isa) is switches


@pytest.fixture(scope="module")
def qdq_artifact(onnx_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The net with its activations as uint8 and its weights as int8, as Q/DQ nodes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        batches = iter([{"image": glyphs(32)[:, None].astype(np.float32) / 255}])

        def get_next(self):
            return next(self.batches, None)

    path = tmp_path_factory.mktemp("qdq") / "qdq.onnx"
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(_with_bias(onnx_artifact.path, path), path, Reader(), **types)
    return artifact(path)


def _with_bias(source: Path, path: Path) -> Path:
    """Write the file with Gemm in MatMul's place, as ours have it."""
    import onnx

    model = onnx.load(source)
    model.graph.node[3].op_type = "Gemm"
    onnx.save(model, path)
    return path


def _operators(target: OrtCpu, artifact: Artifact) -> set[tuple[str, str]]:
    """Return each operator that ONNX Runtime runs, and the type of its weights."""
    import onnx
    import onnxruntime

    options = target.options(1)
    path = artifact.path.with_name(f"{target.name}.onnx")
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(artifact.path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path).graph
    types = {i.name: onnx.TensorProto.DataType.Name(i.data_type) for i in graph.initializer if len(i.dims) > 1}
    return {(node.op_type, next((types[n] for n in node.input if n in types), "")) for node in graph.node}


@pytest.mark.slow
def test_batch_evaluation_keeps_up_with_a_bare_loop(tmp_path: Path) -> None:
    import onnxruntime

    wide = artifact(conv_net(tmp_path / "wide.onnx", channels=32))
    images = glyphs(4096)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    bare = onnxruntime.InferenceSession(wide.path, options, providers=["CPUExecutionProvider"])
    values = wide.preprocess.apply(images)

    with OrtCpu().open(wide) as session:
        size = session.batch

        def loop() -> None:
            for k in range(0, len(values), size):
                bare.run(["logits"], {"image": values[k : k + size]})

        ratios = [_seconds(loop) / _seconds(lambda: session.run(images)) for _ in range(31)]
    assert np.median(ratios) >= 0.8


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_the_graph_is_optimized_as_far_as_the_word_says(qdq_artifact: Artifact) -> None:
    kinds = {}
    for level in OrtCpu.settings["graph"]:
        target = OrtCpu(graph=level)
        kinds[level] = {kind for kind, _ in _operators(target, qdq_artifact)}
        with target.open(qdq_artifact) as session:
            assert set(session.facts.placement) == {"CPUExecutionProvider"}
            assert session.facts.target == target.name
    assert "QLinearConv" in kinds["all"]
    assert not kinds["disable"] & {"QLinearConv", "QGemm"}
    assert catalog.get("ort-cpu,graph=all").name == "ort-cpu"
    for word in ("ort-cpu,graph=most", "ort-cpu,graf=all", "ort-cpu,graph=all,graph=basic", "ort-reference,graph=all"):
        with pytest.raises(UnknownTarget, match=r"it takes: (graph=all|none)"):
            catalog.get(word)


@pytest.fixture
def optimized(onnx_artifact: Artifact, tmp_path: Path) -> Artifact:
    return artifact(stored(onnx_artifact.path, tmp_path / "net.ort"))


def test_it_answers_as_the_file_it_was_made_of(optimized: Artifact, onnx_artifact: Artifact) -> None:
    assert optimized.format == "ort"
    target = catalog.default_for("ort")
    with target.open(optimized) as ort, target.open(onnx_artifact) as original:
        np.testing.assert_allclose(ort.run(glyphs(70)), original.run(glyphs(70)), atol=1e-5)


def test_its_sidecar_is_read_again(optimized: Artifact) -> None:
    save_sidecar(optimized)
    assert load_artifact(optimized.path) == optimized


def test_it_says_what_the_onnx_file_said_of_itself(onnx_artifact: Artifact, tmp_path: Path) -> None:
    facts = onnx_artifact.facts()
    copied = ("schema", "preprocess", "classes", "recipe", "parent_sha256", "tools", "calibration", "notes")
    model = onnx.load(onnx_artifact.path)
    model.metadata_props.add(
        key=ONNX_METADATA_KEY, value=json.dumps({name: facts[name] for name in copied if name in facts})
    )
    source = tmp_path / "told.onnx"
    onnx.save(model, source)
    path = stored(source, tmp_path / "told.ort")
    assert explained(path)
    loaded = load_artifact(path)
    assert (loaded.classes, loaded.preprocess) == (onnx_artifact.classes, onnx_artifact.preprocess)


def test_a_truncated_one_is_one_line(optimized: Artifact) -> None:
    optimized.path.write_bytes(optimized.path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match="convert it again") as caught:
        adopt(optimized.path, preprocess=optimized.preprocess, classes=optimized.classes)
    assert "\n" not in str(caught.value)


def test_damaged_metadata_is_one_line(onnx_artifact: Artifact, tmp_path: Path) -> None:
    model = onnx.load(onnx_artifact.path)
    model.metadata_props.add(key="said", value="undamaged")
    onnx.save(model, tmp_path / "told.onnx")
    path = stored(tmp_path / "told.onnx", tmp_path / "told.ort")
    path.write_bytes(path.read_bytes().replace(b"undamaged", b"un\xe0amaged"))
    with pytest.raises(ArtifactError, match="its metadata is damaged"):
        explained(path)


def test_integers_that_nothing_explains_are_refused(tmp_path: Path) -> None:
    path = stored(integer_net(tmp_path / "int.onnx"), tmp_path / "int.ort")
    with pytest.raises(ArtifactError, match="no scale for the int8 values of image; make it with `glyphpress export`"):
        artifact(path)


def test_its_operators_are_those_of_the_onnx_file(optimized: Artifact) -> None:
    with pytest.raises(RunFailed, match=r"profile the \.onnx"):
        operators(optimized, catalog.get("ort-cpu"))
