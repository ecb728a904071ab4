"""One run, an epoch at a time: it can be stopped after any epoch and goes on to the same bits.

All random numbers of an epoch come from generators seeded by (seed, epoch, purpose), so that nothing but the weights
and the optimiser's moments is carried from one epoch to the next.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.architectures import ARCHITECTURES
from maxaffine.data import Balanced
from maxaffine.errors import InputError
from maxaffine.experiment.rows import Rows, augmented, permuted
from maxaffine.experiment.runs import Run
from maxaffine.experiment.specification import Model, Training
from maxaffine.experiment.uncorrected import UncorrectedAdam
from maxaffine.penalties import Layer, Penalty, last_layer
from maxaffine.spline import Spline

WEIGHTS, BATCHES, AUGMENTATION, LABELS, ROWS = range(5)  # purposes of random numbers
STEPS, FALL = (60, 120, 160), 5.0  # the schedule "steps"


def generator(seed: int, epoch: int, purpose: int) -> torch.Generator:
    """Random numbers for one purpose in one epoch, on the CPU whatever the device."""
    return torch.Generator().manual_seed(number(seed, epoch, purpose))


def number(seed: int, epoch: int, purpose: int) -> int:
    """A seed for one purpose in one epoch: 32 bits, mixed well."""
    return int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1)[0])


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """Inside, torch works on one thread and gives the same bits each time; its settings are put back afterwards.

    On a GPU cuDNN is asked for algorithms that repeat, and one stream is used, on which cuBLAS repeats. Its
    convolutions keep all 24 bits of float32: TF32, torch's default, keeps 11, and A[x] x + b would differ from the
    network in the fourth digit.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(device == "cpu")
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's own generator on the CPU starts at a seed; it is put back afterwards.

    Those of GPUs are left alone, nothing here draws from them: asking for their state would occupy every GPU of the
    machine in every process.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Trainee:
    """A run's network with what trains it.

    labels: those it is trained on, which may be permuted. spline: the network as it computes in eval mode, with its
    own weights; head: its last layer. penalty: of a batch, gamma included; draws: the random numbers of the penalty,
    seeded anew for each epoch.
    """

    run: Run
    rows: Rows
    labels: Tensor
    model: nn.Module
    optimiser: torch.optim.Optimizer
    spline: Spline
    head: Layer
    penalty: Penalty
    draws: torch.Generator


def trainee(run: Run, rows: Rows) -> Trainee:
    """The network of a run before its first epoch, on the device of the rows, in eval mode. Raises InputError."""
    with seeded(number(run.seed, 0, WEIGHTS)):
        model = network(run.settings.model, rows).to(rows.train.device).eval()
    mixed = run.settings.data.random_labels
    labels = permuted(rows.train_labels, generator(run.seed, 0, LABELS)) if mixed else rows.train_labels
    kind = torch.optim.Adam if run.settings.training.optimiser == "adam" else UncorrectedAdam
    spline, given, draws = Spline(model, rows.train[:2]), run.settings.penalty, torch.Generator()
    penalty = Penalty(spline, run.gamma, on=given.on, kind=given.kind, share=given.share, generator=draws)
    optimiser = kind(model.parameters(), lr=run.rate)
    return Trainee(run, rows, labels, model, optimiser, spline, last_layer(spline), penalty, draws)


def network(model: Model, rows: Rows) -> nn.Module:
    """Build the network that a specification names for these rows. Raises InputError."""
    if model.name not in ARCHITECTURES:
        raise InputError(f"model.name = {model.name!r}: known are {', '.join(ARCHITECTURES)}")
    builder = ARCHITECTURES[model.name]
    _, channels, side, width = rows.train.shape
    options = model.model_dump(exclude={"name", "momentum"}, exclude_none=True)
    place: dict[str, Any] = {
        "classes": rows.classes,
        "channels": channels,
        "side": side,
        "inputs": channels * side * width,
    }
    known = signature(builder).parameters
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        taken = ", ".join(name for name in known if name in Model.model_fields)
        raise InputError(f"model.{unknown[0]}: {model.name} has no such option; it has {taken}")
    found = builder(**options | {name: value for name, value in place.items() if name in known})
    for module in found.modules():
        if model.momentum is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = model.momentum
    return found


def train_epoch(trainee: Trainee, epoch: int) -> float:
    """Train for the epoch with this number (from 1); the mean of the loss, penalty included.

    Raises InputError when the loss is no longer a finite number.
    """
    run, rows, optimiser = trainee.run, trainee.rows, trainee.optimiser
    training, device = run.settings.training, rows.train.device
    optimiser.param_groups[0]["lr"] = run.rate * factor(training.schedule, epoch)
    trainee.draws.manual_seed(number(run.seed, epoch, ROWS))
    moves = generator(run.seed, epoch, AUGMENTATION)
    total, steps = torch.zeros((), device=device), 0
    with seeded(number(run.seed, epoch, WEIGHTS)):
        trainee.model.train()
        for batch in batches(training, trainee.labels, run.seed, epoch):
            x, y = rows.train[batch], trainee.labels[batch]
            if training.augmentation:
                x = augmented(x, moves)
            loss = F.cross_entropy(trainee.model(x), y) + trainee.penalty(x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, steps = total + loss.detach(), steps + 1
        trainee.model.eval()
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise InputError(f"the loss is {mean} in epoch {epoch}; give a lower gamma or learning rate")
    return mean


def factor(schedule: str, epoch: int) -> float:
    """What the learning rate is multiplied with in an epoch.

    >>> factor("constant", 100), factor("root", 4), factor("steps", 60), factor("steps", 61)
    (1.0, 0.5, 1.0, 0.2)
    """
    past = sum(epoch > step for step in STEPS)
    return {"constant": 1.0, "root": epoch**-0.5, "steps": FALL**-past}[schedule]


def batches(training: Training, labels: Tensor, seed: int, epoch: int) -> Iterator[Tensor]:
    """The rows of each batch of an epoch: floor(N / batch) batches."""
    size = training.batch
    if training.balanced:
        yield from Balanced(labels.cpu(), size, seed=number(seed, 0, BATCHES)).batches(epoch)
        return
    order = torch.randperm(len(labels), generator=generator(seed, epoch, BATCHES))
    yield from order[: len(labels) // size * size].split(size)
