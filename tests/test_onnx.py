"""`export --onnx`: the model that is written gives the calibrated posterior, whatever its last layer is."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys

import naive
import numpy as np
import pytest

import unoic_cli
from unoic_cli import Calibration, cli
from unoic_cli.calibrations.calibration import Modality
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.prior import Prior
from unoic_cli.commands import onnx_model
from unoic_cli.errors import DataError, UnoicError, UsageError

onnx = pytest.importorskip("onnx", reason="pip install 'unoic[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  # where it is installed

K, D = 5, 7
RNG = np.random.default_rng(0)
TYPES = {"f2": TensorProto.FLOAT16, "f4": TensorProto.FLOAT, "f8": TensorProto.DOUBLE}
NEAR = {"f2": 3e-3, "f4": 1e-6, "f8": 1e-12}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(lam=0.8, temperature=2.0, zeros=0, **more):
    counts = [50.0, 20.0, 10.0, 5.0, 1.0]
    counts[K - zeros :] = [0.0] * zeros
    target = Prior.from_weights([1.0] * K, "uniform", counts=False)
    return Calibration(
        lam, target, (Modality(None, Prior.from_weights(counts, "given", counts=True), temperature, **more),)
    )


def node(op, inputs, outputs, **attributes):
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=f"{op.lower()}_{outputs.split()[0]}", **attributes
    )


class Model:
    """A model that is put together by its nodes."""

    def __init__(self, nodes, shape, outputs=None, *, dtype="f4", opset=17, ir=8, x=(None, D), **weights):
        self.dtype = dtype
        kind = TYPES[dtype]
        self.x = RNG.normal(size=[6 if one is None else one for one in x]).astype(dtype)
        outputs = {"y": (shape, kind), **(outputs or {})}
        infos = [helper.make_tensor_value_info(name, type_, shape) for name, (shape, type_) in outputs.items()]
        stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
        inputs = [helper.make_tensor_value_info("x", kind, x)]
        if ir < 4:
            inputs += [helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in stored]
        graph = helper.make_graph(nodes, "g", inputs, infos, stored)
        self.proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        self.outputs = list(outputs)

    def save(self, path="m.onnx"):
        onnx.checker.check_model(self.proto)
        onnx.save(self.proto, path)
        return path

    def run(self, path):
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return dict(zip(self.outputs, session.run(self.outputs, {"x": self.x}), strict=True))


def weight(*shape, dtype="f4"):
    return RNG.normal(size=shape).astype(dtype)


def check(model, calibration=None, said="", kind="logits", axis=1, output=None, added=None):
    """Export a model, and hold what the new one gives to what is applied to what the old one gives."""
    calibration = made() if calibration is None else calibration
    before = model.run(model.save())
    result = unoic_cli.export(calibration, onnx="m.onnx", output="c.onnx", output_name=output, force=True)
    after, new = model.run("c.onnx"), onnx.load("c.onnx")
    onnx.checker.check_model(new, full_check=True)
    assert new.ir_version == model.proto.ir_version and new.opset_import == model.proto.opset_import
    assert [one.name for one in new.graph.output] == [one.name for one in model.proto.graph.output]
    inputs = {one.name for one in new.graph.initializer}
    assert [one.name for one in new.graph.input if one.name not in inputs] == ["x"]
    name = output or "y"
    right = calibration.predict_proba(before[name].astype("f8"), kind=kind, class_axis=axis)
    found = after[name].astype("f8")
    found = found if kind == "probs" else naive.softmax(np.moveaxis(found, axis, -1))
    found = found if kind == "probs" else np.moveaxis(found, -1, axis)
    np.testing.assert_allclose(found, right, rtol=0, atol=NEAR[model.dtype])
    if kind == "log_probs":
        np.testing.assert_allclose(np.exp(after[name].astype("f8")).sum(axis), 1, atol=1e-3)
    for other in set(model.outputs) - {name}:
        np.testing.assert_array_equal(after[other], before[other])
    assert after[name].dtype == before[name].dtype
    assert said in result.model.did and result.model.kind == kind and result.model.class_axis == axis, result.model
    assert added in (None, result.model.added)
    grown = len(new.graph.node) - len(model.proto.graph.node)
    assert grown == result.model.added, "what is said to be added was"
    return result


# ---------------------------------------------------------------- layers


GEMM = {"w": weight(D, K), "c": weight(K)}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.3])
@pytest.mark.parametrize("offsets", [None, (0.5, 0.0, -1.0, 0.25, 2.0)])
def test_a_linear_layer(dtype, temperature, offsets):
    model = Model([node("Gemm", "x w c", "y")], (None, K), dtype=dtype, **{k: v.astype(dtype) for k, v in GEMM.items()})
    check(model, made(temperature=temperature, offsets=offsets), "folded into Gemm gemm_y", added=0)


LAYERS = {
    "transposed": ([node("Gemm", "x w c", "y", transB=1)], {"w": weight(K, D), "c": weight(K)}, "Gemm"),
    "factors": ([node("Gemm", "x w c", "y", alpha=0.5, beta=3.0)], GEMM, "Gemm"),
    "beta 0": ([node("Gemm", "x w c", "y", beta=0.0)], GEMM, "Gemm"),
    "no bias": ([node("Gemm", "x w", "y")], {"w": weight(D, K)}, "Gemm"),
    "bias (1, K)": ([node("Gemm", "x w c", "y")], {"w": weight(D, K), "c": weight(1, K)}, "Gemm"),
    "one bias": ([node("Gemm", "x w c", "y")], {"w": weight(D, K), "c": weight(1)}, "Gemm"),
    "matmul": ([node("MatMul", "x w", "h"), node("Add", "h c", "y")], GEMM, "Add"),
    "matmul, turned": ([node("MatMul", "x w", "h"), node("Add", "c h", "y")], GEMM, "Add"),
    "a number": ([node("MatMul", "x w", "h"), node("Add", "h c", "y")], {"w": weight(D, K), "c": weight()}, "Add"),
    "identity": ([node("Gemm", "x w c", "h"), node("Identity", "h", "y")], GEMM, "Gemm"),
}


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("zeros", [0, 2])
def test_layers_that_are_changed(case, zeros):
    nodes, weights, op = LAYERS[case]
    check(Model(nodes, (None, K), **weights), made(zeros=zeros), f"folded into {op}", added=0)
    check(Model(nodes, (None, K), **weights), made(1.0, 1.0, zeros=zeros), f"folded into {op}", added=0)


IMAGES = {"x": (2, 3, 6, 4)}
CONV = {"w": weight(K, 3, 3, 3), "c": weight(K)}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bias", ["", " c"])
def test_a_convolution(dtype, bias):
    weights = {name: value.astype(dtype) for name, value in CONV.items() if name == "w" or bias}
    nodes = [node("Conv", f"x w{bias}", "y", pads=[1, 1, 1, 1])]
    model = Model(nodes, (2, K, 6, 4), dtype=dtype, **IMAGES, **weights)
    if dtype == "f8":
        with pytest.raises(Exception, match="Conv"):  # no kernel of onnxruntime, so what was changed is looked at
            model.run(model.save())
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")
        found = {one.name: numpy_helper.to_array(one) for one in onnx.load("c.onnx").graph.initializer}
        np.testing.assert_array_equal(found.pop("w"), weights["w"] / 2)
        layer = unoic_cli.export(made())
        np.testing.assert_allclose(
            next(iter(found.values())), np.array(layer.bias) + weights.get("c", 0.0) / 2, rtol=1e-15
        )
        return
    check(model, said="folded into Conv conv_y", added=0)
    check(model, made(zeros=1), said="folded into Conv conv_y", added=0)


def test_groups_and_transposed_convolutions():
    nodes = [node("Conv", "x w c", "y", group=1)]
    check(Model(nodes, (2, K, 4, 2), **IMAGES, **CONV), said="folded into Conv")
    upwards = [node("ConvTranspose", "x w c", "y", strides=[2, 2])]
    weights = {"w": weight(3, K, 2, 2), "c": weight(K)}
    check(Model(upwards, (2, K, None, None), **IMAGES, **weights), said="folded into ConvTranspose", added=0)
    check(Model(upwards, (2, None, None, None), **IMAGES, **weights), said="folded into ConvTranspose", added=0)


def test_classes_on_the_last_axis():
    nodes = [node("Conv", "x w c", "h"), node("Transpose", "h", "y", perm=[0, 2, 3, 1])]
    check(Model(nodes, (2, 4, 2, K), **IMAGES, **CONV), said="folded into Conv", axis=3, added=0)
    soft = [*nodes[:1], node("Transpose", "h", "t", perm=[0, 2, 3, 1]), node("Softmax", "t", "y", axis=3)]
    check(Model(soft, (2, 4, 2, K), **IMAGES, **CONV), said="folded into Conv", axis=3, kind="probs", added=0)
    unknown = Model(nodes, (None, None, None, K), **IMAGES, **CONV)
    check(unknown, said="folded into Conv", axis=3)
    dense = [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("MatMul", "t w", "h"), node("Add", "h c", "z")]
    weights = {"w": weight(3, K), "c": weight(K)}
    last = Model([*dense, node("Transpose", "z", "y", perm=[0, 3, 1, 2])], (2, K, 6, 4), **IMAGES, **weights)
    check(last, said="folded into Add", added=0)


def test_as_wide_as_there_are_classes():
    """(N, K, H, K): by convention the classes are the first; a softmax or a layer says otherwise."""
    images = {"x": (2, 3, 6, K)}
    check(Model([node("Conv", "x w c", "y", pads=[1] * 4)], (2, K, 6, K), **images, **CONV), axis=1)
    check(
        Model([node("Relu", "x", "y")], (2, K, 6, K), x=(2, K, 6, K)), axis=1, said="two nodes added behind the output"
    )
    turned = [node("Softmax", "x", "y", axis=-1)]
    check(Model(turned, (2, K, 6, K), x=(2, K, 6, K)), axis=3, kind="probs")


# ---------------------------------------------------------------- a softmax at the end


@pytest.mark.parametrize(("last", "kind"), [("Softmax", "probs"), ("LogSoftmax", "log_probs")])
@pytest.mark.parametrize(("opset", "axis"), [(17, 1), (17, -1), (17, None), (12, 1), (12, None), (9, 1)])
def test_a_softmax_takes_changed_scores(last, kind, opset, axis):
    attributes = {} if axis is None else {"axis": axis}
    nodes = [node("Gemm", "x w c", "z"), node(last, "z", "y", **attributes)]
    result = check(Model(nodes, (None, K), opset=opset, ir=4, **GEMM), kind=kind, said="folded into Gemm gemm_z")
    assert not result.notes
    nodes = [node("Relu", "x", "z"), node(last, "z", "y", **attributes)]
    said = f"two nodes added before {last} {last.lower()}_y"
    check(Model(nodes, (None, K), opset=opset, ir=4, x=(None, K)), kind=kind, said=said, added=2)


def test_softmax_of_images():
    single = Model(
        [node("Conv", "x w c", "z"), node("Softmax", "z", "y")], (2, K, 1, 1), opset=9, ir=4, x=(2, 3, 3, 3), **CONV
    )
    check(single, kind="probs", said="folded into Conv")  # of one pixel, by the old softmax
    nodes = [node("Conv", "x w c", "z"), node("Softmax", "z", "y", axis=1)]
    check(Model(nodes, (2, K, 4, 2), **IMAGES, **CONV), kind="probs", said="folded into Conv")
    check(Model(nodes, (2, K, 4, 2), **IMAGES, **CONV), made(zeros=2), kind="probs", said="folded into Conv")
    log = [*nodes[:1], node("Softmax", "z", "p", axis=1), node("Log", "p", "y")]
    check(Model(log, (2, K, 4, 2), **IMAGES, **CONV), kind="log_probs", said="folded into Conv")
    resized = [
        node("Conv", "x w c", "s"), node("Resize", "s r f", "z", mode="linear"), node("Softmax", "z", "y", axis=1),
    ]  # fmt: skip
    more = {"r": np.zeros(0, "f4"), "f": np.float32([1, 1, 2, 2])}
    check(Model(resized, (2, K, 8, 4), **IMAGES, **CONV, **more), kind="probs", said="two nodes added before Softmax")
    check(Model([*resized[:1], node("Resize", "s r f", "y", mode="linear")], (2, K, 8, 4), **IMAGES, **CONV, **more),
          made(zeros=1), said="two nodes added behind the output", added=2)  # fmt: skip


def test_types_that_change_on_the_way():
    half = {name: value.astype("f2") for name, value in GEMM.items()}
    nodes = [node("Cast", "x", "t", to=TensorProto.FLOAT16), node("Gemm", "t w c", "z")]
    cast = node("Cast", "z", "y", to=TensorProto.FLOAT)
    check(Model([*nodes, cast], (None, K), **half), said="two nodes added behind the output")
    soft = [*nodes, node("Softmax", "z", "p"), node("Cast", "p", "y", to=TensorProto.FLOAT)]
    model = Model(soft, (None, K), **half)
    before = model.run(model.save())["y"]
    result = unoic_cli.export(made(), onnx="m.onnx", output="c.onnx", force=True)
    assert result.model.kind == "probs" and "folded into Gemm" in result.model.did
    right = made().predict_proba(before, kind="probs")
    np.testing.assert_allclose(model.run("c.onnx")["y"], right, atol=3e-3)


# ---------------------------------------------------------------- what else depends on it


def other(shape, dtype="f4"):
    return {"o": (shape, TYPES[dtype])}


SHARED = {
    "weights": [node("Gemm", "x w c", "y"), node("MatMul", "x w", "o")],
    "bias": [node("Gemm", "x w c", "y"), node("Add", "c c", "o")],
    "scores": [node("Gemm", "x w c", "y"), node("Relu", "y", "o")],
    "scores before a copy": [node("Gemm", "x w c", "h"), node("Identity", "h", "y"), node("Relu", "h", "o")],
    "product": [node("MatMul", "x w", "o"), node("Add", "o c", "y")],
    "scores of a softmax": [node("Gemm", "x w c", "o"), node("Softmax", "o", "y")],
    "probabilities": [node("Gemm", "x w c", "z"), node("Softmax", "z", "y"), node("Relu", "y", "o")],
    "logits and a logarithm": [
        node("Gemm", "x w c", "z"), node("Softmax", "z", "o"), node("Log", "o", "y"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_serves_others_stays(case, temperature):
    """Every other output is what it was, to the last bit."""
    nodes = SHARED[case]
    kind = "log_probs" if "logarithm" in case else "probs" if nodes[1].op_type == "Softmax" else "logits"
    shape = (K,) if case == "bias" else (None, K)
    model = Model(nodes, (None, K), other(shape), **GEMM)
    own = case == "weights" and temperature == 1  # the bias alone is changed
    result = check(model, made(temperature=temperature), "folded" if own else "added", kind=kind, output="y")
    assert result.notes == ("m.onnx: only y is calibrated; o as before",)


def test_weights_as_an_output():
    model = Model([node("Gemm", "x w c", "y")], (None, K), {"c": ((K,), TYPES["f4"])}, **GEMM)
    check(model, said="(Gemm gemm_y stays: its weights are used elsewhere, too)", output="y", added=2)
    check(model, made(temperature=1.0), said="one node added behind the output", output="y", added=1)


def test_graphs_within_a_graph():
    """What a branch takes from outside counts as a use, and gets it as it was."""

    def branch(name, op):
        out = helper.make_tensor_value_info(name, TYPES["f4"], (None, K))
        return helper.make_graph([node(op, "y", name)], name, [], [out])

    nodes = [
        node("Gemm", "x w c", "y"), node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m n", "b"),
        node("If", "b", "o", then_branch=branch("t", "Relu"), else_branch=branch("e", "Neg")),
    ]  # fmt: skip
    model = Model(nodes, (None, K), other((None, K)), n=np.float32(0), **GEMM)
    check(model, said="its scores are used elsewhere, too", output="y", added=2)


def test_constants_in_nodes_and_in_inputs():
    constant = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(GEMM[name])) for name in "wc"]
    check(Model([*constant, node("Gemm", "x w c", "y")], (None, K)), said="folded into Gemm")
    model = Model([node("Gemm", "x w c", "y")], (None, K), **GEMM)
    told = [helper.make_tensor_value_info(name, TYPES["f4"], GEMM[name].shape) for name in "wc"]
    model.proto.graph.input.extend(told)
    check(model, said="its weights are inputs, which a caller may replace", added=2)


def test_old_formats():
    """Version 3: initializers are inputs, too, those that are added as well."""
    check(Model([node("Gemm", "x w c", "y")], (None, K), ir=3, opset=7, **GEMM), said="folded into Gemm")
    check(Model([node("Relu", "x", "y")], (None, K), ir=3, opset=7, x=(None, K)), said="two nodes added", added=2)
    check(Model([node("Gemm", "x w z", "y")], (None, K), ir=3, opset=9, w=GEMM["w"], z=np.zeros(K, "f4")))


def test_logarithms_and_attention_are_scores():
    """What is made of logarithms of probabilities, or of probabilities and something else, is."""
    nodes = [node("LogSoftmax", "x", "l"), node("Reshape", "l s", "y")]
    check(Model(nodes, (None, K), x=(None, K), s=np.array([-1, K])), said="two nodes added behind the output")
    nodes = [node("Softmax", "x", "p"), node("Clip", "p e", "c"), node("Log", "c", "y")]
    check(Model(nodes, (None, K), x=(None, K), e=np.float32(1e-30)), said="two nodes added behind the output")
    nodes = [node("Softmax", "x", "p"), node("Mul", "p x", "y")]
    check(Model(nodes, (None, K), x=(None, K)), said="two nodes added behind the output")


def test_nothing_to_change():
    calibration = made(0.0, 1.0)
    check(Model([node("Gemm", "x w c", "y")], (None, K), **GEMM), calibration, "nothing to change", added=0)
    check(Model([node("Relu", "x", "y")], (None, K), x=(None, K)), made(0.0, 2.0), "one node added", added=1)


def test_names_that_are_taken():
    taken = ["y_scale", "y_bias", "y_uncalibrated", "y_scale_mul", "unoic_scale", "unoic_bias"]
    chain = [
        helper.make_node("Relu", [one], [other], name=other) for one, other in zip(["x", *taken], taken, strict=False)
    ]
    model = Model([*chain, node("Relu", taken[-1], "y")], (None, K), x=(None, K))
    check(model, said="two nodes added behind the output")


def test_small_weights_of_float16_are_not_made_smaller():
    """Below the normal numbers they would lose their digits."""
    small = {"w": np.full((D, K), 1e-4, "f2"), "c": weight(K, dtype="f2")}
    model = Model([node("Gemm", "x w c", "y")], (None, K), dtype="f2", **small)
    check(model, made(temperature=8.0), said="its weights times 0.125 leave float16", added=2)
    large = {"w": weight(D, K, dtype="f2"), "c": np.full(K, 6e4, "f2")}
    model = Model([node("Gemm", "x w c", "y")], (None, K), dtype="f2", **large)
    model.save()
    with pytest.raises(DataError, match="a bias of 119999"):
        unoic_cli.export(made(temperature=0.5), onnx="m.onnx", output="d.onnx")


# ---------------------------------------------------------------- large models


def external(folder="."):
    model = Model([node("Gemm", "x w c", "y")], (None, K), **GEMM)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(onnx.ModelProto.FromString(model.proto.SerializeToString()), f"{folder}/m.onnx", **options)
    return model


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_weights_in_other_files_stay_there(temperature, tmp_path):
    model, calibration = external(), made(temperature=temperature)
    before, stored = model.run("m.onnx")["y"], (tmp_path / "weights.bin").read_bytes()
    result = unoic_cli.export(calibration, onnx="m.onnx", output="c.onnx")
    assert "its weights lie in another file" in result.model.did and result.model.added == 1 + (temperature != 1)
    np.testing.assert_allclose(naive.softmax(model.run("c.onnx")["y"]), calibration.predict_proba(before), atol=1e-6)
    assert (tmp_path / "weights.bin").read_bytes() == stored and (tmp_path / "c.onnx").stat().st_size < 5000


def test_a_model_that_is_not_whole(tmp_path):
    external()
    (tmp_path / "there").mkdir()
    for output, said in [
        ("there/c.onnx", "weights of m.onnx lie in weights.bin beside it; expected a name in its folder")
    ]:
        with pytest.raises(UsageError, match=said):
            unoic_cli.export(made(), onnx="m.onnx", output=output)
    unoic_cli.export(made(), onnx=str(tmp_path / "m.onnx"), output="c.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match=r"weights in weights\.bin, which is not there"):
        unoic_cli.export(made(), onnx="m.onnx", output="d.onnx")
    assert not (tmp_path / "d.onnx").exists()


def test_models_beyond_the_format(tmp_path, monkeypatch):
    with open("big.onnx", "wb") as file:
        file.truncate(onnx_model.MOST_BYTES + 1)
    with pytest.raises(DataError, match="2,147,483,648 bytes; expected an ONNX model, which has at most 2047 MB"):
        unoic_cli.export(made(), onnx="big.onnx", output="c.onnx")
    model = Model([node("Relu", "x", "y")], (None, K), x=(None, K))
    model.save()
    monkeypatch.setattr(onnx_model, "MOST_BYTES", (tmp_path / "m.onnx").stat().st_size)
    with pytest.raises(DataError, match=r"c\.onnx: [\d,]+ bytes; expected an ONNX model of at most"):
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")
    assert not (tmp_path / "c.onnx").exists()


# ---------------------------------------------------------------- the command


def test_the_command(capfd, tmp_path):
    Model([node("Gemm", "x w c", "z"), node("Softmax", "z", "y")], (None, K), **GEMM).save()
    made().save("c.json")
    assert cli.run(["export", "c.json", "--onnx", "m.onnx", "-o", "c.onnx"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["schema"] == "unoic.export/1" and content["output"] == "c.onnx"
    assert content["onnx"] == {
        "model": "m.onnx", "output": "y", "kind": "probs", "shape": [None, K], "class_axis": 1,
        "did": "folded into Gemm gemm_z", "added": 0,
    }  # fmt: skip
    assert cli.run(["export", "c.json", "--onnx", "m.onnx", "-o", "t.onnx", "--format", "table"]) == 0
    shown = capfd.readouterr().out
    assert "y (?, 5), classes on axis 1: probabilities" in shown and "folded into Gemm gemm_z" in shown
    props = {one.key: one.value for one in onnx.load("t.onnx").metadata_props}
    assert Calibration.from_dict(json.loads(props["unoic_calibration"]), "x") == made()
    assert (tmp_path / "t.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()
    assert cli.run(["export", "c.json", "-o", "layer.npz"]) == 0 and (tmp_path / "layer.npz").exists()


def test_several_outputs(capfd):
    nodes = [node("Gemm", "x w c", "y"), node("Relu", "x", "o")]
    model = Model(nodes, (None, K), other((None, D)), **GEMM)
    check(model, said="folded into Gemm", output="y")
    made().save("c.json")
    for words, said in [
        ((), "--output: 2 outputs (y (?, 5), o (?, 7)); expected the name of the one that holds the scores"),
        (("--output", "z"), "--output: z, no output of m.onnx; expected one of y (?, 5), o (?, 7)"),
        (("--output", "d.onnx"), "(the file to write is -o)"),
        (("--output", "o"), "m.onnx:o: 7 classes, of shape (?, 7); expected 5, as the calibration has"),
    ]:
        assert cli.run(["export", "c.json", "--onnx", "m.onnx", "-o", "d.onnx", *words]) != 0
        out, err = capfd.readouterr()
        assert out == "" and said in err and err.count("\n") == 1


def bad(nodes, shape=(None, K), **more):
    return lambda: Model(nodes, shape, **more).save()


def broken(path):
    """A node that takes nothing."""
    model = onnx.load(path)
    del model.graph.node[0].input[:]
    onnx.save(model, path)


X = {"x": (None, K)}
REFUSED = {
    "classes": (bad([node("Relu", "x", "y")], (None, 4), x=(None, 4)), "4 classes, of shape (?, 4); expected 5"),
    "classes of a layer": (bad([node("Gemm", "x w", "y")], (None, None), w=weight(D, 3)), "3 classes; expected 5"),
    "unknown": (bad([node("Relu", "x", "y")], (None, None), **X), "m.onnx:y: shape (?, ?); expected 5 classes"),
    "rank": (bad([node("Relu", "x", "y")], (2, K, 3), x=(2, K, 3)), "shape (2, 5, 3); expected (N, 5) or (N, 5, H, W)"),
    "a row": (bad([node("Relu", "x", "y")], (K,), x=(K,)), "shape (5); expected (N, 5)"),
    "sigmoid": (bad([node("Sigmoid", "x", "y")], **X), "Sigmoid, a probability of each class by itself; expected"),
    "axis": (bad([node("Softmax", "x", "y", axis=0)], **X), "Softmax over another axis than the classes'"),
    "old softmax": (
        bad([node("Softmax", "x", "y", axis=1)], (2, K, 3, 3), x=(2, K, 3, 3), opset=11), "over another axis",
    ),
    "logarithms": (bad([node("LogSoftmax", "x", "z"), node("Log", "z", "y")], **X), "a logarithm of LogSoftmax"),
    "no inputs": (
        lambda: Model([node("Softmax", "x", "y")], (None, K), **X).save() and broken("m.onnx"),
        "m.onnx: nodes that make no sense; expected an ONNX model that is whole",
    ),
    "reshaped": (
        bad([node("Softmax", "x", "p"), node("Reshape", "p s", "y")], s=np.array([-1, K]), **X),
        "m.onnx:y: probabilities by way of Reshape; expected logits, or a softmax over the classes",
    ),
    "a mean": (
        bad([node("Softmax", "x", "p"), node("Softmax", "x", "q"), node("Add", "p q", "s"), node("Mul", "s h", "y")],
            h=np.float32(0.5), **X),
        "probabilities by way of Mul",
    ),
    "in pieces": (
        bad([node("Exp", "x", "e"), node("ReduceSum", "e", "s"), node("Div", "e s", "y")], **X),
        "exponentials over their sum, a softmax in pieces; expected",
    ),
    "opset": (bad([node("Relu", "x", "y")], opset=6, ir=3, **X), "opset 6; expected 7 or higher"),
    "text": (lambda: pathlib.Path("m.onnx").write_text("no model"), "damaged, or a file of another kind"),
    "empty": (lambda: pathlib.Path("m.onnx").touch(), "m.onnx: a file of another kind; expected an ONNX model"),
    "missing": (lambda: None, "m.onnx: no such file; expected an ONNX model"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, capfd, tmp_path):
    make, said = REFUSED[case]
    make()
    made().save("c.json")
    assert cli.run(["export", "c.json", "--onnx", "m.onnx", "-o", "c.onnx"]) in (2, 65, 66)
    out, err = capfd.readouterr()
    assert out == "" and said in err and err.count("\n") == 1 and not (tmp_path / "c.onnx").exists()


def test_outputs_of_other_types(tmp_path):
    graph = Model([node("ArgMax", "x", "y", axis=1, keepdims=0)], (None,), **X).proto
    graph.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(graph, "m.onnx")
    with pytest.raises(DataError, match=r"m\.onnx:y: int64 values; expected scores of float16, float or double"):
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")
    model = Model([node("Relu", "x", "y")], (None, K), **X)
    model.proto.graph.output[0].name = "x"
    onnx.save(model.proto, "m.onnx")
    with pytest.raises(DataError, match=r"m\.onnx:x: an output that is no node's alone"):
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")


def test_shapes_that_nobody_says():
    """They follow from the nodes, or from the weights of the layer; else the model is refused."""
    model = Model([node("Gemm", "x w c", "y")], (None, K), **GEMM)
    model.proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model.proto, "m.onnx")
    before = model.run("m.onnx")["y"]
    assert unoic_cli.export(made(), onnx="m.onnx", output="c.onnx").model.shape == (None, K)
    np.testing.assert_allclose(naive.softmax(model.run("c.onnx")["y"]), made().predict_proba(before), atol=1e-6)
    custom = helper.make_node("Mystery", ["x"], ["h"], domain="elsewhere")
    for last, said in [(node("Gemm", "h w c", "y"), None), (node("Relu", "h", "y"), "an output without a shape")]:
        odd = Model([custom, last], (None, K), **GEMM)
        odd.proto.graph.output[0].type.tensor_type.ClearField("shape")
        odd.proto.opset_import.append(helper.make_opsetid("elsewhere", 1))
        onnx.save(odd.proto, "m.onnx")
        if said is None:
            assert "folded" in unoic_cli.export(made(), onnx="m.onnx", output="c.onnx", force=True).model.did
        else:
            with pytest.raises(DataError, match=said):
                unoic_cli.export(made(), onnx="m.onnx", output="c.onnx", force=True)


def test_no_model_is_calibrated_twice():
    Model([node("Gemm", "x w c", "y")], (None, K), **GEMM).save()
    unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")
    with pytest.raises(DataError, match="a model written by unoic export, calibrated already"):
        unoic_cli.export(made(), onnx="c.onnx", output="d.onnx")


def test_calibrations_that_are_no_layer():
    Model([node("Gemm", "x w c", "y")], (None, K), **GEMM).save()
    one = made().modalities[0]
    two = tuple(Modality(name, one.source_prior, 1.0) for name in "ab")
    fused = Calibration(1.0, made().target_prior, two, "average", (0.5, 0.5))
    for calibration, said in [
        (made(delta=DeltaStatistics(0.4, 0.1)), "statistics of delta"),
        (fused, "a fusion of a, b"),
    ]:
        with pytest.raises(UsageError, match=said):
            unoic_cli.export(calibration, onnx="m.onnx", output="c.onnx")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"onnx": "m.onnx"}, "--onnx without -o"),
        ({"onnx": "m.onnx", "output": "c.bin"}, "expected a name that ends with .onnx"),
        ({"onnx": "m.onnx", "bias": "b.npz", "output": "c.onnx"}, "--bias beside --onnx"),
        ({"output_name": "y"}, "--output without --onnx"),
        ({"output": "c.npz", "bias": "b.npz"}, "-o beside --bias"),
        ({"output": "c.onnx"}, r"\(.onnx: with --onnx MODEL\)"),
        ({"onnx": "m.onnx", "output": "m.onnx", "force": True}, "the output is also an input"),
        ({"onnx": "m.onnx", "output": "none/c.onnx"}, "does not exist"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    Model([node("Gemm", "x w c", "y")], (None, K), **GEMM).save()
    with pytest.raises(UnoicError, match=said):
        unoic_cli.export(made(), **options)


def test_without_the_library(monkeypatch, tmp_path):
    Model([node("Gemm", "x w c", "y")], (None, K), **GEMM).save()
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError) as caught:
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx")
    assert str(caught.value) == (
        "--onnx: onnx, which is not installed; expected it to be installed: pip install 'unoic[onnx]'"
    )
    assert not (tmp_path / "c.onnx").exists()


def test_names_that_are_no_text():
    """Bytes of a model that are no UTF-8 are shown as they can be."""
    Model([node("Gemm", "x w c", "y"), node("Relu", "x", "o")], ("rows", K), other((None, D)), **GEMM).save()
    with open("m.onnx", "rb") as file:
        content = file.read()
    with open("d.onnx", "wb") as file:
        file.write(content.replace(b"rows", b"r\xffws").replace(b"\x01o", b"\x01\xfe"))
    result = unoic_cli.export(made(), onnx="d.onnx", output="c.onnx", output_name="y")
    assert result.model.shape == ("r\ufffdws", K) and json.dumps(result.to_dict())
    assert result.notes == ("d.onnx: only y is calibrated; \ufffd as before",)


def test_damaged_models():
    """Every cut, and changed bytes: a model, or one line."""
    model = Model([node("MatMul", "x w", "h"), node("Add", "h c", "z"), node("Softmax", "z", "y")], (None, K), **GEMM)
    model.save()
    with open("m.onnx", "rb") as file:
        whole = file.read()
    rng, right = np.random.default_rng(1), 0
    for i in range(300):
        content = bytearray(whole[: i * len(whole) // 150] if i < 150 else whole)
        for _ in range(0 if i < 150 else 3):
            content[rng.integers(len(whole))] = rng.integers(256)
        with open("d.onnx", "wb") as file:
            file.write(content)
        with contextlib.suppress(UnoicError):
            json.dumps(unoic_cli.export(made(), onnx="d.onnx", output="e.onnx", force=True).to_dict())
            right += 1
    assert 0 < right < 300


def test_all_or_nothing(file_limit, tmp_path):
    Model([node("Gemm", "x w c", "y")], (None, K), **GEMM).save()
    (tmp_path / "c.onnx").write_text("old")
    with file_limit(100), pytest.raises(UnoicError):
        unoic_cli.export(made(), onnx="m.onnx", output="c.onnx", force=True)
    assert (tmp_path / "c.onnx").read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == [
        "c.onnx",
        "m.onnx",
    ]
