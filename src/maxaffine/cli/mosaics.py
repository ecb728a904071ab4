"""``maxaffine neighbours``: the nearest rows of a data set at each depth of a network, as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maxaffine.cli.encoding import Data, fitted, say_failed
from maxaffine.cli.networks import Cut
from maxaffine.cli.options import InputShape, Labels, Mean, Model, Over, Permute, Scale, Select, Std, Trusted, Until
from maxaffine.cli.searching import Operators, check_ending, operator_names
from maxaffine.cli.words import clean_exit, numbers, out_console, progress, tracker, whole
from maxaffine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from maxaffine.code import Code
    from maxaffine.codebook import Nearest

Picture = Annotated[Path, typer.Option("--out", help="picture to write (.png, .pdf or .svg)")]
Asked = Annotated[str, typer.Option("--queries", help="rows of the data that are asked for")]
Rows = Annotated[int, typer.Option("--limit", min=2, help="search among the first rows only")]
Near = Annotated[int, typer.Option("--k", min=1, help="neighbours of each query (15: squares of 4 x 4)")]

PICTURES = (".png", ".pdf", ".svg")
BATCH = 256


def neighbours(
    model: Model,
    data: Data,
    out: Picture,
    queries: Asked = "0,1,2,3",
    k: Near = 15,
    limit: Rows = 10_000,
    operators: Operators = None,
    labels: Labels = None,
    until: Until = None,
    select: Select = None,
    over: Over = None,
    scale: Scale = None,
    mean: Mean = "0",
    std: Std = "1",
    permute: Permute = None,
    shape: InputShape = None,
    trusted: Trusted = False,
) -> None:
    """Draw the nearest neighbours of some rows of a data set, at each depth of a network."""
    with clean_exit("picture"):
        from maxaffine.data import as_stream
        from maxaffine.report import Scaling, staged

        check_ending(out, PICTURES)
        scaling = Scaling(
            None if scale is None else numbers(scale, "scale", 1)[0],
            numbers(mean, "mean"),
            numbers(std, "std"),
            None if permute is None else whole(permute, "permute"),
        )
        stream = as_stream(data, labels, limit)
        try:
            wanted = None if shape is None else whole(shape, "shape")
            spline, feed = fitted(model, stream, scaling, wanted, Cut(until, select, over), trusted)
            rows = stream.read(0, len(stream))
        finally:
            stream.close()
        for row in rows.failed:
            say_failed(row)
        asked = _places(whole(queries, "queries"), rows.numbers)
        with staged(out.parent, out.name) as contents:
            with progress() as bar:
                batches = tracker(bar)(range(0, len(rows.values), BATCH), f"batches of {BATCH}")
                parts = ((n, spline.code(feed(rows.values[n : n + BATCH]).to(spline.dtype))) for n in batches)
                found = _nearest(parts, asked, k, operator_names(operators))
            contents[out.name] = _mosaic(rows.values, found, asked, rows.labels, out.suffix)
        out_console.print(str(out.resolve()), soft_wrap=True, highlight=False)
        if rows.failed:
            raise typer.Exit(1)


def _places(queries: Sequence[int], ids: "np.ndarray") -> list[int]:
    """Where the rows asked for lie among those that were read."""
    there = {int(row): place for place, row in enumerate(ids)}
    missing = [row for row in queries if row not in there]
    if missing:
        raise InputError(f"--queries: row {missing[0]} is not among the {len(ids)} rows of the data that were read")
    return [there[row] for row in queries]


def _nearest(
    parts: "Iterator[tuple[int, Code]]", asked: Sequence[int], k: int, names: Sequence[str] | None
) -> "dict[str, Nearest]":
    """The k nearest of the rows asked for, by the codes of each operator alone; packed codes are held."""
    import numpy as np

    from maxaffine import arguments
    from maxaffine.code import concatenate
    from maxaffine.codebook import Nearest
    from maxaffine.search import CodeIndex

    indices, queries = dict[str, CodeIndex](), dict[int, Any]()
    for first, code in parts:
        for name in names or [units.name for units in code.signature]:
            if name in indices:
                indices[name].add(code)
            else:
                indices[name] = CodeIndex.build(code, operators=name)
        queries |= {row: code[row - first] for row in asked if first <= row < first + len(code)}
    wanted, found = concatenate([queries[row] for row in asked]), dict[str, Nearest]()
    if not indices:
        raise InputError("the network has no spline operator, so its codes say nothing; give one with relu, maxima ...")
    arguments.whole(k, "k", 1, min(map(len, indices.values())) - 1)
    for name, index in indices.items():
        near = index.search(wanted, k + 1)
        kept = [_without(row, ids) for row, ids in zip(asked, near.ids.numpy(), strict=True)]
        places = np.array(kept)
        distances = np.take_along_axis(near.distances.numpy(), places, 1)
        found[name] = Nearest(np.take_along_axis(near.ids.numpy(), places, 1), distances)
    return found


def _without(row: int, ids: "np.ndarray") -> "np.ndarray":
    """Places of all but the row itself; of all but the last where the row is not among them."""
    return (ids != row).nonzero()[0][: len(ids) - 1]


def _mosaic(
    values: "np.ndarray",
    found: "Mapping[str, Nearest]",
    asked: Sequence[int],
    labels: "np.ndarray | None",
    ending: str,
) -> bytes:
    from maxaffine.plot import codes

    file = io.BytesIO()
    figure = codes.neighbours(values, found, asked, labels)
    figure.savefig(file, format=ending[1:], dpi=130)
    return file.getvalue()
