"""ONNX files as torch modules with a free batch.

`reader` parses and checks the file, `ops` is the table of operators, `binding` fills in what is constant,
`probe` runs the file once to set the batch free, `module` is the result.
"""

from pathlib import Path

from torch import Tensor

from .module import OnnxModule
from .probe import build
from .reader import read_file

__all__ = ["OnnxModule", "read_onnx"]


def read_onnx(path: str | Path) -> tuple[OnnxModule, tuple[Tensor, ...]]:
    """The network of an .onnx or .onnx.gz file (opsets 7 to 22) and an example input of batch 1.

    The module runs the nodes with plain torch functions in the precision of the file, for any batch, also
    where the file was exported for one batch only: its rows are what the file computes one at a time. The
    example is random in [0, 1].

    Raises:
        FileFormatError: the file is missing or broken, or its data is not in its folder.
        CaptureError: an operator that is not supported, or one that moves or folds the batch.
        MissingExtraError: the package onnx is not installed.
    """
    return build(read_file(path))
