"""Who trains the runs of a grid: this process, processes of this machine, or the nodes of a Ray cluster.

Each executor is handed the next piece of a run and gives back, in any order, what came of the pieces in work.
"""

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from maxaffine.distributed.executors import end_with_parent
from maxaffine.distributed.library import ray
from maxaffine.experiment.runs import Run
from maxaffine.experiment.steps import Site, advance

Result = int | BaseException  # epochs that are done, or why there are no more


class DiedError(RuntimeError):
    """The process that trained a run was killed from outside."""


class Executor(Protocol):
    """Takes pieces of runs and gives back what came of them."""

    def submit(self, run: Run) -> None:
        """Begin to train a run for a few more epochs."""
        ...

    def collect(self) -> list[tuple[Run, Result]]:
        """Wait until a piece is finished; the finished ones. DiedError: try that run again."""
        ...

    def close(self) -> None:
        """End; what is in work is stopped, what is in files stays."""
        ...


class Here:
    """In this process, one piece after the other."""

    def __init__(self, site: Site) -> None:
        self._site, self._waiting = site, list[Run]()

    def submit(self, run: Run) -> None:
        """Keep a run until it is collected."""
        self._waiting.append(run)

    def collect(self) -> list[tuple[Run, Result]]:
        """Train the next piece."""
        run = self._waiting.pop(0)
        try:
            return [(run, advance(run, self._site))]
        except Exception as error:  # reported by the run's name; the others go on
            return [(run, error)]

    def close(self) -> None:
        """Nothing is in work."""


class Processes:
    """In processes of their own, which end with this one, however it ends."""

    def __init__(self, site: Site, workers: int) -> None:
        self._site, self._workers = site, workers
        self._runs: dict[Future[int], Run] = {}
        self._open()

    def _open(self) -> None:
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(self._workers, multiprocessing.get_context("spawn"), _begin)

    def submit(self, run: Run) -> None:
        """Hand a piece to the pool."""
        self._runs[self._pool.submit(advance, run, self._site)] = run

    def collect(self) -> list[tuple[Run, Result]]:
        """Pieces that are finished; after the death of a process all that were in work, and a new pool."""
        finished, _ = wait(self._runs, return_when=FIRST_COMPLETED)
        found = [(self._runs.pop(future), _result(future)) for future in finished]
        if any(isinstance(result, DiedError) for _, result in found):
            found += [(run, DiedError("its process was killed")) for run in self._runs.values()]
            self.close()
            self._runs.clear()
            self._open()
        return found

    def close(self) -> None:
        """End the processes: at once where one is at work, in order otherwise."""
        if self._runs:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[int]) -> Result:
    error = future.exception()
    return DiedError("its process was killed") if isinstance(error, BrokenProcessPool) else error or future.result()


def _begin() -> None:
    """Ctrl-C ends a worker without a word, and so does the end of its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


class Cluster:
    """On the Ray cluster that is connected, or else on a local one with that many CPUs.

    The folders of runs and data must be the same on all nodes.
    """

    def __init__(self, site: Site, workers: int) -> None:
        self._site, self._ray = site, ray()
        self._started = not self._ray.is_initialized()
        if self._started:
            self._ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        self._advance: Any = self._ray.remote(num_gpus=int(site.device != "cpu"), max_retries=0)(advance)
        self._runs: dict[Any, Run] = {}

    def submit(self, run: Run) -> None:
        """Hand a piece to the cluster."""
        self._runs[self._advance.remote(run, self._site)] = run

    def collect(self) -> list[tuple[Run, Result]]:
        """The next piece that is finished."""
        reference = self._ray.wait(list(self._runs))[0][0]
        run = self._runs.pop(reference)
        try:
            return [(run, self._ray.get(reference))]
        except self._ray.exceptions.RayTaskError as error:
            return [(run, error.cause)]
        except self._ray.exceptions.RayError as error:
            return [(run, DiedError(str(error).splitlines()[0]))]

    def close(self) -> None:
        """Give back what is not begun, and stop a cluster that was started here."""
        for reference in self._runs:
            self._ray.cancel(reference, force=False)
        if self._started:
            self._ray.shutdown()


def executor(kind: str, site: Site, workers: int) -> Executor:
    """The executor of a name; "processes" with one worker is this process itself."""
    makers: dict[str, Callable[[], Executor]] = {
        "here": lambda: Here(site),
        "processes": lambda: Processes(site, workers),
        "ray": lambda: Cluster(site, workers),
    }
    return makers["here" if kind == "processes" and workers == 1 else kind]()
