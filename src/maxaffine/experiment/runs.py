"""The cells of a grid: one run is one network, named by variant, gamma, learning rate and seed."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from maxaffine.experiment.specification import Experiment, Penalty, Settings

FORMAT = 1  # of what determines a run and of its file


@dataclass(frozen=True)
class Run:
    """One network of a grid.

    >>> from maxaffine.experiment.specification import parse
    >>> runs = runs_of(parse({"training": {"gammas": [0.0, 0.5], "seeds": 2}}, "two.toml"))
    >>> [run.name for run in runs]
    ['gamma 0, rate 0.001, seed 0', 'gamma 0.5, rate 0.001, seed 0', 'gamma 0, rate 0.001, seed 1', ...]
    """

    variant: str
    gamma: float
    rate: float
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        """What a message calls it."""
        cell = f"gamma {self.gamma:g}, rate {self.rate:g}, seed {self.seed}"
        return f"{self.variant}: {cell}" if self.variant else cell

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that are equal exactly for runs that compute the same.

        Neither the variant's name nor the rest of the grid is part of it; without a weight, the penalty is not either.
        """
        content = self.settings.model_dump(mode="json")
        for axis in ("gammas", "learning_rates", "seeds"):
            del content["training"][axis]
        if self.gamma == 0:
            content["penalty"] = Penalty().model_dump(mode="json")
        content |= {"format": FORMAT, "gamma": self.gamma, "rate": self.rate, "seed": self.seed}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def epochs(self) -> int:
        """For how many epochs it trains."""
        return self.settings.training.epochs


def runs_of(experiment: Experiment) -> list[Run]:
    """All cells of the grid; gammas vary fastest, so that what is finished early compares them on the same seeds."""
    return [
        Run(variant, gamma, rate, seed, settings)
        for variant, settings in experiment.variants.items()
        for rate in settings.training.learning_rates
        for seed in settings.training.seeds
        for gamma in settings.training.gammas
    ]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """The first of each key."""
    return list({run.key: run for run in reversed(list(runs))}.values())[::-1]
