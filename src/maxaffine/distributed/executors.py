"""Who does the tasks: threads of this process, processes of this machine, or the nodes of a Ray cluster."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

from maxaffine.distributed.job import Setup, writable
from maxaffine.distributed.library import ray
from maxaffine.distributed.parts import Summary
from maxaffine.distributed.work import never, work
from maxaffine.errors import MaxaffineError

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What is to be done: the tasks of a setup whose parts are missing in the folder; chunk and limit as for work."""

    setup: Setup
    folder: Path
    tasks: Sequence[int]
    chunk: int
    limit: int


def on_threads(order: Order, workers: int) -> Iterator[Summary]:
    """In this process: compiled code runs without the global lock."""
    if workers == 1:
        for task in order.tasks:
            yield work(order.setup, order.folder, task, order.chunk, order.limit)
        return
    halt = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from _finished(
                [
                    pool.submit(work, order.setup, order.folder, task, order.chunk, order.limit, halt.is_set)
                    for task in order.tasks
                ]
            )
        finally:
            halt.set()
            pool.shutdown(wait=True, cancel_futures=True)


def on_processes(order: Order, workers: int) -> Iterator[Summary]:
    """In processes of their own, which read the job from the folder and end with this one, however it ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, end_with_parent) as pool:
        try:
            arguments = (order.folder, order.setup.name, order.chunk, order.limit)
            yield from _finished([pool.submit(_work_from_folder, task, *arguments) for task in order.tasks])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(futures: list[Future[Summary]]) -> Iterator[Summary]:
    """Results as they come."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def end_with_parent() -> None:
    """In a worker process: end when the process that started it ends, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@lru_cache(maxsize=1)
def _setup(folder: Path, name: str) -> Setup:  # noqa: ARG001  (another job in the folder is read anew)
    return Setup.load(folder)


def _work_from_folder(task: int, folder: Path, name: str, chunk: int, limit: int) -> Summary:
    return work(_setup(folder, name), folder, task, chunk, limit)


def on_ray(order: Order, workers: int) -> Iterator[Summary]:
    """On a Ray cluster, see `on_cluster`. The folder must be the same on all nodes."""
    tasks = [(order.folder, task, order.chunk, order.limit) for task in order.tasks]
    yield from on_cluster(_work_on_node, order.setup, tasks, workers)


def on_cluster(
    do: Callable[..., T],
    shared: Any,
    tasks: Sequence[tuple[Any, ...]],
    workers: int,
    needs: Mapping[str, float] | None = None,
) -> Iterator[T]:
    """do(shared, *task) of each task, as they come, by the nodes of a Ray cluster.

    On the cluster that is connected, or else on a local one with that many CPUs, which is shut down at the end. What is
    shared is put into the object store once. needs: Ray's options of a task, such as num_cpus. A task whose worker dies
    is done again. Raises what a task raises, and MaxaffineError for one whose workers die again and again.
    """
    library = ray()
    started = not library.is_initialized()
    if started:
        library.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        remote = library.remote(do).options(**(needs or {}))
        reference = library.put(shared)
        yield from _results(library, [remote.remote(reference, *task) for task in tasks])
    finally:
        if started:
            library.shutdown()


def _results(library: Any, waiting: list[Any]) -> Iterator[Any]:
    try:
        while waiting:
            done, waiting = library.wait(waiting)
            yield library.get(done[0])
    except library.exceptions.RayTaskError as error:
        raise error.cause from None
    except library.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise MaxaffineError(f"the Ray cluster gave a task up: {reason}; what is finished is kept") from None
    finally:
        for task in waiting:
            library.cancel(task, force=False)


def _work_on_node(setup: Setup, folder: Path, task: int, chunk: int, limit: int) -> Summary:
    return work(writable(setup), folder, task, chunk, limit, never)


EXECUTORS: dict[str, Callable[[Order, int], Iterator[Summary]]] = {
    "threads": on_threads,
    "processes": on_processes,
    "ray": on_ray,
}
