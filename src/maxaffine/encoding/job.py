"""The driver: begin a folder or go on with it, encode the shards that are missing, check the whole."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maxaffine import arguments
from maxaffine.code.files import header
from maxaffine.code.packing import bytes_of
from maxaffine.data import Failed, Stream, as_stream
from maxaffine.data.streams import digest
from maxaffine.distributed.executors import on_cluster
from maxaffine.encoding.plan import Plan, begin, shard_path, write_plan
from maxaffine.encoding.shards import DamagedError, Summary, arrow, read_shard, read_summary
from maxaffine.encoding.work import Job, Prepare, as_stored, encode_shard, torch_threads, whole_shard
from maxaffine.errors import FileFormatError, InputError
from maxaffine.spline import Spline, weights_of

BATCH = 256
SHARD_ROWS, SHARD_BYTES = 16384, 64 << 20  # of a shard, whichever is less
Track = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: rows encoded and shards, in this folder; shards that this run wrote.

    failed: rows that could not be read. complete: False while other ranks have shards to write.
    """

    folder: Path
    rows: int
    shards: int
    written: int
    bytes: int
    failed: tuple[Failed, ...]
    complete: bool


def encode(
    spline: Spline,
    data: Any,
    out: str | Path,
    *,
    prepare: Prepare | None = None,
    labels: str | Path | None = None,
    limit: int | None = None,
    batch: int | None = None,
    shard: int | None = None,
    threads: int | None = None,
    executor: str = "here",
    workers: int = 2,
    rank: int = 0,
    world_size: int = 1,
    options: Mapping[str, Any] | None = None,
    track: Track | None = None,
) -> Outcome:
    """Write the codes of all rows of a data set to a folder of Parquet files, some rows at a time.

    Killed at any moment, the same call goes on where it stopped, and the folder is in the end the same byte for byte.
    A row that cannot be read is left out and named in the outcome; the same call tries it again.

    data, labels, limit: as for `maxaffine.data.as_stream`. prepare: rows as stored (n, *row) -> inputs (n, *in).
    batch: rows at a time (256); shard: rows a file, a multiple of batch. threads: of torch (as many as
    it has; with Ray one).
    executor: "here" in this process, or "ray": on the connected cluster, or else a local one of so many workers.
    rank, world_size: this process takes every world_size-th shard; all processes write to one folder.
    options: kept in the manifest. track(iterable, text) -> iterable: shows progress.

    Raises InputError, NotPiecewiseAffineError, FileFormatError for data that cannot be read and for a folder that
    cannot be written or was begun with anything else, MissingExtraError.

    >>> import tempfile, maxaffine as ma
    >>> from maxaffine.encoding import encode, read_codes
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()), torch.zeros(1, 4))
    >>> x = torch.randn(1000, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(encode(spline, x, folder).rows)
    ...     print(bool((read_codes(folder).code == spline.code(x)).all()))
    1000
    True
    """
    arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    folder = arguments.path_of(out).absolute()
    given = {
        name: None if value is None else arguments.whole(value, name)
        for name, value in {"batch": batch, "shard": shard, "threads": threads}.items()
    }
    arguments.whole(workers, "workers")
    arguments.whole(rank, "rank", 0, arguments.whole(world_size, "world_size") - 1)
    if executor not in EXECUTORS:
        raise InputError(f"executor={executor!r}; there are {', '.join(EXECUTORS)}")
    if prepare is not None and not callable(prepare):
        raise InputError(f"prepare is {arguments.told(prepare)}; give a function of rows as stored (n, *row)")
    arrow()
    stream = as_stream(data, labels, limit)
    try:
        taken = prepare or as_stored
        usual = {"threads": given["threads"] or (1 if executor == "ray" else torch.get_num_threads())}
        plan = begin(folder, _plan(spline, stream, taken, given | usual, options), given)
        job = Job(spline, stream, taken, plan, folder)
        mine = range(rank, job.plan.shards, world_size)
        missing = _missing(job, mine)
        _run(job, missing, EXECUTORS[executor], workers, track)
        return _finished(job, mine, len(missing))
    finally:
        stream.close()


