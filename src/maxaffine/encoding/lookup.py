"""A folder of codes as an index, and its rows by their ids, without holding all of it unpacked."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maxaffine.code import Code, concatenate
from maxaffine.encoding.reading import CodeFolder, Encoded, encoded_shard
from maxaffine.encoding.shards import read_shard
from maxaffine.errors import InputError
from maxaffine.search import CodeIndex
from maxaffine.types import Names

Track = Callable[[Iterable[int], str], Iterable[int]]


def index_codes(folder: CodeFolder, operators: Names | None = None, track: Track | None = None) -> CodeIndex:
    """The exact index of all rows of a folder, by their ids; it holds packed codes. Raises FileFormatError.

    >>> import tempfile, torch, maxaffine as ma
    >>> from maxaffine.encoding import encode, index_codes, open_codes
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> x = torch.randn(300, 4)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = encode(spline, x, place)
    ...     index = index_codes(open_codes(place))
    >>> index.search(spline.code(x[7:8]), k=1).distances.tolist()
    [[0.0]]
    """
    signature, _ = folder.plan.network(str(folder.folder))
    numbers: Iterable[int] = range(folder.plan.shards)
    index = None
    for number in numbers if track is None else track(numbers, "files of codes"):
        part = encoded_shard(folder, number)
        if index is None:
            index = CodeIndex.build(part.code, part.ids, operators=operators)
        else:
            index.add(part.code, part.ids)
    return index if index is not None else CodeIndex.build(Code(signature, (), 0), operators=operators)


def rows_of(folder: CodeFolder, ids: Iterable[int]) -> Encoded:
    """Some rows by their ids, in that order; a file is read once. Raises InputError for an id that is not there."""
    wanted = [int(one) for one in ids]  # of any size: those that are not there are refused below
    shards = [one // folder.plan.shard for one in wanted]
    parts = {number: encoded_shard(folder, number) for number in sorted(set(shards)) if _has(folder, number)}
    found, labels, names = list[Code](), list[float](), list[str]()
    for one, number in zip(wanted, shards, strict=True):
        part = parts.get(number)
        place = _place(part.ids, one) if part is not None else -1
        if part is None or place < 0:
            raise _missing(folder, one)
        found.append(part.code[place : place + 1])  # type: ignore[arg-type]
        labels += [] if part.labels is None else [part.labels[place]]
        names += [part.names[place]] if part.names else []
    kept = np.array(labels) if labels else None
    return Encoded(concatenate(found), np.array(wanted, np.int64), kept, tuple(names))


def described(folder: CodeFolder, ids: Iterable[int]) -> dict[int, tuple[Any, str]]:
    """Label (or None) and name (or "") of rows by id; no code is unpacked. Raises InputError for a missing one."""
    found: dict[int, tuple[Any, str]] = {}
    for number, group in groupby(sorted(set(ids)), lambda one: one // folder.plan.shard):
        shard = read_shard(folder.folder, folder.plan, number)[0] if _has(folder, number) else None
        for one in group:
            place = -1 if shard is None else _place(shard.ids, one)
            if shard is None or place < 0:
                raise _missing(folder, one)
            label = None if shard.labels is None else shard.labels[place].item()
            found[one] = label, shard.names[place] if shard.names else ""
    return found


def _has(folder: CodeFolder, number: int) -> bool:
    return 0 <= number < folder.plan.shards


def _place(ids: NDArray[np.int64], one: int) -> int:
    place = int(np.searchsorted(ids, one))
    return place if place < len(ids) and ids[place] == one else -1


def _missing(folder: CodeFolder, one: int) -> InputError:
    failed = [row for row in folder.result["failed"] if row["number"] == one]
    why = f"it could not be read ({failed[0]['reason']})" if failed else f"there are rows 0 to {folder.plan.rows - 1}"
    return InputError(f"row {one} is not in {folder.folder}: {why}")
