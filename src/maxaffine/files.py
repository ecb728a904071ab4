"""One door for files: the ending says what it is."""

from pathlib import Path
from typing import Any

from maxaffine import arguments
from maxaffine.capture import capture_module
from maxaffine.errors import FileFormatError
from maxaffine.spline import Spline


def load(
    path: str | Path,
    *,
    trusted: bool = False,
    over: int | str | None = None,
    select: Any = None,
    until: str | None = None,
) -> Spline:
    """A spline from a file: .onnx, .onnx.gz, .safetensors (written by spline.save), or .pt2 with trusted=True.

    over, select, until: as for Spline (until also takes the name of an ONNX node's output). Nothing in an ONNX or
    safetensors file is executed; a .pt2 can execute code and is refused unless trusted.
    Raises FileFormatError for a missing, damaged or unknown file, CaptureError when the network is refused.

    >>> import maxaffine as ma
    >>> ma.load("weights.h5")
    Traceback (most recent call last):
    maxaffine.errors.FileFormatError: weights.h5: unknown ending; .onnx, .onnx.gz, .safetensors and .pt2 can be loaded
    """
    path = arguments.path_of(path)
    arguments.require(trusted, bool, "trusted", "True or False")
    kind = ".onnx" if path.name.endswith(".onnx.gz") else path.suffix
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; name a file in it")
    if kind not in (".onnx", ".safetensors", ".pt2"):
        raise FileFormatError(f"{path.name}: unknown ending; .onnx, .onnx.gz, .safetensors and .pt2 can be loaded")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    if kind == ".safetensors":
        from maxaffine.capture.saved import load as load_saved

        if any(option is not None for option in (over, select, until)):
            raise FileFormatError(f"{path.name}: a saved spline is already cut; over, select and until do not apply")
        return Spline.from_capture(load_saved(path, trusted))
    if kind == ".pt2":
        from maxaffine.capture.exported import load as load_exported

        return Spline.from_capture(load_exported(path, trusted, over, select, until))
    from maxaffine.capture.onnx import read_onnx

    module, example = read_onnx(path)
    over, select = module.place_of(over), module.output_of(select)
    return Spline.from_capture(capture_module(module, example, over, select, until, module.names))
