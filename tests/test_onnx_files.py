"""ONNX files that are broken, hostile or unusual: one clear line each, nothing read from outside."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, external_data_helper, helper
from onnx_judge import check
from onnx_models import FLOAT, Case, array, floats, ints, node, one

import maxaffine as ma
from maxaffine.capture.onnx import read_onnx
from maxaffine.errors import CaptureError, FileFormatError, MissingExtraError

# ---- bad files ---------------------------------------------------------------------------------
GOOD = Case("", [node("MatMul", "x w", "h"), node("Relu", "h", "y")], (1, 5), {"w": array(5, 4)})


def refuses(path: Path, error: type[Exception], *words: str) -> None:
    """Reading fails with one line that has the words."""
    with pytest.raises(error) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    refuses(tmp_path / "none.onnx", FileFormatError, "none.onnx", "No such file")
    refuses(tmp_path, FileFormatError, "directory")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_file(share: float, tmp_path: Path) -> None:
    data = GOOD.model().SerializeToString()
    packed = gzip.compress(data)
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])
    refuses(path, FileFormatError, "cut.onnx")
    path.with_suffix(".onnx.gz").write_bytes(packed[: int(share * len(packed))])
    refuses(path.with_suffix(".onnx.gz"), FileFormatError, "cut.onnx.gz")


def test_not_an_onnx_file(tmp_path: Path) -> None:
    for data in (b"hello", b"\x00" * 100, os.urandom(1000), b"PK\x03\x04 and so on"):
        path = tmp_path / "bad.onnx"
        path.write_bytes(data)
        refuses(path, FileFormatError, "bad.onnx")
    path = tmp_path / "plain.onnx.gz"
    path.write_bytes(GOOD.model().SerializeToString())
    refuses(path, FileFormatError, "gzip")


def test_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(GOOD.model().SerializeToString()))
    check(path)


BAD = [
    (Case("unknown", [node("Magic", "x", "y")], (1, 5)), CaptureError, ["Magic", "'y'"]),
    (
        Case("domain", [helper.make_node("FusedGemm", ["x"], ["y"], domain="com.microsoft")], (1, 5)),
        CaptureError,
        ["FusedGemm", "com.microsoft", "'y'"],
    ),
    (Case("old", GOOD.nodes, (1, 5), GOOD.constants, 6), FileFormatError, ["opset 6", "7 to 22"]),
    (Case("new", GOOD.nodes, (1, 5), GOOD.constants, 23), FileFormatError, ["opset 23"]),
    (Case("missing weight", GOOD.nodes, (1, 5)), FileFormatError, ["'w'", "MatMul"]),
    (Case("missing node", GOOD.nodes[1:], (1, 5)), FileFormatError, ["'h'", "Relu"]),
    (Case("no output", GOOD.nodes[:1], (1, 5), GOOD.constants), FileFormatError, ["'y'"]),
    (Case("wrong width", GOOD.nodes, (1, 6), GOOD.constants), CaptureError, ["MatMul", "'h'"]),
    (Case("free width", GOOD.nodes, (1, "D"), GOOD.constants), FileFormatError, ["'x'", "'D'"]),
    (Case("no batch", GOOD.nodes, (), GOOD.constants), FileFormatError, ["'x'"]),
    (Case("constant", [node("Relu", "w", "y")], (1, 5), GOOD.constants), CaptureError, ["'y'", "does not depend"]),
    (
        Case(
            "If",
            [
                helper.make_node(
                    "If",
                    ["c"],
                    ["y"],
                    then_branch=helper.make_graph([], "a", [], []),
                    else_branch=helper.make_graph([], "b", [], []),
                )
            ],
            (1, 5),
            {"c": np.array(True)},
        ),
        CaptureError,
        ["If", "control flow"],
    ),
    (
        one("BatchNormalization", consts=[array(3)] * 4, opset=15, training_mode=1),
        CaptureError,
        ["BatchNormalization", "training_mode"],
    ),
    (
        one("Resize", consts=[None, floats(1, 1, 2, 2)], coordinate_transformation_mode="tf_crop_and_resize"),
        CaptureError,
        ["Resize", "tf_crop_and_resize"],
    ),
    (
        one("Resize", consts=[None, floats(1, 1, 2, 2)], mode="linear", coordinate_transformation_mode="strange"),
        CaptureError,
        ["strange"],
    ),
    (one("Pad", consts=[ints(0, 0, 1, 1, 0, 0, 1, 1)], mode="strange"), CaptureError, ["Pad", "strange"]),
    (one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME"), CaptureError, ["MaxPool", "SAME"]),
    *(
        (one(op, (1, 3, 1), text=f"{axes}", consts=[ints(*axes)]), CaptureError, [op, f"axes {axes}"])
        for op, axes in (("Unsqueeze", [9]), ("Unsqueeze", [-9]), ("Unsqueeze", [2, -3]), ("Squeeze", [5]))
    ),
    (one("Flatten", (1, 3), axis=9), CaptureError, ["Flatten", "[9]"]),
    (one("Transpose", (1, 3, 4), perm=[0, 1]), CaptureError, ["Transpose", "perm [0, 1]"]),
    (
        Case("fewer sizes", [node("Split", "x p", "a b y", axis=1)], (1, 3), {"p": ints(1, 2)}),
        CaptureError,
        ["Split", "3 outputs", "2 pieces"],
    ),
    (
        Case("indices", [node("MaxPool", "x", "h i", kernel_shape=[2]), node("Cast", "i", "y", to=FLOAT)], (1, 2, 4)),
        CaptureError,
        ["node Cast (output 'y')", "'i' is output 2 of node MaxPool (output 'h')"],
    ),
    (Case("second", [node("MaxPool", "x", "h y", kernel_shape=[2])], (1, 2, 4)), CaptureError, ["'y' is output 2"]),
    (one("Relu", strange=3), CaptureError, ["Relu", "strange"]),
    (
        Case("live shape", [node("Cast", "x", "i", to=TensorProto.INT64), node("Reshape", "x i", "y")], (1, 5)),
        CaptureError,
        ["Reshape", "'shape'"],
    ),
    (Case("live range", [node("Range", "x x x", "y")], (1,)), CaptureError, ["Range"]),
]


@pytest.mark.parametrize(("case", "error", "words"), BAD, ids=lambda value: getattr(value, "text", ""))
def test_bad_model(case: Case, error: type[Exception], words: list[str], tmp_path: Path) -> None:
    refuses(case.write(tmp_path), error, *words)


def test_unused_parts_do_not_matter(tmp_path: Path) -> None:
    model = Case("", [*GOOD.nodes, node("Magic", "h", "z")], (1, 5), GOOD.constants).model()
    model.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 2), helper.make_opsetid("", 13)])
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [5, 4]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    module, example = read_onnx(path)
    assert len(example) == 1 and example[0].shape == (1, 5)
    torch.testing.assert_close(module(example[0]), torch.relu(example[0] @ torch.from_numpy(GOOD.constants["w"])))


def test_broken_weight(tmp_path: Path) -> None:
    model = GOOD.model()
    model.graph.initializer[0].raw_data = b"12345678"
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    refuses(path, FileFormatError, "'w'")


def test_inputs_of_different_batch(tmp_path: Path) -> None:
    model = Case("", [node("Add", "x z", "y")], (1, 5)).model()
    model.graph.input.append(helper.make_tensor_value_info("z", FLOAT, [2, 5]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    refuses(path, CaptureError, "x [1, 5]", "z [2, 5]")


# ---- data outside the file ---------------------------------------------------------------------
def outside(folder: Path, location: str, **entries: str) -> Path:
    """The good model with its weight at `location`."""
    model = GOOD.model()
    weight = model.graph.initializer[0]
    external_data_helper.set_external_data(weight, location)
    for key, value in entries.items():
        weight.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    weight.ClearField("raw_data")
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    data = GOOD.constants["w"].tobytes()
    (tmp_path / "sub" / "w.bin").write_bytes(b"1234" + data + b"567")
    path = outside(tmp_path, "sub/w.bin", offset="4", length=str(len(data)))
    check(path)
    (tmp_path / "w.bin").write_bytes(data)
    module, example = read_onnx(outside(tmp_path, "w.bin"))
    torch.testing.assert_close(module(*example), torch.relu(example[0] @ torch.from_numpy(GOOD.constants["w"])))


def test_external_data_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(GOOD.constants["w"].tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    for location in ("../secret.bin", str(secret), "link.bin", "up/secret.bin", "x/../../secret.bin", ""):
        refuses(outside(folder, location), FileFormatError, "'w'", "outside the folder")


@pytest.mark.parametrize(
    "entries",
    [
        {"length": "81"},
        {"offset": "1", "length": "80"},
        {"offset": "-1"},
        {"offset": "x"},
        {"offset": "9" * 30},
    ],
)
def test_broken_external_data(entries: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(GOOD.constants["w"].tobytes())
    refuses(outside(tmp_path, "w.bin", **entries), FileFormatError, "'w'")


def test_missing_external_data(tmp_path: Path) -> None:
    refuses(outside(tmp_path, "none.bin"), FileFormatError, "none.bin", "'w'")
    refuses(outside(tmp_path, "."), FileFormatError, "'w'")


def test_onnx_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    refuses(GOOD.write(tmp_path), MissingExtraError, "maxaffine[onnx]")


def test_a_softmax_is_cut_off_by_the_name_of_an_output(tmp_path: Path) -> None:
    """The refusal names the output to cut at as the file does, and that name works."""
    weight = onnx.numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "W")
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["scores.1"]),
        helper.make_node("Relu", ["scores.1"], ["26"]),
        helper.make_node("Softmax", ["26"], ["probabilities"], axis=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, d]) for n, d in (("x", 4), ("probabilities", 3))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    x = torch.randn(5, 4)
    with pytest.raises(ma.errors.NotPiecewiseAffineError, match=r"'probabilities' is smooth.*until='26'"):
        ma.load(tmp_path / "net.onnx").at(x)
    cut = ma.load(tmp_path / "net.onnx", until="26")
    assert torch.allclose(cut.at(x)(x), x[:, :3].relu()) and [o.name for o in cut.operators] == ["26"]
    assert ma.load(tmp_path / "net.onnx", until="scores.1").at(x).A.shape == (5, 3, 4)
