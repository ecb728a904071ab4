"""The command line: ``maxaffine report``, ``slice``, ``encode``, ``inspect``, ``demo`` and more.

Torch and everything built on it is imported inside the commands, so that help is quick.
"""

import shlex
import sys
from pathlib import Path

import typer

from maxaffine.cli import encoding, mosaics, searching, slicing, training
from maxaffine.cli.networks import FACTORY, Cut, captured, like, loaded
from maxaffine.cli.options import (
    Classes,
    Data,
    Device,
    Dtype,
    InputShape,
    Labels,
    Limit,
    Margins,
    Mean,
    Model,
    Out,
    Over,
    Permute,
    Picture,
    Scale,
    Select,
    Std,
    Trusted,
    Until,
)
from maxaffine.cli.words import clean_exit, composition, numbers, out_console, progress, say, tracker, whole
from maxaffine.errors import InputError

DEMO_COMMAND = "maxaffine report {0}/digits.safetensors --data {0}/digits.npz --scale 1/16 --out {0}"

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("slice")(slicing.slice_plane)
app.command()(training.train)
app.command()(encoding.encode)
app.command()(searching.search)
app.command()(searching.duplicates)
app.command()(mosaics.neighbours)


@app.command()
def report(
    model: Model,
    data: Data,
    out: Out,
    labels: Labels = None,
    limit: Limit = None,
    until: Until = None,
    select: Select = None,
    over: Over = None,
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

        wanted, cut = like(dtype, device), Cut(until, select, over)
        scaling = Scaling(
            None if scale is None else numbers(scale, "scale", 1)[0],
            numbers(mean, "mean"),
            numbers(std, "std"),
            None if permute is None else whole(permute, "permute"),
        )
        rows = files.read(data, labels, limit)
        if FACTORY.fullmatch(model):
            feed = fit(rows, None if shape is None else whole(shape, "shape"), scaling)
            spline = captured(model, feed(rows.inputs[:2]), cut)
        else:
            spline = loaded(model, trusted, cut)
            feed = fit(rows, spline.in_shape if shape is None else whole(shape, "shape"), scaling)
        with progress() as bar:
            done = write(
                spline.to(wanted.dtype).to(wanted.device),
                rows,
                feed,
                out,
                name=Path(model).name,
                classes=[name.strip() for name in classes.split(",")] if classes else (),
                picture=None if picture is None else whole(picture, "picture", 2),
                margins=margins,
                **cut._asdict(),
                command=shlex.join(["maxaffine", *sys.argv[1:]]),
                track=tracker(bar),
            )
        say(done, out)


@app.command()
def inspect(
    model: Model,
    shape: InputShape = None,
    until: Until = None,
    select: Select = None,
    over: Over = None,
    trusted: Trusted = False,
) -> None:
    """Print the composition of a network: its spline operators in order."""
    with clean_exit("table"):
        cut = Cut(until, select, over)
        if not FACTORY.fullmatch(model):
            spline = loaded(model, trusted, cut)
        elif shape is None:
            raise InputError(f"{model} is a factory: say the shape of one input, such as --shape 1,28,28")
        else:
            import torch

            spline = captured(model, torch.zeros(2, *whole(shape, "shape")), cut)
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
        with staged(out) as files, progress() as bar:
            data, net = digits(), network()
            for _ in bar.track(train(net, data), total=EPOCHS, description="training"):
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
                track=tracker(bar),
            )
        say(done, out)
        out_console.print(f"the same from its files: {command}", soft_wrap=True, highlight=False)
