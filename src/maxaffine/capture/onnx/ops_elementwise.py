"""ONNX operators that act on each element; two operands broadcast from the right.

Every function is the ONNX operator itself: tensors first, then attributes by their ONNX names and defaults.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maxaffine.errors import CaptureError


def identity(x: Tensor) -> Tensor:
    """X itself."""
    return x


def dropout(x: Tensor, training_mode: bool = False) -> Tensor:
    """Dropout in inference: x itself."""
    if training_mode:
        raise CaptureError("training_mode is on: export the model in eval mode")
    return x


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    """X in the element type of `like`, a constant that follows `module.double()`."""
    if x.dtype == like.dtype:
        return x
    if like.is_floating_point() and not x.is_floating_point() and like.dim() == 0:
        return x + torch.zeros_like(like)  # promotes to the type of `like` whatever that is by then
    return x.to(like.dtype)


# ---- two and more operands ---------------------------------------------------------------------
def add(x: Tensor, y: Tensor) -> Tensor:
    """X + y."""
    return x + y


def sub(x: Tensor, y: Tensor) -> Tensor:
    """X - y."""
    return x - y


def mul(x: Tensor, y: Tensor) -> Tensor:
    """X y."""
    return x * y


def div(x: Tensor, y: Tensor) -> Tensor:
    """X / y; integers are divided towards zero, as in C."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def power(x: Tensor, y: Tensor) -> Tensor:
    """X ** y in the type of x."""
    return torch.pow(x, y).to(x.dtype)


def mod(x: Tensor, y: Tensor, fmod: int = 0) -> Tensor:
    """Remainder with the sign of y (fmod=0) or of x (fmod=1)."""
    return torch.fmod(x, y) if fmod else torch.remainder(x, y)


def total(*operands: Tensor) -> Tensor:
    """x_1 + ... + x_n."""
    result = operands[0]
    for operand in operands[1:]:
        result = result + operand
    return result


def mean(*operands: Tensor) -> Tensor:
    """(x_1 + ... + x_n) / n."""
    return total(*operands) / len(operands)


def maximum(*operands: Tensor) -> Tensor:
    """max(x_1, ..., x_n)."""
    result = operands[0]
    for operand in operands[1:]:
        result = torch.maximum(result, operand)
    return result


def minimum(*operands: Tensor) -> Tensor:
    """min(x_1, ..., x_n)."""
    result = operands[0]
    for operand in operands[1:]:
        result = torch.minimum(result, operand)
    return result


# ---- activations -------------------------------------------------------------------------------
def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """min(max(x, lowest), highest), one or two sided."""
    return x if min is None and max is None else torch.clamp(x, min, max)


def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """X for x >= 0, alpha x below."""
    return F.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """X for x >= 0, slope x below; the slope is one number, one per channel, or anything that broadcasts."""
    per_channel = x.dim() > 1 and slope.dim() >= x.dim() - 1 and slope.numel() == slope.shape[1 - x.dim()]
    if slope.numel() == 1 or (per_channel and slope.numel() == x.shape[1]):
        return F.prelu(x, slope.flatten())
    return torch.relu(x) - slope * torch.relu(-x)


def thresholded_relu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """X for x > alpha, 0 else."""
    return F.threshold(x, alpha, 0.0)


def hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """max(0, min(1, alpha x + beta)); torch has the operator for alpha = 1/6, beta = 1/2."""
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def shrink(x: Tensor, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    """X + bias for x < -lambd, x - bias for x > lambd, 0 between."""
    if bias == lambd:
        return F.softshrink(x, lambd)
    if bias == 0:
        return F.hardshrink(x, lambd)
    raise CaptureError(f"bias is {bias}: only 0 (hard) and lambd = {lambd} (soft) are supported")


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """X for x >= 0, alpha (exp(x) - 1) below."""
    return F.elu(x, alpha)


def selu(x: Tensor, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    """Gamma times elu(x, alpha)."""
    return gamma * F.elu(x, alpha)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return F.celu(x, alpha)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """X times the normal distribution function at x."""
    return F.gelu(x, approximate=approximate)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / sum exp(x) along one axis (opset 13 and later)."""
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Log of softmax along one axis (opset 13 and later)."""
    return torch.log_softmax(x, axis)


def softmax_of_rest(x: Tensor, axis: int) -> Tensor:
    """Softmax over all axes from `axis` on together (before opset 13)."""
    return softmax(x.flatten(axis)).unflatten(-1, x.shape[axis:])


def log_softmax_of_rest(x: Tensor, axis: int) -> Tensor:
    """Log of softmax over all axes from `axis` on together (before opset 13)."""
    return log_softmax(x.flatten(axis)).unflatten(-1, x.shape[axis:])
