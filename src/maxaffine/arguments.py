"""What an argument must be, one check a kind: a refusal says its name, what was given and what to give instead."""

from collections.abc import Iterable, Sequence
from math import inf, nan
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from sys import maxsize
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.types import Shape

T = TypeVar("T")
FLOATS = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
SAID = (type(None), bool, int, float, complex, str, bytes, type)
"""Types whose values are short enough to be repeated in a message."""


def told(value: Any) -> str:
    """A value as a refusal names it: short, on one line.

    >>> told([1.0]), told(-3), told(torch.zeros(2, 3))
    ('a list', '-3', 'a torch.float32 tensor of shape (2, 3)')
    """
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        kind = "tensor" if value.layout == torch.strided else f"{str(value.layout).removeprefix('torch.')} tensor"
        return f"a {value.dtype} {kind} of shape {tuple(value.shape)}{where}"
    return ascii(value)[:60] if isinstance(value, SAID) else f"a {type(value).__name__}"


def sized(count: float) -> str:
    """A number of bytes as messages say it.

    >>> sized(10), sized(3 * 2**20), sized(5.25 * 2**30)
    ('10 bytes', '3.0 MiB', '5.2 GiB')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def require(value: Any, kind: type[T], name: str, give: str) -> T:
    """The value, if it is one of that kind."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is {told(value)}; give {give}")
    return value


def values(value: Any, name: str, give: str) -> Tensor:
    """A dense tensor that holds values (one on the meta device holds none)."""
    found = require(value, Tensor, name, give)
    if found.layout != torch.strided or found.device.type == "meta":
        raise InputError(f"{name} is {told(found)}; give {give}, dense and with values")
    return found


def floats(value: Any, name: str, give: str) -> Tensor:
    """A dense tensor of float32 or float64."""
    found = values(value, name, give)
    if found.dtype not in FLOATS:
        raise InputError(f"{name} is {told(found)}; give {give} in torch.float32 or torch.float64")
    return found


def finite(value: Any, name: str, give: str) -> Tensor:
    """A dense tensor of float32 or float64 without NaN and infinity."""
    found = floats(value, name, give)
    if not bool(found.isfinite().all()):
        raise InputError(f"{name} holds NaN or infinity; give {give} of finite numbers")
    return found


def rows(x: Any, name: str, shape: Shape, dtype: torch.dtype, device: torch.device, owner: str) -> Tensor:
    """A tensor (N, *shape), N >= 1, in the dtype and on the device of what takes it. Nothing is read from it."""
    needed = f"(N, {', '.join(map(str, shape))})"
    found = require(x, Tensor, name, f"a tensor of shape {needed}")
    if found.layout != torch.strided:
        raise InputError(f"{name} is {told(found)}; use {name}.to_dense()")
    if found.dtype != dtype or found.device != device:
        pairs = (found.dtype, dtype), (repr(str(found.device)), repr(str(device)))
        its, mine = pairs[found.dtype == dtype]
        able = owner == "the spline" and found.dtype in FLOATS and found.device.type != "meta"
        how = f"spline.to({its}) or {name}.to({mine})" if able else f"{name}.to({mine})"
        how = f"{name}.to(torch.float32) first" if found.dtype in HALVES else how
        raise InputError(f"{name} is {found.dtype} on {found.device}, {owner} {dtype} on {device}; use {how}")
    if tuple(found.shape[1:]) != shape or found.dim() == 0 or found.shape[0] == 0:
        raise InputError(f"{name} has shape {tuple(found.shape)}; {needed} with N >= 1 is needed")
    return found


def number(value: Any, name: str, low: float = -inf, high: float = inf) -> float:
    """A finite real number from low to high."""
    wanted = "a finite number" + (f" from {low:g} to {high:g}" if high < inf else f" >= {low:g}" if low > -inf else "")
    found = float(value) if isinstance(value, Real) and not isinstance(value, bool) else nan
    if not low <= found <= high or abs(found) == inf:
        raise InputError(f"{name} is {told(value)}; give {wanted}")
    return found


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite real number; True and False are none.

    >>> is_number(0.5), is_number(float("nan")), is_number("0.5"), is_number(True)
    (True, False, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < inf


def whole(value: Any, name: str, low: int = 1, high: int | None = None) -> int:
    """A whole number from low to high."""
    found = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if found is None or not low <= found <= (found if high is None else high):
        between = f">= {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} is {told(value)}; give a whole number {between}")
    return found


def wholes(value: Any, name: str, low: int = 1, high: int | None = None) -> list[int]:
    """Different whole numbers from low to high, ascending; at least one.

    >>> wholes((20, 1, 5, 1), "k")
    [1, 5, 20]
    """
    found = [] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not found:
        raise InputError(f"{name} is {told(value)}; give at least one whole number, such as [{low}]")
    return sorted({whole(item, name, low, high) for item in found})


def budget(memory: Any, default: int) -> int:
    """Bytes that a result may take: the default for None, inf for no limit."""
    if memory is None:
        return default
    size = float(memory) if isinstance(memory, Real) and not isinstance(memory, bool) else nan
    if size > 0:
        return maxsize if size >= maxsize else int(size)
    raise InputError(f"memory is {told(memory)}; give the number of bytes, such as 2 * 2**30, or None")


def path_of(value: Any) -> Path:
    """A path from a string or a path."""
    if not isinstance(value, str | PathLike) or not isinstance(fspath(value), str) or "\0" in fspath(value):
        raise InputError(f"the path is {told(value)}; give a string or a pathlib.Path")
    return Path(value)


def names(value: Any, name: str) -> list[str]:
    """A name, or several, as a list."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(item, str) for item in found):
        raise InputError(f"{name} is {told(value)}; give a name or a list of names")
    return list(found)


def indices(value: Any, name: str, count: int) -> Tensor:
    """Whole numbers from -count to count - 1, at least one, flat: (K,) int64 on the CPU."""
    give = f"whole numbers from 0 to {count - 1}"
    try:
        found = torch.as_tensor(value, device="cpu").flatten()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is {told(value)}; give {give}") from None
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool:
        raise InputError(f"{name} is {told(value)}; give {give}")
    found = values(found, name, give).to(torch.long)
    if len(found) == 0 or int(found.min()) < -count or int(found.max()) >= count:
        raise InputError(f"{name} {str(found.tolist())[:80]} are not among the {count} outputs; give {give}")
    return found
