"""Networks of the command line: from a file, or from the user's own factory."""

import importlib
import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from maxaffine.cli.words import log_console
from maxaffine.errors import InputError

if TYPE_CHECKING:
    import torch

    from maxaffine.spline import Spline

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
DTYPES = ("float32", "float64")


class Cut(NamedTuple):
    """Where a network begins and ends: --until, --select and --over."""

    until: str | None = None
    select: str | None = None
    over: str | None = None


def loaded(model: str, trusted: bool, cut: Cut) -> "Spline":
    """Read a network from its file."""
    import maxaffine as ma

    with log_console.status(f"reading {model}"):
        return ma.load(model, trusted=trusted, **cut._asdict())


def captured(model: str, example: "torch.Tensor", cut: Cut) -> "Spline":
    """Call the user's own ``package.module:factory`` and capture the module that it returns."""
    import torch

    import maxaffine as ma

    module_name, name = model.split(":")
    sys.path.insert(0, os.getcwd())
    try:
        network = getattr(importlib.import_module(module_name), name)()
    except Exception as error:
        # Whatever the user's code raises is theirs to read; the line names the error and where it came from.
        raise InputError(f"{model}: {type(error).__name__}: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"{model} returned a {type(network).__name__}; a factory returns a torch.nn.Module")
    parameter = next(network.parameters(), torch.zeros(1))
    with log_console.status(f"capturing {model}"):
        return ma.Spline(network, example.to(parameter), **cut._asdict())


def like(dtype: str, device: str) -> "torch.Tensor":
    """Return a tensor of the dtype and device asked for."""
    import torch

    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype}: give {' or '.join(DTYPES)}")
    if device not in ("cpu", "cuda"):
        raise InputError(f"device {device}: give cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: this machine or this torch has no CUDA; leave --device out")
    return torch.zeros(1, dtype=torch.float64 if dtype == "float64" else torch.float32, device=device)
