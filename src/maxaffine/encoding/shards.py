"""A shard: some rows' ids, labels, names and packed codes as a Parquet file that knows when it is damaged."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maxaffine.code.files import arrow_column, from_arrow
from maxaffine.code.packing import bytes_of
from maxaffine.data import Failed
from maxaffine.data.streams import label_type
from maxaffine.distributed.job import fresh
from maxaffine.encoding.plan import Plan, shard_path
from maxaffine.errors import FileFormatError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"maxaffine-shard"
OPTIONS = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}


class DamagedError(FileFormatError):
    """A shard is not as it was written."""


@dataclass(frozen=True)
class Shard:
    """Rows of a shard: ids (n,), labels (n,) or None, names or (), packed[operator] (n, bytes)."""

    ids: NDArray[np.int64]
    labels: np.ndarray | None
    names: tuple[str, ...]
    packed: Mapping[str, Tensor]

    def checksum(self) -> str:
        """32 hexadecimal digits of all of it."""
        state = hashlib.blake2b(digest_size=16)
        for array in (self.ids, np.empty(0) if self.labels is None else self.labels):
            state.update(np.ascontiguousarray(array).view(np.uint8).data)
        state.update(json.dumps(self.names).encode())
        for column in self.packed.values():
            state.update(np.ascontiguousarray(column.numpy()).data)
        return state.hexdigest()


@dataclass(frozen=True)
class Summary:
    """What the metadata of a shard say. job: fingerprint of the plan. stamp: of the rows it was made from."""

    job: str
    number: int
    rows: int
    checksum: str
    stamp: str
    failed: tuple[Failed, ...]


def write_shard(folder: Path, plan: Plan, number: int, shard: Shard, stamp: str, failed: Sequence[Failed]) -> Summary:
    """Write a shard completely or not at all. Raises FileFormatError."""
    pa, parquet = arrow()
    signature, _ = plan.network(str(folder))
    found = Summary(plan.fingerprint(), number, len(shard.ids), shard.checksum(), stamp, tuple(failed))
    count = len(shard.ids)
    labels = pa.nulls(count, pa.int64()) if shard.labels is None else pa.array(shard.labels)
    columns = [("id", pa.array(shard.ids)), ("label", labels)]
    columns += [("name", pa.array(shard.names, pa.string()))] if plan.named else []
    columns += [(units.name, arrow_column(shard.packed[units.name])) for units in signature]
    table = pa.Table.from_arrays([column for _, column in columns], names=[name for name, _ in columns])
    about = {KEY: json.dumps(found.__dict__).encode(), b"maxaffine-encoded": plan.codes.encode()}
    with (
        fresh(shard_path(folder, number)) as file,
        parquet.ParquetWriter(file, table.schema.with_metadata(about), **OPTIONS) as writer,
    ):
        writer.write_table(table.replace_schema_metadata(about), row_group_size=max(1, count))
    return found


def read_summary(folder: Path, plan: Plan, number: int) -> Summary:
    """What a shard says of itself. Raises DamagedError, FileFormatError when it belongs to another job."""
    path = shard_path(folder, number)
    with _opened(path) as file:
        return _summary(file.schema_arrow.metadata, plan, number, path)


def read_shard(folder: Path, plan: Plan, number: int) -> tuple[Shard, Summary]:
    """A shard, read and compared with its checksum. Raises as read_summary."""
    path, (pa, _) = shard_path(folder, number), arrow()
    with _opened(path) as file:
        summary = _summary(file.schema_arrow.metadata, plan, number, path)
        try:
            shard = _shard(file.read(use_threads=False), plan, str(path))
        except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, AttributeError) as error:
            raise damaged(path, str(error)) from None
    if len(shard.ids) != summary.rows or shard.checksum() != summary.checksum:
        raise damaged(path, "its checksum is another")
    return shard, summary


def damaged(path: Path, reason: str) -> DamagedError:
    """A shard that must be encoded again."""
    line = reason.splitlines()[0] if reason else "it cannot be read"
    return DamagedError(f"{path} is damaged ({line}); give the same encode command again, it writes this shard anew")


def arrow() -> tuple[Any, Any]:
    """Pyarrow and pyarrow.parquet. Raises MissingExtraError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError('folders of codes need pyarrow: pip install "maxaffine[search]"') from None
    return pyarrow, parquet


def _opened(path: Path) -> Any:
    pa, parquet = arrow()
    if not path.is_file():
        raise FileFormatError(f"{path} is missing; give the same encode command again, it writes this shard")
    try:
        return parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, str(error)) from None


def _summary(metadata: Mapping[bytes, bytes] | None, plan: Plan, number: int, path: Path) -> Summary:
    try:
        content = json.loads((metadata or {})[KEY])
        found = Summary(**{**content, "failed": tuple(Failed(*row) for row in content["failed"])})
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"no summary: {error}") from None
    if (found.job, found.number) != (plan.fingerprint(), number):
        raise FileFormatError(f"{path} belongs to another job; delete it or take a new folder")
    return found


def _shard(table: "pa.Table", plan: Plan, path: str) -> Shard:
    signature, _ = plan.network(path)
    first = 3 if plan.named else 2
    ids = table.column(0).to_numpy()
    labels = table.column(1).to_numpy().astype(label_type(plan.label_kind)) if plan.label_kind else None
    names = tuple(table.column(2).to_pylist()) if plan.named else ()
    packed = {}
    for place, units in enumerate(signature):
        empty = torch.zeros(0, bytes_of(units), dtype=torch.uint8)
        packed[units.name] = from_arrow(table.column(first + place)) if len(ids) else empty
    return Shard(ids, labels, names, packed)
