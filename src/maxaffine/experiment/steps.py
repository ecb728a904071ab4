"""A run in its file: some epochs at a time, each kept as soon as it is done.

A file appears under its name when it is whole, or not at all, so that a run may be killed at any moment.
"""

import io
import time
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from maxaffine.distributed.job import fresh
from maxaffine.errors import FileFormatError
from maxaffine.experiment.measures import Record, record
from maxaffine.experiment.rows import Rows, rows_of
from maxaffine.experiment.runs import FORMAT, Run
from maxaffine.experiment.template_measures import Snapshot, snapshot
from maxaffine.experiment.training import Trainee, repeatable, train_epoch, trainee
from maxaffine.types import __version__

SECONDS = 20.0  # for which a worker goes on before it says how far it is


@dataclass(frozen=True)
class Site:
    """Where runs are trained: the folder of their files, the folder of the data, cpu or cuda."""

    folder: Path
    root: Path | None = None
    device: str = "cpu"

    def file(self, run: Run) -> Path:
        """The file of a run."""
        return self.folder / f"{run.key}.pt"


@dataclass
class Progress:
    """How far a run is: a record for each epoch (the first is epoch 0, before training), and what is kept beside.

    correct: (k, N) which test rows were right in the last k epochs. snapshots: templates, by epoch.
    """

    epochs: list[Record]
    correct: list[Tensor]
    snapshots: dict[int, Snapshot]

    @property
    def done(self) -> int:
        """Epochs that are trained."""
        return len(self.epochs) - 1


def advance(run: Run, site: Site, seconds: float = SECONDS) -> int:
    """Train a run for at least one more epoch, or until the seconds are over; how many epochs are done.

    Raises InputError, FileFormatError.
    """
    start = time.monotonic()
    with repeatable(site.device):
        learner, progress = _resumed(run, site)
        while progress.done < run.epochs:
            epoch = progress.done + 1
            _note(learner, progress, epoch, train_epoch(learner, epoch))
            _save(learner, progress, site)
            if time.monotonic() - start >= seconds:
                break
    return progress.done


def _resumed(run: Run, site: Site) -> tuple[Trainee, Progress]:
    """A run as its file has it, or at its start."""
    rows = rows_of(run.settings.data, site.root, site.device)
    learner, progress, path = trainee(run, rows), Progress([], [], {}), site.file(run)
    if not path.exists():
        _note(learner, progress, 0, float("nan"))
        return learner, progress
    content = read(path)
    for what, here in _origin(rows).items():
        begun = content.get(what, "cpu")  # early files do not say the device
        if begun != here:
            names = {"digest": "other data", "torch": f"torch {begun}", "version": f"maxaffine {begun}"}
            other = names.get(what, f"device {begun}, this one is {here}")
            raise FileFormatError(f"{path} was begun with {other}; it cannot go on to the same bits: remove it")
    learner.model.load_state_dict(content["model"])
    if content["optimiser"] is not None:
        learner.optimiser.load_state_dict(content["optimiser"])
    return learner, Progress(content["epochs"], list(content["correct"]), content["snapshots"])


def _origin(rows: Rows) -> dict[str, str]:
    """What a run's bits depend on beside its settings: the device is cpu or the model of the GPU."""
    where = rows.train.device
    device = "cpu" if where.type == "cpu" else torch.cuda.get_device_name(where)
    return {"digest": rows.digest, "torch": str(torch.__version__), "version": __version__, "device": device}


def _note(learner: Trainee, progress: Progress, epoch: int, loss: float) -> None:
    """Add what is measured after an epoch."""
    measure, last = learner.run.settings.measure, epoch == learner.run.epochs
    numbers, correct = record(learner, epoch, loss)
    if measure.templates == "epochs" or (measure.templates == "end" and last):
        more, kept = snapshot(learner, whole=last or epoch == 0)
        numbers |= more
        if kept is not None:
            progress.snapshots[epoch] = kept
    progress.epochs.append(numbers)
    progress.correct[:] = [*progress.correct, correct][-measure.last :] if epoch else []


def _save(learner: Trainee, progress: Progress, site: Site) -> None:
    finished, W = progress.done == learner.run.epochs, learner.head.weight.detach().double()
    content = {
        "format": FORMAT,
        **_origin(learner.rows),
        "epochs": progress.epochs,
        "correct": torch.stack(progress.correct),
        "snapshots": progress.snapshots,
        "gram": (W @ W.T).cpu(),
        "model": learner.model.state_dict(),
        "optimiser": None if finished else learner.optimiser.state_dict(),
    }
    whole = io.BytesIO()
    torch.save(content, whole)
    with fresh(site.file(learner.run)) as file:
        file.write(whole.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """The content of a run's file; nothing in it can execute. Raises FileFormatError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["format"]
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError, UnpicklingError) as error:
        raise FileFormatError(f"{path}: not a readable run ({type(error).__name__}); remove it") from None
    if found != FORMAT:
        raise FileFormatError(f"{path} has format {found}, this version reads {FORMAT}; update maxaffine")
    return content


def done(run: Run, site: Site) -> int:
    """Epochs of a run that its file has."""
    path = site.file(run)
    return len(read(path)["epochs"]) - 1 if path.exists() else 0
