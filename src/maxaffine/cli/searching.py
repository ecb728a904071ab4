"""``maxaffine search`` and ``duplicates``: who is near whom by the codes of a data set."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maxaffine.cli.encoding import cut_of, placed, scaling_of
from maxaffine.cli.networks import FACTORY, captured, loaded
from maxaffine.cli.options import Memory, Trusted
from maxaffine.cli.words import clean_exit, out_console, progress, size, tracker
from maxaffine.errors import FileFormatError, InputError

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from maxaffine.code import Code
    from maxaffine.data import Stream
    from maxaffine.encoding import CodeFolder
    from maxaffine.search import Duplicates
    from maxaffine.spline import Spline

Codes = Annotated[Path, typer.Argument(help="folder that maxaffine encode wrote", metavar="CODES")]
Queries = Annotated[
    list[str],
    typer.Argument(help="number of a row of CODES, an image, or a .npy/.npz/IDX file of rows", metavar="QUERY..."),
]
K = Annotated[int, typer.Option("--k", min=1, help="nearest rows of each query")]
Operators = Annotated[str | None, typer.Option(help="compare these operators only, such as 1,3")]
OtherModel = Annotated[str | None, typer.Option("--model", help="the network, if its file was moved")]
Table_ = Annotated[Path | None, typer.Option("--out", help="write what is found to this .json or .csv file, too")]
Radius = Annotated[float, typer.Option(min=0, max=1, help="share of units that may differ; 0: rows in the same cell")]

IMAGES, TABLES = (".png", ".jpg", ".jpeg"), (".json", ".csv")
SHOWN, MEMBERS = 20, 8  # groups of near-duplicates in the terminal, rows of each
ROWS = 200  # of the answers to queries in the terminal
Pairs = list[tuple[int, float]]


def search(
    codes: Codes,
    queries: Queries,
    k: K = 10,
    operators: Operators = None,
    model: OtherModel = None,
    trusted: Trusted = False,
    out: Table_ = None,
) -> None:
    """Find the rows of a data set whose codes are nearest to those of some queries."""
    with clean_exit("result"):
        from maxaffine import arguments
        from maxaffine.encoding import described, index_codes, open_codes

        check_ending(out, TABLES)
        folder, near, found = open_codes(codes), list[tuple[str, Pairs]](), list[dict[str, Any]]()
        asked = _asked(folder, queries, model, trusted)
        with progress() as bar:
            index = index_codes(folder, operator_names(operators), tracker(bar))
        for names, code, own in asked:
            arguments.whole(k, "k", 1, len(index) - (own is not None))
            hits = index.search(code, k + (own is not None))
            for name, ids, distances in zip(names, hits.ids.tolist(), hits.distances.tolist(), strict=True):
                pairs = zip(ids, distances, strict=True)
                near.append((name, [pair for pair in pairs if pair[0] != own][:k]))
        about = described(folder, (row for _, pairs in near for row, _ in pairs))
        for name, pairs in near:
            found += _said(name, pairs, about, folder.plan.classes)
        out_console.print(_table(found[:ROWS], f"{len(index):,} rows of {folder.plan.source}"))
        if len(found) > ROWS:
            out_console.print(f"and {len(found) - ROWS:,} more{'' if out else ': say --out'}", highlight=False)
        _write(out, found)


def duplicates(
    codes: Codes, radius: Radius, operators: Operators = None, memory: Memory = None, out: Table_ = None
) -> None:
    """Find the near-duplicates of a data set: rows whose codes differ in few units."""
    with clean_exit("result"):
        from maxaffine.encoding import index_codes, open_codes
        from maxaffine.search import near_duplicates

        check_ending(out, TABLES)
        folder = open_codes(codes)
        with progress() as bar:
            index = index_codes(folder, operator_names(operators), tracker(bar))
        found = near_duplicates(index, radius, memory=None if memory is None else size(memory, "memory"))
        out_console.print(str(found), soft_wrap=True, highlight=False)
        if found.groups:
            out_console.print(_groups(found, folder))
        pairs = zip(found.pairs.tolist(), found.distances.tolist(), strict=True)
        _write(out, [{"first": a, "second": b, "distance": d} for (a, b), d in pairs])


# ---- queries ----------------------------------------------------------------------------------------------


def _asked(
    folder: "CodeFolder", words: Sequence[str], model: str | None, trusted: bool
) -> "list[tuple[list[str], Code, int | None]]":
    """Names and codes of the queries of each word, and the own row of one that is a row of the folder."""
    from maxaffine.encoding import rows_of

    found, spline = list[tuple[list[str], Any, int | None]](), None
    if model is not None:
        spline = _network(folder, model, trusted)
    for word in words:
        if word.isdecimal():
            found.append(([f"row {word}"], rows_of(folder, [int(word)]).code, int(word)))
            continue
        rows = _rows(Path(word))
        spline = spline or _network(folder, model, trusted)
        values = _inputs(spline, rows, folder.plan.options)
        names = [word] if len(values) == 1 else [f"{word}[{n}]" for n in range(len(values))]
        found.append((names, spline.code(values), None))
    return found


def _rows(path: Path) -> "Stream":
    from maxaffine.data import Dataset, as_stream
    from maxaffine.data.files import read_image

    if path.suffix.lower() not in IMAGES:
        return as_stream(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; a query is the number of a row, an image, or a file of rows")
    return as_stream(Dataset(read_image(path)[None], None, (), path.name))


def _network(folder: "CodeFolder", model: str | None, trusted: bool) -> "Spline":
    """The network that encoded a folder; its weights are compared when codes are."""
    import torch

    options = folder.plan.options
    named = model or options.get("model")
    if not isinstance(named, str) or (model is None and FACTORY.fullmatch(named)):
        was = "no network" if not isinstance(named, str) else f"{named}, which is not called because a file says so"
        raise InputError(f"{folder.folder} names {was}: say --model")
    if FACTORY.fullmatch(named):
        found = captured(named, torch.zeros(2, *_shape(folder)), cut_of(options))
    else:
        found = loaded(named, trusted, cut_of(options))
    return placed(found, folder.plan.dtype, "cpu")


def _shape(folder: "CodeFolder") -> tuple[int, ...]:
    signature, _ = folder.plan.network(str(folder.folder))
    return signature.in_shape


def _inputs(spline: "Spline", rows: "Stream", options: Mapping[str, Any]) -> "torch.Tensor":
    """Rows of a query as inputs, scaled as those of the folder were."""
    from maxaffine.data import first_row
    from maxaffine.report import fit

    scaling = scaling_of(options)
    try:
        feed, values = fit(first_row(rows), spline.in_shape, scaling), rows.read(0, len(rows))
    finally:
        rows.close()
    for failed in values.failed:
        raise FileFormatError(f"{failed.name}: {failed.reason}")
    return feed(values.values).to(spline.dtype)


def operator_names(operators: str | None) -> list[str] | None:
    """The names of an option."""
    return None if operators is None else [name.strip() for name in operators.split(",")]


# ---- answers ----------------------------------------------------------------------------------------------


def _said(
    query: str, pairs: Pairs, about: Mapping[int, tuple[Any, str]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """What is said about the rows found for a query, nearest first."""
    found = []
    for place, (row, distance) in enumerate(pairs):
        said, (label, name) = {"query": query, "rank": place + 1, "distance": distance, "id": row}, about[row]
        if label is not None:
            said["label"] = classes[label] if isinstance(label, int) and 0 <= label < len(classes) else label
        found.append(said | ({"name": name} if name else {}))
    return found


def _table(found: Sequence[Mapping[str, Any]], title: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in found[0] if found else ("query",):
        table.add_column(column, justify="left" if column in ("query", "name", "label") else "right", overflow="fold")
    for n, row in enumerate(found):
        cells = {**row, "distance": f"{row['distance']:.4f}"}
        cells["query"] = cells["query"] if row["rank"] == 1 else ""
        last = n + 1 < len(found) and found[n + 1]["rank"] == 1
        table.add_row(*map(str, cells.values()), end_section=last)
    return table


def _groups(found: "Duplicates", folder: "CodeFolder") -> "Table":
    """The largest groups of near-duplicates."""
    from rich.table import Table

    from maxaffine.encoding import rows_of

    shown = found.groups[:SHOWN]
    more = f", the largest {SHOWN} of {len(found.groups):,}" if len(found.groups) > SHOWN else ""
    table = Table(title=f"groups{more}", title_justify="left", title_style="bold")
    table.add_column("rows", justify="right")
    table.add_column("which", overflow="fold")
    for group in shown:
        ids = group[:MEMBERS].tolist()
        which = ", ".join(rows_of(folder, ids).names if folder.plan.named else map(str, ids))
        table.add_row(f"{len(group):,}", which + (" ..." if len(group) > MEMBERS else ""))
    return table


def check_ending(out: Path | None, endings: Sequence[str]) -> None:
    """Raise InputError unless a file ends in one of these."""
    if out is not None and out.suffix not in endings:
        raise InputError(f"--out {out}: give a file that ends in {' or '.join(endings)}")


def _write(out: Path | None, found: Sequence[Mapping[str, Any]]) -> None:
    from maxaffine.report import staged

    if out is None:
        return
    text = json.dumps(list(found), indent=1) + "\n"
    if out.suffix == ".csv":
        file = io.StringIO()
        writer = csv.DictWriter(file, list(found[0]) if found else ["first", "second", "distance"])
        writer.writeheader()
        writer.writerows(found)
        text = file.getvalue()
    with staged(out.parent, out.name) as contents:
        contents[out.name] = text.encode()
    out_console.print(str(out.resolve()), soft_wrap=True, highlight=False)
