"""Pictures as a stream: a folder of files, tar archives in the layout of WebDataset, data sets of other libraries."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maxaffine.data.dataset import BROKEN, first_line
from maxaffine.data.files import IMAGE_ENDINGS, checked_labels, listed, read_image
from maxaffine.data.objects import names_of, sample_of
from maxaffine.data.streams import Rows, Sample, digest, first_readable, gathered, sampled, shown
from maxaffine.errors import FileFormatError, InputError

ARRAY, LABELS = ".npy", (".cls", ".json")


@dataclass(frozen=True)
class Pictures:
    """Images of a folder, one of each class in turn; see `Stream`. Names are paths inside the folder."""

    folder: Path
    files: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    row_shape: tuple[int, ...]
    dtype: np.dtype

    named = True

    def __len__(self) -> int:
        return len(self.files)

    @property
    def source(self) -> str:
        """Name of the folder."""
        return shown(self.folder.name)

    @property
    def label_kind(self) -> str:
        """Kind of the labels."""
        return "" if self.labels is None else self.labels.dtype.kind

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        like = (self.row_shape, self.dtype)
        return gathered(range(first, last), self._sample, self._name, like, self.label_kind, True)

    def _name(self, number: int) -> str:
        return shown(self.files[number])

    def _sample(self, number: int) -> Sample:
        values = read_image(self.folder / self.files[number])
        return Sample(values, None if self.labels is None else self.labels[number])

    def identity(self) -> str:
        """Of names and labels."""
        return digest([*map(shown, self.files), b"" if self.labels is None else self.labels.tobytes()])

    def stamp(self, first: int, last: int) -> str:
        """Of names and sizes."""
        paths = [self.folder / name for name in self.files[first:last]]
        return digest(f"{shown(str(path))} {path.stat().st_size if path.exists() else -1}" for path in paths)

    def close(self) -> None:
        """Files are closed as soon as they are read."""


def pictures(folder: Path, labels: np.ndarray | None, limit: int | None) -> Pictures:
    """The images of a folder as a stream. Raises FileFormatError, InputError."""
    paths, own, classes = listed(folder, limit if labels is None else None)
    found = own if labels is None else labels
    checked = None if found is None else checked_labels(found, len(paths), folder)[:limit]
    paths = paths[:limit]
    _, first = first_readable(len(paths), lambda k: Sample(read_image(paths[k]), None), str(folder))
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return Pictures(folder, names, checked, tuple(map(shown, classes)), first.values.shape, first.values.dtype)


# ---- tar archives -----------------------------------------------------------------------------------------


class Member(NamedTuple):
    """Where a file of an archive lies."""

    archive: int
    start: int
    size: int
    ending: str


class Entry(NamedTuple):
    """A sample of an archive: its key, where its image and its label are."""

    key: str
    image: Member | None
    label: Member | None


@dataclass(frozen=True)
class Archives:
    """Samples of tar archives: files of one name with other endings, an image (.png, .jpg, .npy) and its .cls or .json.

    See `Stream`. The archives are read through once for where things are; an entry takes some hundred bytes.
    """

    paths: tuple[Path, ...]
    entries: tuple[Entry, ...]
    row_shape: tuple[int, ...]
    dtype: np.dtype
    label_kind: str
    source: str

    classes = ()
    named = True

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        like = (self.row_shape, self.dtype)
        numbers, name = range(first, last), lambda number: shown(self.entries[number].key)
        return gathered(numbers, lambda n: sample(self.paths, self.entries[n]), name, like, self.label_kind, True)

    def identity(self) -> str:
        """Of all keys and the ends of the archives."""
        return digest([*(sampled(path) for path in self.paths), *(shown(entry.key) for entry in self.entries)])

    def stamp(self, first: int, last: int) -> str:  # noqa: ARG002  (the archives are whole)
        """All is in the identity."""
        return ""

    def close(self) -> None:
        """Files are closed as soon as they are read."""


def archives(paths: list[Path], source: str, limit: int | None) -> Archives:
    """The samples of tar archives, in their order, as a stream. Raises FileFormatError."""
    entries = tuple(entry for k, path in enumerate(paths) for entry in _entries(k, path))[:limit]
    if not entries:
        raise FileFormatError(f"{source}: no sample with an image ({', '.join(IMAGE_ENDINGS)} or {ARRAY}) in it")
    number, first = first_readable(len(entries), lambda k: sample(paths, entries[k]), source)
    kind = "" if entries[number].label is None else "i"
    return Archives(tuple(paths), entries, first.values.shape, first.values.dtype, kind, source)


def sample(paths: tuple[Path, ...] | list[Path], entry: Entry) -> Sample:
    """Read an entry. Raises FileFormatError, InputError."""
    if entry.image is None:
        raise FileFormatError(f"{entry.key}: no image ({', '.join(IMAGE_ENDINGS)} or {ARRAY}) of that name")
    raw = _bytes(paths, entry.image)
    if entry.image.ending == ARRAY:
        try:
            values = np.load(io.BytesIO(raw), allow_pickle=False)
        except BROKEN as error:
            raise FileFormatError(f"{entry.key}: not a readable array ({first_line(error)})") from error
    else:
        values = read_image(Path(entry.key), io.BytesIO(raw))
    return Sample(values, None if entry.label is None else _label(_bytes(paths, entry.label), entry))


def _label(raw: bytes, entry: Entry) -> int:
    try:
        content = json.loads(raw)
        return int(content if entry.label is not None and entry.label.ending == ".cls" else content["label"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{entry.key}: its label is no whole number ({first_line(error)})") from error


def _bytes(paths: tuple[Path, ...] | list[Path], member: Member) -> bytes:
    with open(paths[member.archive], "rb") as file:
        file.seek(member.start)
        raw = file.read(member.size)
    if len(raw) != member.size:
        raise FileFormatError(f"{paths[member.archive]}: cut off; fetch it again")
    return raw


def _entries(archive: int, path: Path) -> Iterator[Entry]:
    """Entries of one archive; files that belong together lie side by side."""
    key, image, label = "", None, None
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  (else it keeps all of them)
                if not info.isfile():
                    continue
                stem, dot, ending = _parted(info.name)
                member = Member(archive, info.offset_data, info.size, f"{dot}{ending}".lower())
                if stem != key:
                    if image or label:
                        yield Entry(key, image, label)
                    key, image, label = stem, None, None
                if member.ending in (*IMAGE_ENDINGS, ARRAY):
                    image = member
                elif member.ending in LABELS and (label is None or member.ending == LABELS[0]):
                    label = member
    except (tarfile.TarError, OSError) as error:
        advice = "give an archive that is not compressed and not cut off"
        raise FileFormatError(f"{path}: not a readable .tar ({first_line(error)}); {advice}") from error
    if image or label:
        yield Entry(key, image, label)


def _parted(name: str) -> tuple[str, str, str]:
    """The key of a file and its ending: from the first dot of its own name on, as WebDataset has it."""
    folder, slash, own = name.rpartition("/")
    stem, dot, ending = own.partition(".")
    return f"{folder}{slash}{stem}", dot, ending


# ---- data sets of other libraries -------------------------------------------------------------------------


@dataclass(frozen=True)
class Items:
    """A map-style data set of another library as a stream, see `as_dataset` and `Stream`."""

    data: Any
    count: int
    kind: str

    named = False
    label_kind = "i"

    def __len__(self) -> int:
        return self.count

    @property
    def source(self) -> str:
        """Its type."""
        return self.kind

    @cached_property
    def _first(self) -> tuple[int, Sample]:
        return first_readable(self.count, self._sample, self.kind)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of the first row that can be read."""
        return self._first[1].values.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the first row that can be read."""
        return self._first[1].values.dtype

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, if it knows them."""
        return names_of(self.data, sample_of(self.data, self._first[0], self.kind)[2])

    def _sample(self, number: int) -> Sample:
        return Sample(*sample_of(self.data, number, self.kind)[:2])

    def read(self, first: int, last: int) -> Rows:
        """Rows first .. last - 1."""
        like, name = (self.row_shape, self.dtype), lambda number: f"{self.kind}[{number}]"
        return gathered(range(first, last), self._sample, name, like, "i", False)

    def identity(self) -> str:
        """Of its length and its first, middle and last rows."""
        found = [self.read(n, n + 1) for n in sorted({0, self.count // 2, self.count - 1})]
        return digest([str(self.count), *(rows.values.tobytes() + repr(rows.labels).encode() for rows in found)])

    def stamp(self, first: int, last: int) -> str:  # noqa: ARG002  (it has no files that we know of)
        """It has no files that we know of."""
        return ""

    def close(self) -> None:
        """It has no files that we know of."""


def items(data: Any, limit: int | None) -> Items:
    """A map-style data set as a stream. Raises InputError."""
    kind = type(data).__name__
    try:
        count = len(data)
    except TypeError as error:
        raise InputError(f"{kind} has no len(): give a map-style data set, not a stream of rows") from error
    if count == 0:
        raise InputError(f"{kind} is empty: give at least one row")
    return Items(data, count if limit is None else min(limit, count), kind)
