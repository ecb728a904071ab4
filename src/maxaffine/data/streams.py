"""Data that is read some rows at a time, so that a set may be larger than the memory.

A stream knows how many rows there are and reads any range of them. A row that cannot be read is named, not skipped in
silence, and does not stop the others.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maxaffine.data.dataset import Dataset, first_line
from maxaffine.errors import FileFormatError, InputError

SAMPLE = 1 << 16  # bytes of a file's beginning and end that stand for it


class Failed(NamedTuple):
    """A row that cannot be read: its number, its name (of a file) and why."""

    number: int
    name: str
    reason: str


class Rows(NamedTuple):
    """Rows first .. last of a stream: those that can be read, and those that cannot.

    numbers (n,) of the n that can, values (n, *row) as stored, labels (n,) or None, names of their files or ().
    """

    numbers: NDArray[np.int64]
    values: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...]
    failed: tuple[Failed, ...]


@runtime_checkable
class Stream(Protocol):
    """Rows that can be read from any place. It pickles, so that other processes and machines can read it too.

    source: what to call it. row_shape, dtype: of one stored row. label_kind: "i" (classes), "f" (numbers) or "" (no
    labels). named: whether rows are files with names.
    """

    @property
    def source(self) -> str: ...  # noqa: D102  (said above)

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def row_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype: ...  # noqa: D102

    @property
    def label_kind(self) -> str: ...  # noqa: D102

    @property
    def named(self) -> bool: ...  # noqa: D102

    def __len__(self) -> int: ...

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        ...

    def identity(self) -> str:
        """Equal for equal data, as far as can be seen without reading all of it."""
        ...

    def stamp(self, first: int, last: int) -> str:
        """As identity, for rows whose files may be put right one by one; "" where there is nothing to see."""
        ...

    def close(self) -> None:
        """Close files; reading opens them again."""
        ...


class Sample(NamedTuple):
    """One row that was read: values (*row) and its label."""

    values: np.ndarray
    label: float | None


def gathered(
    numbers: Sequence[int],
    read: Callable[[int], Sample],
    name: Callable[[int], str],
    like: tuple[tuple[int, ...], np.dtype],
    label_kind: str,
    named: bool,
) -> Rows:
    """Rows that are read one by one; what is refused (a damaged file, another shape) is noted and left out."""
    good, samples, failed = list[int](), list[Sample](), list[Failed]()
    for number in numbers:
        try:
            samples.append(_checked(read(number), like, label_kind))
            good.append(number)
        except (FileFormatError, InputError) as error:
            failed.append(Failed(number, name(number), first_line(_without(name(number), shown(str(error))))))
    shape, dtype = like
    values = np.stack([s.values for s in samples]) if samples else np.empty((0, *shape), dtype)
    labels = np.array([s.label for s in samples], label_type(label_kind)) if label_kind else None
    return Rows(np.array(good, np.int64), values, labels, tuple(map(name, good)) if named else (), tuple(failed))


def shown(name: str) -> str:
    r"""A name that can be written anywhere: bytes of a file's name that are not UTF-8 as \x.. instead.

    >>> shown("café.png"), shown("caf\udce9.png")
    ('café.png', 'caf\\xe9.png')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def label_type(kind: str) -> type:
    """The numpy type of labels of a kind."""
    return np.float64 if kind == "f" else np.int64


def finite(rows: Rows, name: Callable[[int], str]) -> Rows:
    """Rows with NaN or infinite values are noted and left out."""
    if rows.values.dtype.kind != "f":
        return rows
    good = np.asarray(np.isfinite(rows.values.reshape(len(rows.values), -1)).all(axis=1))
    return only(rows, good, name, "holds NaN or infinite values")


def only(rows: Rows, good: NDArray[np.bool_], name: Callable[[int], str], why: str) -> Rows:
    """The good rows; why the others are left out is noted."""
    if good.all():
        return rows
    bad = tuple(Failed(int(n), name(int(n)), why) for n in rows.numbers[~good])
    labels = None if rows.labels is None else rows.labels[good]
    names = tuple(n for n, keep in zip(rows.names, good, strict=True) if keep) if rows.names else ()
    return Rows(rows.numbers[good], rows.values[good], labels, names, (*rows.failed, *bad))


def first_readable(count: int, read: Callable[[int], Sample], source: str) -> tuple[int, Sample]:
    """The first row that can be read: it says what rows are like. Raises FileFormatError when none can."""
    reason = ""
    for number in range(count):
        try:
            return number, read(number)
        except (FileFormatError, InputError) as error:
            reason = reason or first_line(error)
    raise FileFormatError(f"{source}: none of {count} rows can be read; the first: {reason}")


def first_row(stream: Stream) -> Dataset:
    """The first row of a stream that can be read, as a data set of its own. Raises FileFormatError."""
    for number in range(len(stream)):
        rows = stream.read(number, number + 1)
        if len(rows.values):
            return Dataset(rows.values, rows.labels, stream.classes, stream.source)
    raise FileFormatError(f"{stream.source}: none of {len(stream)} rows can be read")


def digest(parts: Iterable[str | bytes]) -> str:
    """32 hexadecimal digits of some words."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def sampled(path: Path) -> bytes:
    """What can be seen of a large file without reading all of it: its size, its beginning and its end."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(SAMPLE)
        file.seek(max(0, size - SAMPLE))
        return str(size).encode() + start + file.read(SAMPLE)


def _checked(sample: Sample, like: tuple[tuple[int, ...], np.dtype], label_kind: str) -> Sample:
    (shape, dtype), values = like, sample.values
    if values.shape != shape or values.dtype != dtype:
        raise InputError(f"{values.dtype} of shape {values.shape}; the other rows are {dtype} of shape {shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError("holds NaN or infinite values")
    if label_kind and sample.label is None:
        raise InputError("has no label, other rows have one")
    return sample


def _without(name: str, text: str) -> str:
    """What an error says, without repeating the name."""
    return text.split(f"{name}: ", 1)[-1]
