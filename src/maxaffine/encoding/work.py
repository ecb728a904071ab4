"""The work on one shard: read rows, run the network, pack the codes, write the file."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from maxaffine.code import Signature
from maxaffine.code.files import Contents, columns
from maxaffine.code.packing import bytes_of
from maxaffine.data import Rows, Stream
from maxaffine.data.streams import label_type, only
from maxaffine.encoding.plan import Plan
from maxaffine.encoding.shards import Shard, Summary, write_shard
from maxaffine.errors import InputError
from maxaffine.spline import Spline
from maxaffine.types import flat

AHEAD = 2  # batches that are read while the network runs on one
T = TypeVar("T")
Prepare = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Job:
    """All that a worker must know. prepare: rows as stored (n, *row) -> inputs of the network (n, *in)."""

    spline: Spline
    stream: Stream
    prepare: Prepare
    plan: Plan
    folder: Path

    def inputs(self, values: np.ndarray) -> Tensor:
        """Rows as inputs, in the network's dtype and on its device. Raises InputError."""
        x = self.prepare(values)
        if not isinstance(x, Tensor) or tuple(x.shape) != (len(values), *self.spline.in_shape):
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            wanted = (len(values), *self.spline.in_shape)
            raise InputError(f"rows of shape {values.shape} become {found}, the network takes {wanted}; give prepare=")
        return x.to(self.spline.device, self.spline.dtype)


def as_stored(values: np.ndarray) -> Tensor:
    """Rows that are inputs as they are. Raises InputError for whole numbers, whose scale nobody said."""
    if values.dtype.kind != "f":
        say = "say how the network takes them, e.g. prepare=lambda rows: torch.from_numpy(rows) / 255"
        raise InputError(f"rows are whole numbers ({values.dtype}): {say}")
    return torch.from_numpy(np.ascontiguousarray(values))


def encode_shard(job: Job, number: int) -> Generator[None, None, Summary]:
    """Encode a shard; pauses after each batch. Raises InputError, FileFormatError."""
    plan, (signature, _) = job.plan, job.plan.network(str(job.folder))
    first, last = plan.range_of(number)
    stamp = job.stream.stamp(first, last)
    ranges = [(start, min(last, start + plan.batch)) for start in range(first, last, plan.batch)]
    rows, packed = list[Rows](), list[dict[str, Tensor]]()
    with closing_ahead([lambda a=a, b=b: _read(job, a, b) for a, b in ranges]) as batches:
        for found, x in batches:
            rows.append(found._replace(values=found.values[:0]))
            packed.append(_codes(job.spline, signature, x))
            yield
    failed = [row for found in rows for row in found.failed]
    return write_shard(job.folder, plan, number, _joined(plan, rows, packed), stamp, failed)


def _read(job: Job, first: int, last: int) -> tuple[Rows, Tensor | None]:
    rows = job.stream.read(first, last)
    if not len(rows.values):
        return rows, None
    x = job.inputs(rows.values)
    good = flat(x).isfinite().all(1).cpu().numpy()
    if good.all():
        return rows, x
    named = dict(zip(rows.numbers.tolist(), rows.names, strict=False))
    why = f"becomes NaN or infinite as {str(x.dtype).removeprefix('torch.')} input of the network"
    rows = only(rows, good, lambda number: named.get(number, f"{job.stream.source}[{number}]"), why)
    return rows, x[good] if good.any() else None


def _codes(spline: Spline, signature: Signature, x: Tensor | None) -> dict[str, Tensor]:
    if x is None:
        return {units.name: torch.zeros(0, bytes_of(units), dtype=torch.uint8) for units in signature}
    code = spline.code(x)
    return columns(Contents(code.signature, code.values, code.count, None))


def _joined(plan: Plan, rows: list[Rows], packed: list[dict[str, Tensor]]) -> Shard:
    labels = None
    if plan.label_kind:
        labels = np.concatenate([found.labels for found in rows if found.labels is not None])
        labels = labels.astype(label_type(plan.label_kind), copy=False)
    return Shard(
        np.concatenate([found.numbers for found in rows]),
        labels,
        tuple(name for found in rows for name in found.names),
        {name: torch.cat([batch[name] for batch in packed]) for name in packed[0]},
    )


@contextmanager
def closing_ahead(steps: Iterable[Callable[[], T]]) -> Iterator[Iterator[T]]:
    """What the steps give, in order; a thread takes the next steps while the caller is at work on one."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield _ahead(pool, steps)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool: ThreadPoolExecutor, steps: Iterable[Callable[[], T]]) -> Iterator[T]:
    waiting = deque[Future[T]]()
    for step in steps:
        waiting.append(pool.submit(step))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch works on that many threads; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def whole_shard(job: Job, number: int) -> Summary:
    """Encode a shard without pauses, with as many threads as the plan says; for workers elsewhere."""
    steps = encode_shard(job, number)
    with torch_threads(job.plan.threads):
        try:
            while True:
                next(steps)
        except StopIteration as finished:
            return finished.value
        finally:
            job.stream.close()
