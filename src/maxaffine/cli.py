"""The command line: ``maxaffine report``, ``maxaffine inspect`` and ``maxaffine demo``.

Torch and everything built on it is imported inside the commands, so that help is quick.
"""

import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from maxaffine.errors import InputError, MaxaffineError

if TYPE_CHECKING:
    import torch

    from maxaffine.report import Report
    from maxaffine.spline import Spline

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
DTYPES = ("float32", "float64")
DEMO_COMMAND = "maxaffine report {0}/digits.safetensors --data {0}/digits.npz --scale 1/16 --out {0}"

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
out_console, log_console = Console(), Console(stderr=True)

Model = Annotated[
    str,
    typer.Argument(help=".onnx, .onnx.gz, a saved spline (.safetensors), .pt2, or package.module:factory"),
]
Data = Annotated[Path, typer.Option(help=".npz (x, y), .npy, IDX (also .gz), or a folder of PNG/JPEG images")]
Out = Annotated[Path, typer.Option(help="folder for index.html and report.json")]
Labels = Annotated[Path | None, typer.Option(help="labels beside the data: .npy, IDX, or one number a line")]
Limit = Annotated[int | None, typer.Option(help="use the first rows only")]
Until = Annotated[str | None, typer.Option(help="cut the network after this module path or ONNX node output")]
Scale = Annotated[str | None, typer.Option(help="factor on stored values, such as 1/255; needed for whole numbers")]
Mean = Annotated[str, typer.Option(help="subtracted after scaling: one number, or one a channel: 0.49,0.48,0.45")]
Std = Annotated[str, typer.Option(help="divided by afterwards: one number, or one a channel")]
Permute = Annotated[str | None, typer.Option(help="order of a row's axes for the network, such as 2,0,1")]
InputShape = Annotated[str | None, typer.Option("--shape", help="shape of one network input, such as 1,28,28")]
Picture = Annotated[str | None, typer.Option(help="height,width of the picture that a flat row is")]
Classes = Annotated[str, typer.Option(help="names of the outputs, such as cat,dog,bird")]
Margins = Annotated[int | None, typer.Option(help="inputs whose walls are searched (default: by network size)")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]
Dtype = Annotated[str, typer.Option(help="float64 or float32")]
Trusted = Annotated[bool, typer.Option("--trusted", help="load a .pt2, which can run code from the file")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def report(
    model: Model,
    data: Data,
    out: Out,
    labels: Labels = None,
    limit: Limit = None,
    until: Until = None,
    scale: Scale = None,
    mean: Mean = "0",
    std: Std = "1",
    permute: Permute = None,
    shape: InputShape = None,
    picture: Picture = None,
    classes: Classes = "",
    margins: Margins = None,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    trusted: Trusted = False,
) -> None:
    """Write a page that shows what a network does to data: templates, codes, margins, neighbours."""
    with _clean_exit():
        from maxaffine import data as files
        from maxaffine.report import Scaling, fit, write

        like = _like(dtype, device)
        scaling = Scaling(
            None if scale is None else _numbers(scale, "scale", 1)[0],
            _numbers(mean, "mean"),
            _numbers(std, "std"),
            None if permute is None else _whole(permute, "permute"),
        )
        rows = files.read(data, labels, limit)
        if FACTORY.fullmatch(model):
            feed = fit(rows, None if shape is None else _whole(shape, "shape"), scaling)
            spline = _captured(model, feed(rows.inputs[:2]), until)
        else:
            spline = _loaded(model, trusted, until)
            feed = fit(rows, spline.in_shape if shape is None else _whole(shape, "shape"), scaling)
        with _progress() as progress:
            done = write(
                spline.to(like.dtype).to(like.device),
                rows,
                feed,
                out,
                name=Path(model).name,
                classes=[name.strip() for name in classes.split(",")] if classes else (),
                picture=None if picture is None else _whole(picture, "picture", 2),
                margins=margins,
                until=until,
                command=shlex.join(["maxaffine", *sys.argv[1:]]),
                track=_tracker(progress),
            )
        _say(done, out)


@app.command()
def inspect(model: Model, shape: InputShape = None, until: Until = None, trusted: Trusted = False) -> None:
    """Print the composition of a network: its spline operators in order."""
    with _clean_exit():
        if not FACTORY.fullmatch(model):
            spline = _loaded(model, trusted, until)
        elif shape is None:
            raise InputError(f"{model} is a factory: say the shape of one input, such as --shape 1,28,28")
        else:
            import torch

            spline = _captured(model, torch.zeros(2, *_whole(shape, "shape")), until)
        out_console.print(_composition(spline, Path(model).name))


@app.command()
def demo(out: Out = Path("maxaffine-demo")) -> None:
    """Train a small network on scikit-learn's digits (seconds), save it, and write a report on it."""
    with _clean_exit():
        import torch

        import maxaffine as ma
        from maxaffine.demo import EPOCHS, SCALE, digits, network, saved, train
        from maxaffine.report import Scaling, fit, staged, write

        command = DEMO_COMMAND.format(shlex.quote(str(out)))
        with staged(out) as files, _progress() as progress:
            data, net = digits(), network()
            for _ in progress.track(train(net, data), total=EPOCHS, description="training"):
                pass
            spline = ma.Spline(net, torch.zeros(2, 1, 8, 8))
            rows, contents = saved(spline, data)
            files |= contents
            done = write(
                spline.to(torch.float64),
                rows,
                fit(rows, spline.in_shape, Scaling(SCALE)),
                out,
                name="digits",
                command=command,
                track=_tracker(progress),
            )
        _say(done, out)
        out_console.print(f"the same from its files: {command}", soft_wrap=True, highlight=False)


# ---- networks ----


def _loaded(model: str, trusted: bool, until: str | None) -> "Spline":
    import maxaffine as ma

    with log_console.status(f"reading {model}"):
        return ma.load(model, trusted=trusted, until=until)


def _captured(model: str, example: "torch.Tensor", until: str | None) -> "Spline":
    """Call the user's own ``package.module:factory`` and capture the module that it returns."""
    import torch

    import maxaffine as ma

    module_name, name = model.split(":")
    sys.path.insert(0, os.getcwd())
    try:
        network = getattr(importlib.import_module(module_name), name)()
    except Exception as error:
        # Whatever the user's code raises is theirs to read; the line names the error and where it came from.
        raise InputError(f"{model}: {type(error).__name__}: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"{model} returned a {type(network).__name__}; a factory returns a torch.nn.Module")
    parameter = next(network.parameters(), torch.zeros(1))
    with log_console.status(f"capturing {model}"):
        return ma.Spline(network, example.to(parameter), until=until)


def _like(dtype: str, device: str) -> "torch.Tensor":
    """Return a tensor of the dtype and device asked for."""
    import torch

    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype}: give {' or '.join(DTYPES)}")
    if device not in ("cpu", "cuda"):
        raise InputError(f"device {device}: give cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: this machine or this torch has no CUDA; leave --device out")
    return torch.zeros(1, dtype=torch.float64 if dtype == "float64" else torch.float32, device=device)


# ---- words in, words out ----


def _numbers(text: str, option: str, count: int | None = None) -> tuple[float, ...]:
    """Return the comma-separated numbers of an option; each may be a fraction such as 1/255."""
    try:
        numbers = tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"--{option} {text}: give numbers such as 0.5 or 1/255, separated by commas") from error
    if count is not None and len(numbers) != count:
        raise InputError(f"--{option} {text}: give {count} number{'s' * (count > 1)}")
    return numbers


def _whole(text: str, option: str, count: int | None = None) -> tuple[int, ...]:
    numbers = _numbers(text, option, count)
    if any(n != int(n) or n < 0 for n in numbers):
        raise InputError(f"--{option} {text}: give whole numbers separated by commas")
    return tuple(int(n) for n in numbers)


def _composition(spline: "Spline", name: str) -> Table:
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


def _say(done: "Report", out: Path) -> None:
    from maxaffine.report import exactness_line

    out_console.print(str((out / "index.html").resolve()), soft_wrap=True, highlight=False)
    out_console.print(exactness_line(done), soft_wrap=True, highlight=False, markup=False)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=log_console, transient=True, disable=not log_console.is_terminal)


def _tracker(progress: Progress) -> Callable[[Sequence, str], Iterable]:
    return lambda steps, what: progress.track(steps, description=what)


@contextmanager
def _clean_exit() -> Iterator[None]:
    """Turn a refusal into one line on stderr and exit code 2, Ctrl-C into one line and 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("stopped; no report was written", file=sys.stderr)
        raise typer.Exit(130) from error
    except (MaxaffineError, OSError) as error:
        print(f"maxaffine: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from error
