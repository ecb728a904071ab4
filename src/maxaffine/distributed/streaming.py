"""The driver: prepare the folder or continue it, hand out the tasks that are missing, check the whole."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from maxaffine.distributed.executors import EXECUTORS, Order
from maxaffine.distributed.job import Setup, fingerprint_of, prepared
from maxaffine.distributed.library import arrow
from maxaffine.distributed.manifest import check_folder, write_manifest, write_units
from maxaffine.distributed.parts import Summary, path_of
from maxaffine.distributed.reading import PartitionFiles, belonging, opened
from maxaffine.distributed.work import stopped
from maxaffine.errors import InputError
from maxaffine.geometry.cells import Doubtful, Track
from maxaffine.geometry.planes import ZEROS, reduced, too_close
from maxaffine.geometry.relunet import ReluNet
from maxaffine.slice import Plane
from maxaffine.spline import Spline

TASKS = 64  # at least; with many workers PER_WORKER for each
PER_WORKER = 4
CHUNK = 250_000
PLENTY = 1 << 62


def stream_partition(
    spline: Spline,
    plane: Plane,
    folder: str | Path,
    *,
    workers: int = 1,
    executor: str = "threads",
    limit: int | None = None,
    chunk: int = CHUNK,
    track: Track | None = None,
) -> PartitionFiles:
    """The exact partition of a plane, written to Parquet files in a folder while it is found.

    For partitions that do not fit in memory: a worker holds at most about `chunk` cells. Each task writes one file,
    which appears when it is whole. Interrupted or killed, the same call goes on where it stopped.

    workers: how many tasks run at a time. executor: "threads", "processes" (the calling script needs
    ``if __name__ == "__main__":``), or "ray": on the cluster that ray.init has connected, whose CPUs decide instead of
    `workers`, with the folder on a disk that all nodes share; without one, on a local Ray. limit: cells. track: shows
    progress, track(iterable, text) -> iterable, over the tasks.

    Raises InputError, NotPiecewiseAffineError, DegenerateSliceError, MemoryBudgetError after `limit` cells,
    FileFormatError for a folder that cannot be written or holds something else, MissingExtraError.

    >>> import tempfile, torch, maxaffine as ma
    >>> from maxaffine.distributed import stream_partition
    >>> spline = ma.Spline(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), torch.zeros(1, 2))
    >>> plane = ma.Plane.square(torch.zeros(2), torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = stream_partition(spline, plane, folder)
    ...     print(len(files), files.area, len(files.load()))
    4 4.0 4
    """
    if workers < 1 or chunk < 1 or (limit is not None and limit < 1):
        raise InputError(f"workers={workers}, chunk={chunk}, limit={limit}; each must be at least one")
    if executor not in EXECUTORS:
        raise InputError(f"executor={executor!r}; there are {', '.join(EXECUTORS)}")
    if not isinstance(plane, Plane):
        raise InputError(f"only the partition of a Plane is streamed, not that of a {type(plane).__name__}")
    arrow()
    folder, wanted = Path(folder).absolute(), max(TASKS, PER_WORKER * workers)
    setup = _setup(spline, plane, folder, wanted)
    while True:
        with suppress(Doubtful):
            _run(setup, folder, workers, executor, PLENTY if limit is None else limit, chunk, track)
            files = opened(folder, setup)
            if files.verify():
                break
        setup = _another(spline, setup, folder, wanted)
    write_manifest(folder, setup, complete=True, cells=files.cells)
    for leftover in folder.glob(".*.tmp"):  # of drivers that were killed
        with suppress(OSError):
            leftover.unlink()
    return files


def _setup(spline: Spline, plane: Plane, folder: Path, wanted: int) -> Setup:
    fingerprint = fingerprint_of(spline, plane)
    if check_folder(folder, fingerprint):
        return Setup.load(folder)
    net = reduced(spline, plane)
    return _begun(_prepared(spline, plane, net, ZEROS, wanted, fingerprint), folder)


def _begun(setup: Setup, folder: Path) -> Setup:
    setup.save(folder)
    write_units(folder, setup)
    write_manifest(folder, setup, complete=False)
    return setup


def _another(spline: Spline, setup: Setup, folder: Path, wanted: int) -> Setup:
    """The job with the next measure of zero: this one left sides over or doubts. What there is cannot be used."""
    left = ZEROS[ZEROS.index(setup.job.zero) + 1 :]
    for task in range(setup.count):
        path_of(folder, task).unlink(missing_ok=True)
    return _begun(_prepared(spline, setup.plane, setup.job.net, left, wanted, setup.fingerprint), folder)


def _prepared(
    spline: Spline, plane: Plane, net: ReluNet, zeros: Sequence[float], wanted: int, fingerprint: str
) -> Setup:
    for zero in zeros:
        with suppress(Doubtful):
            return prepared(spline, plane, net, zero, wanted, fingerprint)
    raise too_close()


def _run(setup: Setup, folder: Path, workers: int, executor: str, limit: int, chunk: int, track: Track | None) -> None:
    """Do the tasks whose parts are missing."""
    done = [task for task in range(setup.count) if path_of(folder, task).is_file()]
    missing = sorted(set(range(setup.count)) - set(done))
    order = Order(setup, folder, missing, chunk, limit)
    results = _results(setup, folder, done, EXECUTORS[executor](order, workers) if missing else iter(()))
    count, numbers = 0, range(setup.count)
    try:
        for _ in numbers if track is None else track(numbers, "parts of the partition"):
            count += next(results).pieces
            if count > limit:
                raise stopped(limit)
    finally:
        results.close()


def _results(setup: Setup, folder: Path, done: list[int], running: Iterator[Summary]) -> Generator[Summary]:
    """Summaries of the parts that are there, then of those that come."""
    yield from (belonging(setup, path_of(folder, task)) for task in done)
    yield from running
