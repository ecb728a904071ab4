"""onnxruntime as the judge of the ONNX importer."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from maxaffine.capture.onnx import read_onnx

ort.set_default_logger_severity(3)


def rows_of(inputs: Sequence[Tensor], n: int = 6, seed: int = 1) -> list[Tensor]:
    """n random rows for each input of an example."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.dtype) for x in inputs]


def judged(path: Path, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """What onnxruntime computes, in batches of the size that the file allows (one row where it is free)."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else str(path)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    sizes = session.get_inputs()[0].shape
    step = sizes[0] if isinstance(sizes[0], int) else 1
    names = [value.name for value in session.get_inputs()]
    parts = [
        session.run(None, {k: x[i : i + step].numpy() for k, x in zip(names, inputs, strict=True)})
        for i in range(0, len(inputs[0]), step)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def exported(module: nn.Module, example: Sequence[Tensor], *, functional: bool = False) -> nn.Module:
    """The module captured by torch.export with a free batch; functional: without in-place operators."""
    thrice = tuple(x.repeat(3, *[1] * (x.dim() - 1)) for x in example)
    shapes = {"inputs": tuple({0: torch.export.Dim("batch")} for _ in thrice)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, thrice, dynamic_shapes=shapes, strict=False)
        return (program.run_decompositions({}) if functional else program).module()


def outputs_of(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        y = module(*inputs)
    return list(y) if isinstance(y, tuple) else [y]


def check(path: Path, tolerance: float = 1e-4, *, capture: bool = True) -> None:
    """The module is what onnxruntime computes for each row, and so is its capture with a free batch."""
    module, example = read_onnx(path)
    inputs = rows_of(example)
    ours, theirs = outputs_of(module, inputs), judged(path, inputs)
    assert len(ours) == len(theirs)
    for y, wanted in zip(ours, theirs, strict=True):
        assert y.shape[0] == len(inputs[0])
        scale = max(1e-30, np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        found = y.numpy().reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)
    if capture:
        five = [x[:5] for x in inputs]
        for y, wanted in zip(outputs_of(exported(module, example), five), outputs_of(module, five), strict=True):
            torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)
