"""One experiment = one TOML file: model, data, penalty, grid, what is measured; variants; a quick setting.

title = "..."                        [model]  [data]  [penalty]  [training]  [measure]    as the classes below
[[variant]]                          one more row of the grid: a name, and the keys in which it differs
name = "authors"
penalty.kind = "authors"
[quick]                              the keys in which --quick differs
training.epochs = 2
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from maxaffine.errors import FileFormatError, InputError, MissingExtraError

try:
    from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
except ImportError as error:
    raise MissingExtraError('experiment files need pydantic: pip install "maxaffine[train]"') from error


def _gammas(values: tuple[float, ...]) -> tuple[float, ...]:
    for value in values:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"gamma = {value:g}: give finite numbers >= 0")
    return _distinct(values)


def _rates(values: tuple[float, ...]) -> tuple[float, ...]:
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"a learning rate of {value:g}: give finite numbers > 0")
    return _distinct(values)


def _seeds(given: Any) -> Any:
    """How many, or which: 3 is [0, 1, 2]."""
    if not isinstance(given, int) or isinstance(given, bool):
        return given
    if not 1 <= given <= MOST_SEEDS:
        raise ValueError(f"{given} seeds: give 1 to {MOST_SEEDS}, or a list of them")
    return list(range(given))


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values) or not values:
        raise ValueError(f"{list(values)}: give at least one value, each once")
    return values


MOST_SEEDS = 10_000  # a larger number is one seed that was meant, without its brackets


class Strict(BaseModel):
    """A part of an experiment; an unknown key is an error, and so is a number in place of a word."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Count = Annotated[int, Field(ge=1)]
Numbers = Annotated[tuple[float, ...], Field(strict=False)]


class Model(Strict):
    """A row of maxaffine.architectures.ARCHITECTURES and its arguments; those that are not given are its own.

    momentum: the share of a batch in the running statistics of batch norms. The paper's 0.01 needs some 1000 steps
    until accuracies in eval mode mean anything; where there are fewer, 0.1 (torch's own) is a better choice.
    """

    name: str = "mlp"
    version: str | None = None
    batch_norm: bool | None = None
    bias: bool | None = None
    activation: Literal["relu", "abs"] | None = None
    widths: Annotated[tuple[Count, ...], Field(strict=False)] | None = None
    momentum: Annotated[float, Field(gt=0, le=1)] | None = None


class Data(Strict):
    """A name of maxaffine.data.load; train, test: rows taken, as many of each class as there are (default: all).

    grey: the mean over the channels. random_labels: the training labels are permuted, by each run's seed.
    """

    name: str = "digits"
    train: Count | None = None
    test: Count | None = None
    grey: bool = False
    normalise: bool = True
    random_labels: bool = False


class Penalty(Strict):
    """As for maxaffine.Penalty; kind "norm_control" is what hides in "authors", alone."""

    kind: Literal["sum", "mean", "cosine", "authors", "norm_control"] = "sum"
    on: Literal["last", "all", "templates"] = "last"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class Training(Strict):
    """The grid (gammas x learning_rates x seeds) and how each of its networks is trained.

    seeds: how many, or which. balanced: batch / classes rows of every class in each batch. augmentation: reflecting
    pad of 2, random crop, flip. optimiser: "adam" is torch's; "adam-uncorrected" is the paper's, without bias
    correction. schedule: "constant", "root" (rate / sqrt(epoch)), "steps" (a fifth at epochs 60, 120, 160).
    """

    gammas: Annotated[Numbers, AfterValidator(_gammas)] = (0.0,)
    learning_rates: Annotated[Numbers, AfterValidator(_rates)] = (1e-3,)
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**63)], ...],
        Field(strict=False),
        BeforeValidator(_seeds),
        AfterValidator(_distinct),
    ] = (0,)
    epochs: Count = 10
    batch: Count = 50
    balanced: bool = True
    optimiser: Literal["adam", "adam-uncorrected"] = "adam"
    schedule: Literal["constant", "root", "steps"] = "constant"
    augmentation: bool = False


