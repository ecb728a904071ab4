"""torch's own .pt2 files: loading one can execute code that stands in the file, so it is done only when trusted."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maxaffine.capture import Captured, finish
from maxaffine.capture.example import Call, arrange
from maxaffine.capture.export import functional, quiet
from maxaffine.errors import FileFormatError


def load(path: Path, trusted: bool, over: int | str | None, select: Any, until: str | None) -> Captured:
    """Read a program that torch.export.save wrote, if it is trusted.

    torch.export.load runs code from the file by three routes: pickled sample inputs, pickled weights, and symbolic
    expressions that are evaluated. Raises FileFormatError without trusted=True, or when the file is not readable.
    """
    if not trusted:
        raise FileFormatError(
            f"{path.name}: loading a .pt2 executes code from the file (pickled inputs, pickled weights, symbolic "
            "expressions); if you made it yourself, pass trusted=True"
        )
    try:
        with quiet():
            program = torch.export.load(path)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise FileFormatError(
            f"cannot read {path.name}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    if program.example_inputs is None:
        raise FileFormatError(f"{path.name} holds no example inputs; save it from torch.export.export(model, example)")
    args, kwargs = program.example_inputs
    call = Call(tuple(args), dict(kwargs))
    model = program.module(check_guards=False)
    assert isinstance(model, nn.Module)
    inputs = arrange(call, over, model.forward)
    return finish(functional(program), model, inputs, over, select, until, {})