def _plan(
    spline: Spline, stream: Stream, prepare: Prepare, given: Mapping[str, int | None], options: Mapping[str, Any] | None
) -> Plan:
    """What the folder is to hold, where the caller leaves it to us."""
    signature = spline._signature
    if not len(signature):
        raise InputError("the network has no spline operator, so its codes say nothing; give one with relu, maxima ...")
    probe = Job(spline, stream, prepare, None, Path()).inputs(_probe(stream))  # type: ignore[arg-type]
    spline.code(probe[:1])
    batch = given["batch"] or min(BATCH, given["shard"] or BATCH)
    size = sum(bytes_of(units) for units in signature)
    rows = max(1, min(SHARD_ROWS, SHARD_BYTES // size) // batch) * batch
    return Plan(
        header(signature, weights_of(spline).digest()),
        digest([repr((node.op, node.args, node.kwargs)) for node in spline.captured.graph.nodes]),
        str(spline.dtype).removeprefix("torch."),
        spline.device.type,
        stream.identity(),
        digest([str(probe.shape), probe.cpu().numpy().tobytes()]),
        len(stream),
        batch,
        given["shard"] or rows,
        given["threads"] or 1,
        stream.source,
        stream.label_kind,
        stream.named,
        stream.classes,
        _kept(options),
    )


def _kept(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options as the manifest gives them back."""
    try:
        return dict(json.loads(json.dumps(dict(options or {}))))
    except (TypeError, ValueError):
        raise InputError(f"options is {arguments.told(options)}; give a mapping of what JSON can write") from None


def _probe(stream: Stream) -> np.ndarray:
    """Two rows on which any two ways to scale and order rows differ: 0, 1, 2 ... and its reverse."""
    size = int(np.prod(stream.row_shape))
    ramp = np.arange(size) % 251
    return np.stack([ramp, ramp[::-1]]).reshape(2, *stream.row_shape).astype(stream.dtype)


def _missing(job: Job, mine: Iterable[int]) -> list[int]:
    """Shards that are not there, are damaged (they are removed), or had rows that could not be read and changed.

    Raises FileFormatError when a file of a finished shard was changed.
    """
    missing = list[int]()
    for number in mine:
        path = shard_path(job.folder, number)
        if not path.is_file():
            missing.append(number)
            continue
        try:
            _, summary = read_shard(job.folder, job.plan, number)
        except DamagedError:
            path.unlink()
            missing.append(number)
            continue
        changed = summary.stamp != job.stream.stamp(*job.plan.range_of(number))
        if changed and not summary.failed:
            raise FileFormatError(f"{path} was made from files that changed since; delete it or take a new folder")
        if summary.failed:
            missing.append(number)
    return missing


def _run(job: Job, missing: Sequence[int], run: "Executor", workers: int, track: Track | None) -> None:
    """Encode the missing shards, a step of the progress for each batch."""
    if not missing:
        return
    steps = sum(-(-(last - first) // job.plan.batch) for first, last in map(job.plan.range_of, missing))
    running = run(job, missing, workers)
    try:
        for _ in range(steps) if track is None else track(range(steps), f"batches of {job.plan.batch}"):
            next(running, None)
        for _ in running:  # what is left after the last batch: its file
            pass
    finally:
        running.close()


def _here(job: Job, missing: Sequence[int], workers: int) -> Iterator[None]:  # noqa: ARG001  (one)
    """In this process, batch by batch."""
    with torch_threads(job.plan.threads):
        for number in missing:
            yield from encode_shard(job, number)


def _on_ray(job: Job, missing: Sequence[int], workers: int) -> Iterator[None]:
    """On a Ray cluster, a task a shard. The folder and the data must be the same on all nodes."""
    needs = {"num_cpus": job.plan.threads, "num_gpus": int(job.plan.device != "cpu")}
    for summary in on_cluster(whole_shard, job, [(number,) for number in missing], workers * job.plan.threads, needs):
        first, last = job.plan.range_of(summary.number)
        yield from (None for _ in range(first, last, job.plan.batch))


Executor = Callable[[Job, Sequence[int], int], Any]
EXECUTORS: dict[str, Executor] = {"here": _here, "ray": _on_ray}


def _finished(job: Job, mine: Sequence[int], written: int) -> Outcome:
    """What there is; the last manifest, once all shards of all ranks are there."""
    folder, plan = job.folder, job.plan
    there = [number for number in range(plan.shards) if shard_path(folder, number).is_file()]
    complete = len(there) == plan.shards
    found = [read_summary(folder, plan, number) for number in (there if complete else mine)]
    rows, failed = sum(summary.rows for summary in found), tuple(row for summary in found for row in summary.failed)
    if complete:
        for leftover in folder.glob(".*.tmp"):  # of runs that were killed
            with suppress(OSError):
                leftover.unlink()
        write_plan(folder, plan, _result(found, rows, failed))
    size = sum(shard_path(folder, summary.number).stat().st_size for summary in found)
    return Outcome(folder, rows, len(found), written, size, failed, complete)


def _result(found: Sequence[Summary], rows: int, failed: Sequence[Failed]) -> dict[str, Any]:
    shards = [{"rows": summary.rows, "checksum": summary.checksum} for summary in found]
    return {"rows": rows, "failed": [row._asdict() for row in failed], "shards": shards}
