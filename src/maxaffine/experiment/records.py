"""What came out of the runs of a grid, as values and as Parquet files.

epochs.parquet      a row for each epoch of each run: accuracies, cross-entropies, penalties, norms, templates
images.parquet      a row for each run: the share of its last epochs in which each test image was right
grams.parquet       a row for each run: W W^T of the last layer at the end
histograms.parquet  a row for each run, moment, part of the data and quantity: edges and counts
layers.parquet      a row for each run, moment and spline operator: codes, agreement of nearest neighbours
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maxaffine.distributed.job import fresh
from maxaffine.distributed.library import arrow, parquet
from maxaffine.errors import FileFormatError
from maxaffine.experiment.runs import FORMAT, Run
from maxaffine.experiment.steps import Site, read
from maxaffine.types import __version__

Floats = NDArray[np.float64]
FILES = ("epochs", "images", "grams", "histograms", "layers")
NAMED = ("variant", "gamma", "rate", "seed")


@dataclass(frozen=True, eq=False)
class Histogram:
    """Of one quantity over one part of the data after an epoch: edges (B + 1,), counts (B,), mean and deviation."""

    epoch: int
    part: str
    quantity: str
    edges: Floats
    counts: NDArray[np.int64]
    mean: float
    std: float


@dataclass(frozen=True)
class Layer:
    """Of one spline operator after an epoch: distinct codes of the rows, and how often neighbours share a label."""

    epoch: int
    operator: str
    units: int
    codes: int
    agreement_trained: float
    agreement_true: float


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run. epochs: the numbers of epochs 0 .. E by name; correct (N,): over the last epochs; gram (C, C)."""

    variant: str
    gamma: float
    rate: float
    seed: int
    last: int
    epochs: Mapping[str, Floats]
    correct: Floats
    gram: Floats
    histograms: tuple[Histogram, ...]
    layers: tuple[Layer, ...]

    def final(self, quantity: str) -> float:
        """The mean of a quantity over the last epochs, as in the paper."""
        return float(self.epochs[quantity][-self.last :].mean())


def collect(runs: Iterable[Run], site: Site) -> list[Result]:
    """The finished runs of a grid from their files. Raises FileFormatError."""
    found = []
    for run in runs:
        path = site.file(run)
        content = read(path) if path.exists() else None
        if content is not None and len(content["epochs"]) == run.epochs + 1:
            found.append(_result(run, content))
    return found


def _result(run: Run, content: Mapping[str, Any]) -> Result:
    names = list(dict.fromkeys(name for record in content["epochs"] for name in record))
    snapshots = content["snapshots"].items()
    return Result(
        run.variant,
        run.gamma,
        run.rate,
        run.seed,
        min(run.settings.measure.last, run.epochs),
        {name: np.array([record.get(name, math.nan) for record in content["epochs"]]) for name in names},
        content["correct"].double().mean(0).numpy(),
        content["gram"].numpy(),
        tuple(
            Histogram(epoch, part, name, h["edges"].numpy(), h["counts"].numpy(), h["mean"], h["std"])
            for epoch, kept in snapshots
            for part, each in kept["histograms"].items()
            for name, h in each.items()
        ),
        tuple(Layer(epoch, **layer) for epoch, kept in snapshots for layer in kept["layers"]),
    )


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write the files of results into a folder. Raises FileFormatError, MissingExtraError."""
    pa, store = arrow(), parquet()
    about = {"maxaffine.format": str(FORMAT), "maxaffine.version": __version__}
    for name in FILES:
        rows = [row for result in results for row in ROWS[name](result)]
        table = (
            pa.Table.from_pylist(rows, pa.schema(_types(rows)))
            if rows
            else pa.table({"variant": pa.array([], pa.string())})
        )
        with fresh(folder / f"{name}.parquet") as file:
            store.write_table(table.replace_schema_metadata(about), file)


def _types(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """The columns of all rows with the types of the values that stand in them."""
    pa = arrow()
    first = {name: value for row in reversed(rows) for name, value in row.items()}
    names = dict.fromkeys(name for row in rows for name in row)
    return [(name, pa.scalar(first[name]).type) for name in names]


def _named(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in NAMED}


def _epoch_rows(result: Result) -> list[dict[str, Any]]:
    count, others = len(result.epochs["epoch"]), {n: v.tolist() for n, v in result.epochs.items() if n != "epoch"}
    head = _named(result) | {"last": result.last}
    return [head | {"epoch": k} | {name: values[k] for name, values in others.items()} for k in range(count)]


def _histogram_rows(result: Result) -> list[dict[str, Any]]:
    lists = [{"edges": h.edges.tolist(), "counts": h.counts.tolist()} for h in result.histograms]
    return [_named(result) | vars(h) | both for h, both in zip(result.histograms, lists, strict=True)]


ROWS: Mapping[str, Callable[[Result], list[dict[str, Any]]]] = {
    "epochs": _epoch_rows,
    "images": lambda result: [_named(result) | {"correct": result.correct.tolist()}],
    "grams": lambda result: [_named(result) | {"gram": result.gram.tolist()}],
    "histograms": _histogram_rows,
    "layers": lambda result: [_named(result) | vars(layer) for layer in result.layers],
}


def load(folder: str | Path) -> list[Result]:
    """The results that `write` left in a folder, in their order. Raises FileFormatError, MissingExtraError."""
    tables = {name: _rows(Path(folder) / f"{name}.parquet") for name in FILES}
    grouped: dict[tuple, dict[str, list[dict[str, Any]]]] = {}
    for name, rows in tables.items():
        for row in rows:
            own = grouped.setdefault(tuple(row.pop(key) for key in NAMED), {name: [] for name in FILES})
            own[name].append(row)
    return [_loaded(key, own) for key, own in grouped.items()]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        table = parquet().read_table(path)
    except (OSError, arrow().ArrowException) as error:
        raise FileFormatError(f"{path}: not a readable table ({' '.join(str(error).split())[:80]})") from None
    found = int((table.schema.metadata or {}).get(b"maxaffine.format", b"0"))
    if found != FORMAT:
        raise FileFormatError(f"{path} has format {found}, this version reads {FORMAT}; update maxaffine")
    return table.to_pylist()


def _loaded(key: tuple, own: Mapping[str, list[dict[str, Any]]]) -> Result:
    variant, gamma, rate, seed = key
    rows = own["epochs"]
    numbers = [name for name in rows[0] if name != "last" and any(row[name] is not None for row in rows)]
    epochs = {n: np.array([math.nan if row[n] is None else row[n] for row in rows], float) for n in numbers}
    return Result(
        variant,
        gamma,
        rate,
        seed,
        rows[0]["last"],
        epochs,
        np.array(own["images"][0]["correct"]),
        np.array(own["grams"][0]["gram"]),
        tuple(
            Histogram(**h | {"edges": np.array(h["edges"]), "counts": np.array(h["counts"], np.int64)})
            for h in own["histograms"]
        ),
        tuple(Layer(**layer) for layer in own["layers"]),
    )
