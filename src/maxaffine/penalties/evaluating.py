"""Capturing a network that is being trained: as it computes in eval mode, its parameters shared and read live."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from maxaffine.errors import InputError
from maxaffine.spline import Spline


def captured_in_eval(model: nn.Module | Spline, example: Any) -> Spline:
    """The spline of the model in eval mode; the model's own modes are as before afterwards. A spline is returned as is.

    Raises InputError without an example, CaptureError.
    """
    if isinstance(model, Spline):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}; an nn.Module or a maxaffine.Spline is needed")
    if example is None:
        raise InputError("the model is captured around an example: give example=x, a batch of its inputs, or a Spline")
    with evaluating(model):
        return Spline(model, example)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, in its own mode again outside.

    The flags are set one by one: train() and eval() may be overridden to do more (LoRA merges its weights there).
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
