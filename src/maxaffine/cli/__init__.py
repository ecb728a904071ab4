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
    with clean_exit():
        from maxaffine import data as files
        from maxaffine.report import Scaling, fit, write

        like = like(dtype, device)
        scaling = Scaling(
            None if scale is None else numbers(scale, "scale", 1)[0],
            numbers(mean, "mean"),
            numbers(std, "std"),
            None if permute is None else whole(permute, "permute"),
        )
        rows = files.read(data, labels, limit)
        if FACTORY.fullmatch(model):
            feed = fit(rows, None if shape is None else whole(shape, "shape"), scaling)
            spline = captured(model, feed(rows.inputs[:2]), until)
        else:
            spline = loaded(model, trusted, until)
            feed = fit(rows, spline.in_shape if shape is None else whole(shape, "shape"), scaling)
        with progress() as progress:
            done = write(
                spline.to(like.dtype).to(like.device),
                rows,
                feed,
                out,
                name=Path(model).name,
                classes=[name.strip() for name in classes.split(",")] if classes else (),
                picture=None if picture is None else whole(picture, "picture", 2),
                margins=margins,
                until=until,
                command=shlex.join(["maxaffine", *sys.argv[1:]]),
                track=tracker(progress),
            )
        say(done, out)


@app.command()
def inspect(model: Model, shape: InputShape = None, until: Until = None, trusted: Trusted = False) -> None:
    """Print the composition of a network: its spline operators in order."""
    with clean_exit():
        if not FACTORY.fullmatch(model):
            spline = loaded(model, trusted, until)
        elif shape is None:
            raise InputError(f"{model} is a factory: say the shape of one input, such as --shape 1,28,28")
        else:
            import torch

            spline = captured(model, torch.zeros(2, *whole(shape, "shape")), until)
        out_console.print(composition(spline, Path(model).name))


@app.command()
def demo(out: Out = Path("maxaffine-demo")) -> None:
    """Train a small network on scikit-learn's digits (seconds), save it, and write a report on it."""
    with clean_exit():
        import torch

        import maxaffine as ma
        from maxaffine.demo import EPOCHS, SCALE, digits, network, saved, train
        from maxaffine.report import Scaling, fit, staged, write

        command = DEMO_COMMAND.format(shlex.quote(str(out)))
        with staged(out) as files, progress() as progress:
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
                track=tracker(progress),
            )
        say(done, out)
        out_console.print(f"the same from its files: {command}", soft_wrap=True, highlight=False)
