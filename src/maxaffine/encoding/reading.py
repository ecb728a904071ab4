"""A folder of codes, read: a shard at a time, or all of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maxaffine import arguments
from maxaffine.code import Code, Weights, concatenate
from maxaffine.code.files import from_columns
from maxaffine.encoding.plan import Plan, read_plan
from maxaffine.encoding.shards import read_shard
from maxaffine.errors import FileFormatError, MemoryBudgetError

MEMORY = 2 << 30


@dataclass(frozen=True)
class Encoded:
    """Codes of rows of a data set; ids (n,), the rows' numbers in it; labels (n,) or None; names of files or ()."""

    code: Code
    ids: NDArray[np.int64]
    labels: np.ndarray | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class CodeFolder:
    """What the manifest of a finished folder says. result: rows, failed rows, shards."""

    folder: Path
    plan: Plan
    result: dict[str, Any]


def open_codes(folder: str | Path) -> CodeFolder:
    """The manifest of a finished folder of codes. Raises FileFormatError."""
    path = arguments.path_of(folder)
    plan, content = read_plan(path)
    if not content["complete"]:
        raise FileFormatError(f"{path} is not finished; give the same encode command again, it goes on from there")
    return CodeFolder(path, plan, content)


def iterate_codes(folder: str | Path) -> Iterator[Encoded]:
    """The codes of a folder, a shard at a time, each compared with its checksum. Raises FileFormatError.

    For folders that do not fit in memory: a shard holds 16,384 rows or 64 MiB of packed codes, if not told otherwise.
    """
    found = open_codes(folder)
    return (encoded_shard(found, number) for number in range(found.plan.shards))


def read_codes(folder: str | Path, *, memory: int | None = None) -> Encoded:
    """All codes of a folder that `encode` wrote. Raises FileFormatError, MemoryBudgetError.

    memory: bytes that they may take (2 GiB): a unit takes a byte, four where it has more than 256 pieces.
    """
    found, budget = open_codes(folder), arguments.budget(memory, MEMORY)
    signature, _ = found.plan.network(str(folder))
    a_row = sum(int(np.prod(units.shape)) * (1 if units.pieces <= 256 else 4) for units in signature)
    needed = a_row * found.result["rows"]
    if needed > budget:
        raise MemoryBudgetError(
            f"the codes of {found.result['rows']} rows would take {needed / 1e9:.3g} GB in memory; read them with "
            "iterate_codes(folder), or allow more with memory="
        )
    parts = list(iterate_codes(folder))
    labels = None if parts[0].labels is None else np.concatenate([p.labels for p in parts if p.labels is not None])
    names = tuple(name for part in parts for name in part.names)
    return Encoded(concatenate([p.code for p in parts]), np.concatenate([p.ids for p in parts]), labels, names)


def encoded_shard(found: CodeFolder, number: int) -> Encoded:
    """The codes of one shard, compared with its checksum. Raises FileFormatError."""
    shard, _ = read_shard(found.folder, found.plan, number)
    signature, weights = found.plan.network(str(found.folder))
    contents = from_columns(signature, weights, shard.packed, len(shard.ids), f"shard {number} of {found.folder}")
    made_by = None if weights is None else Weights((), weights)
    code = Code(signature, contents.values, contents.count, made_by)
    return Encoded(code, shard.ids.copy(), shard.labels, shard.names)
