"""Pickles that may hold arrays, strings, numbers and plain containers, and can run nothing.

A pickle is a program: it names functions, which the reader imports and calls. CIFAR comes as pickles. Here the few
names that a pickled array needs are answered by objects of this module; every other name is refused before it is
imported. Not even numpy's own functions are called by the file.
"""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from maxaffine.data.dataset import BROKEN, first_line
from maxaffine.errors import FileFormatError

NUMBER = re.compile(r"[<>|=]?([biu][1248]|f[248])")
# What the unpickler raises on bytes that are cut off, or on a program that does not fit its own stack.
BAD_PICKLE = (*BROKEN, pickle.UnpicklingError, TypeError, AttributeError, IndexError, OverflowError, MemoryError)


class Kind:
    """A dtype of plain numbers as a pickle describes it: np.dtype("u1", ...) and then its byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or not NUMBER.fullmatch(name):
            raise ValueError(f"an array of dtype {name!r}, which is not of plain numbers")
        self.name, self.order = name.lstrip("<>|="), name[0] if name[0] in "<>|=" else "="

    def __setstate__(self, state: tuple) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]

    @property
    def dtype(self) -> np.dtype:
        """Return numpy's dtype."""
        return np.dtype(self.order.replace("|", "=") + self.name)


class Array:
    """An array in the making; ``values`` once its state is known."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_column, raw = state
        self.values = _array(raw, kind, shape, "F" if by_column else "C")


def _array(raw: object, kind: object, shape: object, order: object) -> np.ndarray:
    data = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 knew no bytes
    if not isinstance(kind, Kind) or not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array whose values are no plain numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an array without a shape")
    dtype = kind.dtype
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} in {len(data)} bytes")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
    return values.astype(dtype.newbyteorder("="))


# The objects below have no attributes, so that a file cannot change them for the next one.
class _Named:
    __slots__ = ()


class _Reconstruct(_Named):
    __slots__ = ()

    def __call__(self, *_: object) -> Array:
        return Array()


class _FromBuffer(_Named):
    __slots__ = ()

    def __call__(self, raw: object, kind: object, shape: object, order: object, *_: object) -> Array:
        made = Array()
        made.values = _array(raw, kind, shape, order)
        return made


class _MakeKind(_Named):
    __slots__ = ()

    def __call__(self, *given: object) -> Kind:
        return Kind(*given)


class _Encode(_Named):
    """Bytes as Python 3 writes them for Python 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        return text.encode({"latin1": "latin1", "latin-1": "latin1"}[encoding])


class _NoBytes(_Named):
    """The same of no bytes at all."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


ALLOWED: dict[tuple[str, str], object] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
    ("numpy", "ndarray"): _Named(),
    ("numpy", "dtype"): _MakeKind(),
    ("_codecs", "encode"): _Encode(),
    ("__builtin__", "bytes"): _NoBytes(),
}


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in ALLOWED and no other."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name.

        Raises:
            FileFormatError: it is not one that an array needs.
        """
        found = ALLOWED.get((module, name))
        if found is None:
            raise FileFormatError(
                f"asks to call {module}.{name}, which no data set needs: not loaded; fetch the file from its publisher"
            )
        return found


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and plain values; nothing in the file is executed.

    Raises:
        FileFormatError: the file is cut off, holds something else, or asks for anything that could run.
    """
    try:
        with path.open("rb") as file:
            found = plain(PlainUnpickler(file, encoding="latin1").load())
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except BAD_PICKLE as error:
        raise FileFormatError(f"{path}: not a readable pickle ({first_line(error)}); fetch the file again") from error
    return found


def plain(found: object) -> dict[str, Any]:
    """Return a dictionary with its arrays made numpy's."""
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dictionary")
    return {str(key): value.values if isinstance(value, Array) else value for key, value in found.items()}