class Measure(Strict):
    """What is measured. rows: training rows on which accuracy and cross-entropy are taken (default: all).

    last: epochs of which results are the mean. templates: when their statistics are taken, on template_rows
    training rows and as many test rows: "never", "end", "epochs" (before the first epoch and after each).
    """

    rows: Count | None = None
    last: Count = 3
    templates: Literal["never", "end", "epochs"] = "never"
    template_rows: Count = 500


class Settings(Strict):
    """All that determines the runs of one variant."""

    model: Model = Model()
    data: Data = Data()
    penalty: Penalty = Penalty()
    training: Training = Training()
    measure: Measure = Measure()


TABLES: Mapping[str, type[Strict]] = {
    "model": Model,
    "data": Data,
    "penalty": Penalty,
    "training": Training,
    "measure": Measure,
}


@dataclass(frozen=True)
class Experiment:
    """A title and the settings of each variant, in the file's order; one without variants has the variant ''.

    >>> experiment = parse({"title": "two", "training": {"gammas": [0, 1.0], "seeds": 2}}, "two.toml")
    >>> experiment.variants[""].training.gammas, experiment.variants[""].training.seeds
    ((0.0, 1.0), (0, 1))
    """

    title: str
    variants: Mapping[str, Settings]


def read(path: str | Path, quick: bool = False) -> Experiment:
    """Read an experiment file; quick: with what its table [quick] changes.

    Raises:
        FileFormatError: there is no such file, or it is not TOML.
        InputError: a key is unknown or its value is not allowed.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(f"{path}: not TOML: {error}") from None
    return parse(content, path.name, quick)


def parse(content: Mapping[str, Any], source: str, quick: bool = False) -> Experiment:
    """An experiment from the contents of its file; source: the name that errors give. Raises InputError."""
    tables = dict(content)
    title, variants, changes = (
        tables.pop("title", Path(source).stem),
        tables.pop("variant", []),
        tables.pop("quick", {}),
    )
    if not isinstance(title, str):
        raise InputError(f"{source}: title = {title!r}: give text")
    named = isinstance(variants, list) and all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in variants)
    if not named or not isinstance(changes, dict):
        raise InputError(f"{source}: each [[variant]] needs a name, and [quick] is a table")
    names = [variant["name"] for variant in variants]
    if len(set(names)) < len(names):
        raise InputError(f"{source}: two variants are called {max(names, key=names.count)!r}")
    _check(changes, f"{source}, [quick]")  # also when it is not asked for
    base = _merged(tables, changes) if quick else tables
    _check(base, source)
    found = {"": _check(base, source)} if not variants else {}
    for variant in variants:
        own = {key: value for key, value in variant.items() if key != "name"}
        where = f"{source}, variant {variant['name']!r}"
        _check(own, where)
        whole = _merged(_merged(tables, own), changes) if quick else _merged(tables, own)
        found[variant["name"]] = _check(whole, where)
    return Experiment(title, found)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of base with the keys of changes in place of their own."""
    both = {
        k: _merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
        for k, v in changes.items()
    }
    return {**base, **both}


def _check(tables: Mapping[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{source}: {_line(first)}") from None


def _line(found: Any) -> str:
    """One line about the first thing that is wrong: the key, and what it may be."""
    place = [str(part) for part in found["loc"]]
    key, kind = ".".join(place), found["type"]
    if kind == "extra_forbidden":
        table = TABLES[place[0]] if len(place) == 2 else Settings
        return f"unknown key {key}; known here are {', '.join(table.model_fields)}"
    reason = found["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    reason = reason.partition("valid dictionary")[0] + "table" if kind == "model_type" else reason
    return f"{key}: {reason[:1].lower()}{reason[1:]}" + ("" if kind == "value_error" else f", got {found['input']!r}")
