"""The ONNX importer, judged by onnxruntime: operators, the batch, torch's exporters, real files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from assets import ASSETS, needs_assets
from onnx import helper, numpy_helper
from onnx_batches import BATCH, REFUSED
from onnx_judge import check, exported, rows_of
from onnx_models import FLOAT, Case, array, export, node, number, one, torch_nets
from onnx_ops import BOOLEAN, ELEMENTWISE, LATE, LINEAR, SHAPES, WINDOWS
from torch import nn

import maxaffine as ma
from maxaffine.capture.onnx import read_onnx
from maxaffine.capture.onnx.ops import RULES
from maxaffine.errors import CaptureError

ASSET_NETS = sorted(Path(ASSETS).rglob("nets/**/*.onnx*")) if ASSETS else []


# ---- operators ---------------------------------------------------------------------------------
@pytest.mark.parametrize("case", [*ELEMENTWISE, *BOOLEAN, *LINEAR, *WINDOWS, *SHAPES], ids=lambda case: case.text)
def test_operator(case: Case, tmp_path: Path) -> None:
    check(case.write(tmp_path), capture=False)


def test_every_operator_of_the_table_was_judged() -> None:
    cases = [*ELEMENTWISE, *BOOLEAN, *LINEAR, *WINDOWS, *SHAPES, *BATCH]
    seen = {"CastLike" if n.op_type == "Cast" else n.op_type for case in cases for n in case.nodes}
    assert set(RULES) - seen == {"Constant"}  # in test_double_converts_all_constants


def test_an_average_never_divides_by_an_empty_window(tmp_path: Path) -> None:
    """Not even in a window that is then dropped: its NaN would be refused."""
    spline = ma.load(one("AveragePool", (1, 1, 6, 7), opset=19, **LATE).write(tmp_path))
    x = torch.rand(2, 1, 6, 7)
    torch.testing.assert_close(spline.at(x)(x), spline(x))


# ---- the batch ---------------------------------------------------------------------------------
@pytest.mark.parametrize("case", BATCH, ids=lambda case: case.text)
def test_batch_is_set_free(case: Case, tmp_path: Path) -> None:
    check(case.write(tmp_path))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.text)
def test_op_on_the_batch_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"node \w+ \(output '\w+'\)") as caught:
        read_onnx(case.write(tmp_path))
    assert "\n" not in str(caught.value)


def test_refusal_names_the_node_at_fault(tmp_path: Path) -> None:
    case = next(case for case in REFUSED if case.text == "by the batch")
    nodes = [*case.nodes[:-1], node("Div", "x f", "d"), node("Relu", "d", "y")]
    with pytest.raises(CaptureError, match=r"node Div \(output 'd'\).*rows depend"):
        read_onnx(Case("", nodes, case.sizes, opset=15).write(tmp_path))


def test_two_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(k, FLOAT, ["N", 3]) for k in "ab"]
    nodes = [node("Add", "a b", "s"), node("MatMul", "s w", "y"), node("Relu", "s", "z")]
    weights = [numpy_helper.from_array(array(3, 2), "w")]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=k) for k in "yz"], weights)
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    check(path)


def test_inputs_and_outputs_by_their_names(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(k, FLOAT, ["N", 3]) for k in "ab"]
    nodes = [node("Sub", "a b", "s"), node("MatMul", "s w", "y"), node("Relu", "y", "z")]
    weights = [numpy_helper.from_array(array(3, 2), "w")]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name=k) for k in "yz"], weights)
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    W, x = torch.from_numpy(array(3, 2)), torch.rand(4, 3)
    a, b = (ma.load(path, over=name, select="y").at(x).A for name in "ab")
    torch.testing.assert_close(a, W.T.expand(4, 2, 3))
    torch.testing.assert_close(b, -a)
    torch.testing.assert_close(ma.load(path, over="s", select="z")(x), torch.relu(x @ W))
    for options in ({"over": "c"}, {"over": "a", "select": "q"}):
        with pytest.raises(CaptureError, match="none of the file's"):
            ma.load(path, **options)


def test_a_table_of_words(tmp_path: Path) -> None:
    """Token ids pick rows of a constant table: the spline is taken over what they pick."""
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["N", 4])
    nodes = [node("Gather", "table ids", "words"), node("Flatten", "words", "f"), node("Gemm", "f w", "y")]
    weights = [numpy_helper.from_array(array(7, 3), "table"), numpy_helper.from_array(array(12, 2), "w")]
    graph = helper.make_graph([*nodes, node("Relu", "y", "z")], "g", [ids], [onnx.ValueInfoProto(name="z")], weights)
    path = tmp_path / "words.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(CaptureError, match="over='words'"):
        ma.load(path)
    spline, x = ma.load(path, over="words"), torch.rand(5, 4, 3)
    torch.testing.assert_close(spline(x), torch.relu(x.flatten(1) @ torch.from_numpy(array(12, 2))))
    torch.testing.assert_close(spline.at(x)(x), spline(x))


def test_names_follow_the_file(tmp_path: Path) -> None:
    module, _ = read_onnx(next(case for case in BATCH if case.text == "names").write(tmp_path))
    assert list(module.names.values()) == ["input.1", "26", "y"]
    assert all(isinstance(module.get_submodule(path), nn.Module) for path in module.names)


def test_weights_are_parameters_and_shared(tmp_path: Path) -> None:
    nodes = [
        node("Identity", "w", "v"),
        node("MatMul", "x w", "h"),
        node("MatMul", "h v", "k"),
        node("Add", "k c", "y"),
    ]
    module, _ = read_onnx(Case("", nodes, (1, 4), {"w": array(4, 4), "c": number(1)}).write(tmp_path))
    assert [p.shape for p in module.parameters()] == [(4, 4)]
    assert all(p.requires_grad for p in module.parameters())
    norm = one("BatchNormalization", consts=[array(3), array(3), array(3), array(3) ** 2])
    assert len(list(read_onnx(norm.write(tmp_path))[0].parameters())) == 2


def test_double_converts_all_constants(tmp_path: Path) -> None:
    nodes = [
        node("Constant", "", "k", value=numpy_helper.from_array(array(5))),
        node("Constant", "", "r", value_floats=[0.1] * 5),
        node("Greater", "x r", "g"),
        node("Cast", "g", "f", to=FLOAT),
        node("Mul", "f k", "m"),
        node("Cast", "x", "c", to=FLOAT),
        node("Concat", "m c", "j", axis=1),
        node("MatMul", "j w", "y"),
    ]
    module, example = read_onnx(Case("", nodes, (1, 5), {"w": array(10, 2)}).write(tmp_path))
    single = module(*example)
    double = module.double()(example[0].double())
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


# ---- torch's exporters -------------------------------------------------------------------------
NETS = torch_nets()


ALL = [(name, opset, *how) for name in NETS for opset in (17, 18, 20) for how in ((1, False), (2, False), (2, True))]
QUICK = {(17, 1, False), (17, 2, True), (18, 2, False), (20, 2, True)}  # torch's exporters take seconds a net


@pytest.mark.parametrize(
    ("name", "opset", "batch", "free"),
    [
        pytest.param(*case, marks=() if case[1:] in QUICK else pytest.mark.slow)
        for case in ALL
        if case[:2] != ("transformer", 17)  # the TorchScript exporter fails on its fused layer
    ],
)
def test_torch_exporter(name: str, opset: int, batch: int, free: bool, tmp_path: Path) -> None:
    net, sizes = NETS[name]
    path = tmp_path / "net.onnx"
    export(net, sizes, path, batch=batch, free=free, opset=opset)
    check(path, capture=opset == 18)
    module, _ = read_onnx(path)
    x = torch.rand(5, *sizes)
    torch.testing.assert_close(module(x), net(x), rtol=1e-4, atol=1e-5)


# ---- real files --------------------------------------------------------------------------------
@needs_assets
@pytest.mark.parametrize("path", ASSET_NETS, ids=lambda path: path.name)
def test_real_net(path: Path) -> None:
    check(path)
    module, example = read_onnx(path)
    inputs = rows_of(example)
    single = module(*inputs)
    double = module.double()(*(x.double() for x in inputs))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, single.double(), rtol=1e-3, atol=1e-4 * single.abs().max().item())
    program = exported(module, [x.double() for x in example], functional=True)
    torch.testing.assert_close(program(*(x[:5].double() for x in inputs)), double[:5], rtol=1e-12, atol=1e-12)
