"""Rows of one size in one file, .npy, .npz or IDX, also compressed; and rows that are in memory."""

import gzip
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from maxaffine.data.dataset import BROKEN, Dataset, first_line
from maxaffine.data.files import IDX_NAME, IDX_TYPES, KINDS, checked_labels
from maxaffine.data.streams import Rows, digest, finite, sampled
from maxaffine.errors import FileFormatError, InputError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Tape:
    """The bytes of a file, of what is compressed in it, or of a member of an archive; forwards it is a stream."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        self.path, self.member = path, member
        self._archive: zipfile.ZipFile | None = None
        self._file: IO[bytes] | None = None

    def __reduce__(self) -> tuple[type, tuple[Path, str | None]]:
        return Tape, (self.path, self.member)

    @property
    def file(self) -> IO[bytes]:
        """The open file."""
        found = self._open() if self._file is None else self._file
        self._file = found
        return found

    def _open(self) -> Any:
        if self.member is not None:
            self._archive = zipfile.ZipFile(self.path)
            return self._archive.open(self.member)
        return gzip.open(self.path) if self.path.suffix == ".gz" else open(self.path, "rb")

    def read(self, start: int, size: int) -> bytes:
        """Bytes start .. start + size. Raises FileFormatError when they are not there."""
        try:
            self.file.seek(start)
            found = self.file.read(size)
        except BROKEN as error:
            raise FileFormatError(f"{self.path}: {first_line(error)}; it may be cut off: fetch it again") from error
        if len(found) != size:
            raise FileFormatError(f"{self.path}: {size} bytes from {start} on are missing; fetch the file again")
        return found

    def close(self) -> None:
        """Close the file; reading opens it again."""
        for open_file in (self._file, self._archive):
            if open_file is not None:
                open_file.close()
        self._file = self._archive = None


@dataclass(frozen=True)
class Stored:
    """Rows of one size that lie one behind the other on a tape, from byte `start` on; see `Stream`."""

    tape: Tape
    start: int
    count: int
    row_shape: tuple[int, ...]
    stored: np.dtype
    labels: np.ndarray | None
    source: str

    classes = ()
    named = False

    def __len__(self) -> int:
        return self.count

    @property
    def dtype(self) -> np.dtype:
        """Of a row, in this machine's order of bytes."""
        return self.stored.newbyteorder("=")

    @property
    def label_kind(self) -> str:
        """Kind of the labels."""
        return "" if self.labels is None else self.labels.dtype.kind

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        size = self.stored.itemsize * math.prod(self.row_shape)
        raw = self.tape.read(self.start + first * size, (last - first) * size)
        values = np.frombuffer(raw, self.stored).reshape(last - first, *self.row_shape).astype(self.dtype)
        labels = None if self.labels is None else self.labels[first:last]
        rows = Rows(np.arange(first, last), values, labels, (), ())
        return finite(rows, lambda number: f"{self.source}[{number}]")

    def identity(self) -> str:
        """Of sizes, labels, and the ends of the file."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        return digest([repr((self.count, self.row_shape, self.stored.str)), labels, sampled(self.tape.path)])

    def stamp(self, first: int, last: int) -> str:  # noqa: ARG002  (the file is one)
        """The file is one."""
        return ""

    def close(self) -> None:
        """Close the file."""
        self.tape.close()


@dataclass(frozen=True)
class Held:
    """Rows in memory as a stream."""

    data: Dataset
    named = False

    def __len__(self) -> int:
        return len(self.data)

    @property
    def source(self) -> str:
        """What the data is called."""
        return self.data.source

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.data.classes

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self.data.row_shape

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        return self.data.inputs.dtype

    @property
    def label_kind(self) -> str:
        """Kind of the labels."""
        return "" if self.data.labels is None else self.data.labels.dtype.kind

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        labels = None if self.data.labels is None else self.data.labels[first:last]
        rows = Rows(np.arange(first, last), self.data.inputs[first:last], labels, (), ())
        return finite(rows, lambda number: f"{self.source}[{number}]")

    def identity(self) -> str:
        """Of all values and labels."""
        labels = b"" if self.data.labels is None else self.data.labels.tobytes()
        return digest([repr((self.data.inputs.shape, self.dtype.str)), labels, self.data.inputs.tobytes()])

    def stamp(self, first: int, last: int) -> str:  # noqa: ARG002  (all is in the identity)
        """All is in the identity."""
        return ""

    def close(self) -> None:
        """There is no file."""


def stored(path: Path, labels: np.ndarray | None, limit: int | None) -> Stored:
    """The rows of a .npy, .npz or IDX file. Raises FileFormatError, InputError."""
    readers = {".npy": _npy, ".npz": _npz}
    reader = _idx if IDX_NAME.search(path.name) else readers.get(path.suffix)
    if reader is None:
        raise FileFormatError(f"{path}: unknown kind of data; give {KINDS}")
    tape = Tape(path, "x.npy" if reader is _npz else None)
    try:
        shape, dtype, own = reader(tape)
        start = tape.file.tell()
    except (FileFormatError, InputError):
        raise
    except BROKEN as error:
        what = f"not a readable {path.suffix} file ({first_line(error)})"
        raise FileFormatError(f"{path}: {what}; it may be cut off: fetch or write it again") from error
    finally:
        tape.close()
    if dtype.kind not in "biuf" or len(shape) < 2 or math.prod(shape) == 0:
        raise InputError(f"{path}: rows of {dtype} {shape}; give at least one row of at least one real number")
    size = dtype.itemsize * math.prod(shape)
    if path.suffix == ".npy" and path.stat().st_size != start + size:
        raise FileFormatError(f"{path}: {size} bytes promised, {path.stat().st_size - start} there; write it again")
    found = labels if labels is not None else own
    checked = None if found is None else checked_labels(found, shape[0], path)[:limit]
    count = shape[0] if limit is None else min(limit, shape[0])
    return Stored(tape, start, count, shape[1:], dtype, checked, path.name)


def _header(tape: Tape) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(tape.file)
    if version not in HEADERS:
        raise FileFormatError(f"{tape.path}: arrays of format {version}; save it again with np.save")
    shape, fortran, dtype = HEADERS[version](tape.file)
    if fortran and len(shape) > 1:
        raise FileFormatError(f"{tape.path}: columns lie one behind the other; save np.ascontiguousarray(x)")
    return shape, dtype


def _npy(tape: Tape) -> tuple[tuple[int, ...], np.dtype, None]:
    return *_header(tape), None


def _npz(tape: Tape) -> tuple[tuple[int, ...], np.dtype, Any]:
    with np.load(tape.path, allow_pickle=False) as arrays:
        names = set(arrays.files)
        if "x" not in names:
            held = ", ".join(sorted(names)) or "nothing"
            advice = "save rows as x and labels as y: np.savez(path, x=..., y=...)"
            raise FileFormatError(f"{tape.path}: holds {held}; {advice}")
        labels = arrays["y"] if "y" in names else None
    return *_header(tape), labels


def _idx(tape: Tape) -> tuple[tuple[int, ...], np.dtype, None]:
    head = tape.file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise FileFormatError(f"{tape.path}: does not start with an IDX header")
    shape = tuple(int(n) for n in np.frombuffer(tape.read(4, 4 * head[3]), ">u4"))
    return shape, np.dtype(IDX_TYPES[head[2]]), None
