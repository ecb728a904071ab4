"""All runs of a grid: what is missing in a folder is trained, what is there is taken as it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from maxaffine.errors import FileFormatError, InputError
from maxaffine.experiment.executors import DiedError, Result, executor
from maxaffine.experiment.rows import check, rows_of
from maxaffine.experiment.runs import Run, distinct
from maxaffine.experiment.steps import Site, done
from maxaffine.experiment.training import trainee

TRIES = 2  # for a run whose process was killed

Track = Callable[[Iterable[None], str], Iterable[None]]


@dataclass
class Outcome:
    """What became of a grid: failed has the reason of each run that failed, by the run's name."""

    runs: int
    failed: dict[str, str] = field(default_factory=dict)


def train_all(
    runs: Sequence[Run], site: Site, *, workers: int = 1, kind: str = "processes", track: Track | None = None
) -> Outcome:
    """Train the runs of a grid in the folder of a site, each until its last epoch; runs with one key are trained once.

    kind: "processes" (with one worker: in this process) or "ray". track: is handed an iterable with one step for each
    epoch, and a description. The results do not depend on any of these. A run that fails is reported and the others
    go on; called again, the grid goes on where it was.

    Raises:
        InputError: settings and data do not fit each other, or an unknown kind.
        FileFormatError: data or a run's file cannot be read.
    """
    if kind not in ("processes", "ray") or workers < 1:
        raise InputError(f"kind = {kind!r}, workers = {workers}: give processes or ray, and at least 1")
    _check(runs, site)
    missing = {run: run.epochs - done(run, site) for run in distinct(runs)}
    work = {run: epochs for run, epochs in missing.items() if epochs > 0}
    outcome = Outcome(len(missing))
    steps = _Steps(sum(work.values()), _work(list(work), work, site, workers, kind, outcome))
    for _ in steps if track is None else track(steps, "training"):
        pass
    return outcome


def _check(runs: Sequence[Run], site: Site) -> None:
    """Everything that can be refused before the first epoch: data, batches, networks, the folder."""
    try:
        site.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(f"cannot write to {site.folder}: {error.strerror}") from None
    for run in {run.settings: run for run in runs}.values():
        rows = rows_of(run.settings.data, site.root)
        check(run.settings, rows)
        trainee(run, rows)


@dataclass(frozen=True)
class _Steps:
    """An iterable that knows its length, for a progress bar."""

    count: int
    steps: Iterator[None]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[None]:
        return self.steps


def _work(
    runs: list[Run], missing: dict[Run, int], site: Site, workers: int, kind: str, outcome: Outcome
) -> Iterator[None]:
    """One step for each epoch, as they are done. A run stays in work until it is finished, then the next begins."""
    if not runs:
        return
    queue, tries = runs[::-1], dict.fromkeys(runs, 0)
    before = {run: run.epochs - missing[run] for run in runs}
    with closing(executor(kind, site, workers)) as crew:
        active = [queue.pop() for _ in range(min(workers, len(queue)))]
        for run in active:
            crew.submit(run)
        while active:
            for run, result in crew.collect():
                again = _again(run, result, tries, outcome)
                if isinstance(result, int):
                    yield from [None] * (result - before[run])
                    before[run] = result
                if again:
                    crew.submit(run)
                    continue
                active.remove(run)
                if queue:
                    active.append(queue.pop())
                    crew.submit(active[-1])


def _again(run: Run, result: Result, tries: dict[Run, int], outcome: Outcome) -> bool:
    """Whether a run has more to do; one that failed is noted."""
    if isinstance(result, int):
        return result < run.epochs
    tries[run] += 1
    if isinstance(result, DiedError) and tries[run] < TRIES:
        return True
    reason = " ".join(str(result).split()) or type(result).__name__
    outcome.failed[run.name] = (
        reason if isinstance(result, (InputError, FileFormatError)) else f"{type(result).__name__}: {reason}"
    )
    return False
