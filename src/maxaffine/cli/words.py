"""Words in, words out: what options mean, what commands print, and how they end."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from maxaffine.errors import InputError, MaxaffineError

if TYPE_CHECKING:
    from maxaffine.report import Report
    from maxaffine.spline import Spline

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T)(i?)B?")
KEYWORD = r"\b(until|select|over|memory|limit|root|trusted)=(?:True\b)?([^\s,;)]?)"
OPTIONS = {"root": "data-root"}  # where an option is not called as the keyword

out_console, log_console = Console(), Console(stderr=True)


def numbers(text: str, option: str, count: int | None = None) -> tuple[float, ...]:
    """Return the comma-separated numbers of an option; each may be a fraction such as 1/255."""
    try:
        numbers = tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"--{option} {text}: give numbers such as 0.5 or 1/255, separated by commas") from error
    if count is not None and len(numbers) != count:
        raise InputError(f"--{option} {text}: give {count} number{'s' * (count > 1)}")
    return numbers


def whole(text: str, option: str, count: int | None = None) -> tuple[int, ...]:
    """Return the comma-separated whole numbers of an option."""
    found = numbers(text, option, count)
    if any(n != int(n) or n < 0 for n in found):
        raise InputError(f"--{option} {text}: give whole numbers separated by commas")
    return tuple(int(n) for n in found)


def size(text: str, option: str) -> int:
    """Return the bytes that an option says, such as 500MB or 2GiB.

    >>> size("1.5k", "memory"), size("2GiB", "memory")
    (1500, 2147483648)
    """
    found = SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"--{option} {text}: give bytes, such as 500MB or 2GiB")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** ("", "k", "M", "G", "T").index(found[2]))


def composition(spline: "Spline", name: str) -> Table:
    """Return the table that `inspect` prints."""
    from maxaffine.table import composition_rows

    units = sum(operator.units for operator in spline.operators)
    ends = " -> ".join(" x ".join(map(str, shape)) or "1" for shape in (spline.in_shape, spline.out_shape))
    title = f"{name}: {ends}, {len(spline.operators)} spline operator(s), {units:,} units"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("#", justify="right")
    for column in ("operator", "kind"):
        table.add_column(column, overflow="fold")
    for column in ("R", "units", "shape", "parameters before"):
        table.add_column(column, justify="right", overflow="fold")
    for k, (row, kind, pieces, size, shape, before) in enumerate(
        composition_rows(spline.captured, spline.operators, spline.out_shape)
    ):
        table.add_row(str(k + 1), row, kind, str(pieces), f"{size:,}", shape, f"{before:,}")
    return table


def say(done: "Report", out: Path) -> None:
    """Print where a report is and how exact its affine maps are."""
    from maxaffine.report import exactness_line

    out_console.print(str((out / "index.html").resolve()), soft_wrap=True, highlight=False)
    out_console.print(exactness_line(done), soft_wrap=True, highlight=False, markup=False)


def progress() -> Progress:
    """Return a progress bar on stderr, silent unless that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=log_console, transient=True, disable=not log_console.is_terminal)


def tracker(progress: Progress) -> Callable[[Iterable, str], Iterable]:
    """Return the function that shows steps in a progress bar while they are taken."""
    return lambda steps, what: progress.track(steps, description=what)


def in_options(message: str) -> str:
    """What a message says of keywords of the library, in options; calls of Python stay as they are.

    >>> in_options("with until='2', or limit= (cells)"), in_options("pass trusted=True; see at(x, memory=bytes)")
    ("with --until '2', or --limit (cells)", 'pass --trusted; see at(x, memory=bytes)')
    """
    parts = re.split(r"(\w\([^()]*\))", message)
    parts[::2] = [re.sub(KEYWORD, lambda m: f"--{OPTIONS.get(m[1], m[1])}{m[2] and ' '}{m[2]}", p) for p in parts[::2]]
    return "".join(parts)


@contextmanager
def clean_exit(what: str = "report") -> Iterator[None]:
    """Turn a refusal into one line on stderr and exit code 2, Ctrl-C into one line and 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"stopped; no {what} was written", file=sys.stderr)
        raise typer.Exit(130) from error
    except (MaxaffineError, OSError) as error:
        print(f"maxaffine: {' '.join(in_options(str(error)).split())}", file=sys.stderr)
        raise typer.Exit(2) from error
