"""ONNX models for tests: single-operator graphs for onnx.helper, and nets for torch's exporters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

IR = 8


@dataclass(frozen=True)
class Case:
    """One node (or a chain of them) on the input 'x' with constants; `text` is its name in the test report."""

    text: str
    nodes: Sequence[onnx.NodeProto]
    sizes: Sequence[int | str]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    opset: int = 13
    dtype: type = np.float32

    def model(self) -> onnx.ModelProto:
        """The model; 'y' is its output."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x = helper.make_tensor_value_info("x", kind, list(self.sizes))
        y = onnx.ValueInfoProto(name="y")
        weights = [numpy_helper.from_array(np.asarray(v, order="C"), k) for k, v in self.constants.items()]
        graph = helper.make_graph(list(self.nodes), "g", [x], [y], weights)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR)

    def write(self, folder: Path) -> Path:
        """The model as a file."""
        path = folder / "model.onnx"
        path.write_bytes(self.model().SerializeToString())
        return path


def array(*sizes: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(sizes).astype(dtype)


def one(
    op: str,
    sizes: Sequence[int | str] = (1, 3, 6, 7),
    text: str = "",
    opset: int = 13,
    consts: Sequence[np.ndarray | None] = (),
    first: Sequence[np.ndarray] = (),
    **attributes: Any,
) -> Case:
    """The case y = op(*first, x, *consts), constants of None absent."""
    before = {f"a{i}": value for i, value in enumerate(first)}
    after = {f"c{i}": value for i, value in enumerate(consts) if value is not None}
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(consts)]
    node = helper.make_node(op, [*before, "x", *names], ["y"], **attributes)
    shown = text or " ".join(f"{k}={v}" for k, v in attributes.items())
    return Case(f"{op}-{opset} {shown}", [node], sizes, {**before, **after}, opset)


def ints(*values: int) -> np.ndarray:
    """A 1-d int64 constant."""
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray:
    """A 1-d float32 constant."""
    return np.array(values, dtype=np.float32)


def number(value: float, dtype: type = np.float32) -> np.ndarray:
    """A 0-d constant."""
    return np.array(value, dtype=dtype)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node from names separated by blanks."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


FLOAT = TensorProto.FLOAT


# ---- nets for torch's exporters ----------------------------------------------------------------
class Residual(nn.Module):
    """Two convolutions with BatchNorm, a skip, a mean over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.norm2, self.head = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.first(x)))
        h = torch.relu(h + self.norm2(self.second(h)))
        return self.head(h.mean((2, 3)))


class ClassToken(nn.Module):
    """A learned token in front of the others: the export expands it over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.head = nn.Parameter(torch.randn(1, 1, 6)), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head(torch.relu(h))[:, 0] + h.flatten(1).sum(1, keepdim=True)


def torch_nets() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The nets with the sizes of one row."""
    torch.manual_seed(0)
    heads = {"d_model": 16, "nhead": 4, "dim_feedforward": 32, "batch_first": True}
    early = nn.TransformerEncoderLayer(norm_first=True, activation="gelu", **heads)
    nets: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), (3, 4)),
        "cnn": (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
            (1, 8, 8),
        ),
        "resnet": (Residual(), (3, 8, 8)),
        "generator": (
            nn.Sequential(
                nn.Linear(5, 36), nn.Unflatten(1, (4, 3, 3)), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.BatchNorm2d(3),
                nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 1, 3, 2, 1, 1), nn.Tanh(),
            ),
            (5,),
        ),
        "transformer": (nn.TransformerEncoderLayer(**heads), (6, 16)),
        "transformer2": (nn.TransformerEncoder(early, 2, enable_nested_tensor=False), (6, 16)),
        "token": (ClassToken(), (5, 6)),
    }  # fmt: skip
    return {name: (net.eval(), sizes) for name, (net, sizes) in nets.items()}


def export(net: nn.Module, sizes: Sequence[int], path: Path, *, batch: int, free: bool, opset: int) -> None:
    """Write a net with torch's exporter (the TorchScript one for opset 17) at a batch, fixed or free."""
    x = torch.rand(batch, *sizes, generator=torch.Generator().manual_seed(0))
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if opset == 17:
                axes = {"x": {0: "B"}, "y": {0: "B"}} if free else None
                names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
                torch.onnx.export(net, (x,), path, dynamo=False, opset_version=opset, **names)
            else:
                shapes = ({0: torch.export.Dim("B")},) if free else None
                torch.onnx.export(
                    net, (x,), path, dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
                )
    finally:
        logging.disable(logging.NOTSET)
