"""The paper's statistics of a grid, and what it does not have: paired differences with their uncertainty.

For each (variant, learning rate, gamma): mean over the last epochs and the runs, standard deviation over the runs,
maximum over runs and epochs (the paper's black, grey and blue dots). Against gamma = 0 with the same seed: the mean
difference d over the seeds with two 95 % intervals that answer different questions:

    over seeds    d +- t_(S-1, 0.975) s / sqrt(S): would other networks, on these test images, differ as well?
    over images   the paired bootstrap: would these networks differ on other test images?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maxaffine.errors import InputError, MissingExtraError
from maxaffine.experiment.records import Result

LEVEL, DRAWS, CHUNK = 0.95, 10_000, 500
QUANTITIES = ("test_accuracy", "gap", "test_cross_entropy")

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A number and an interval around it; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One cell of the grid over its seeds; accuracies are shares, gap = train minus test accuracy."""

    variant: str
    rate: float
    gamma: float
    seeds: int
    test_accuracy: float
    std: float
    best: float
    train_accuracy: float
    gap: float
    test_cross_entropy: float
    off_diagonal_energy: float


@dataclass(frozen=True)
class Difference:
    """A cell minus the cell with gamma = 0: over_seeds of each quantity; over_images of the accuracy."""

    variant: str
    rate: float
    gamma: float
    seeds: int
    test_accuracy: Interval
    over_images: Interval
    gap: Interval
    test_cross_entropy: Interval


def final(result: Result, quantity: str) -> float:
    """A quantity of a run over its last epochs; "gap" is train minus test accuracy."""
    if quantity == "gap":
        return result.final("train_accuracy") - result.final("test_accuracy")
    return result.final(quantity)


def cells(results: Sequence[Result]) -> list[Cell]:
    """The statistics of each cell of the grid, in the order of the results."""
    found = []
    for (variant, rate, gamma), runs in grouped(results).items():
        accuracies = np.array([final(run, "test_accuracy") for run in runs])
        means = {name: _mean(runs, name) for name in ("train_accuracy", *QUANTITIES[1:], "off_diagonal_energy")}
        std = float(accuracies.std(ddof=1)) if len(runs) > 1 else float("nan")
        best = max(float(run.epochs["test_accuracy"][1:].max()) for run in runs)
        found.append(Cell(variant, rate, gamma, len(runs), float(accuracies.mean()), std, best, **means))
    return found


def _mean(runs: Sequence[Result], quantity: str) -> float:
    return float(np.mean([final(run, quantity) for run in runs]))


def grouped(results: Sequence[Result]) -> dict[tuple[str, float, float], list[Result]]:
    """The runs of each (variant, rate, gamma), gammas in increasing order."""
    found: dict[tuple[str, float, float], list[Result]] = {}
    for result in results:
        found.setdefault((result.variant, result.rate, result.gamma), []).append(result)
    places = {key[:2]: place for place, key in reversed(list(enumerate(found)))}
    return {key: found[key] for key in sorted(found, key=lambda key: (places[key[:2]], key[2]))}


def differences(results: Sequence[Result], draws: int = DRAWS, seed: int = 0) -> list[Difference]:
    """Each cell with gamma > 0 against the one with gamma = 0, over the seeds that both have."""
    groups, found = grouped(results), []
    for (variant, rate, gamma), runs in groups.items():
        base = {run.seed: run for run in groups.get((variant, rate, 0.0), [])}
        pairs = [(run, base[run.seed]) for run in runs if run.seed in base]
        if gamma == 0 or not pairs:
            continue
        over_seeds = {
            name: t_interval([final(run, name) - final(other, name) for run, other in pairs]) for name in QUANTITIES
        }
        images = np.stack([run.correct - other.correct for run, other in pairs])
        over_images = bootstrap_interval(images.mean(0), draws, seed)
        found.append(Difference(variant, rate, gamma, len(pairs), over_images=over_images, **over_seeds))
    return found


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean of independent numbers and Student's interval for it; a single number has none.

    >>> [round(v, 3) for v in t_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingExtraError('intervals need SciPy: pip install "maxaffine[train]"') from error
    numbers = np.asarray(values, float)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise InputError(f"an interval of numbers of shape {numbers.shape}; give at least one")
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = float(t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5)
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(values: ArrayLike, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Interval:
    """The mean over N images and the percentile interval of its bootstrap: the same images drawn for both networks.

    values: (N,) the difference of two networks (or of two means of networks) on each image. Source: Efron 1979.
    """
    numbers, generator = np.asarray(values, float), np.random.default_rng(seed)
    n = len(numbers)
    means = [
        generator.multinomial(n, np.full(n, 1 / n), size=min(CHUNK, draws - start)) @ numbers / n
        for start in range(0, draws, CHUNK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(numbers.mean()), float(low), float(high))
