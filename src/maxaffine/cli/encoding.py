"""``maxaffine encode``: the codes of a data set, in files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maxaffine.cli.networks import DTYPES, FACTORY, Cut, captured, like, loaded
from maxaffine.cli.options import (
    Device,
    InputShape,
    Labels,
    Limit,
    Mean,
    Model,
    Over,
    Permute,
    Scale,
    Select,
    Std,
    Trusted,
    Until,
)
from maxaffine.cli.words import clean_exit, log_console, numbers, out_console, progress, tracker, whole
from maxaffine.errors import InputError

if TYPE_CHECKING:
    from maxaffine.data import Failed, Stream
    from maxaffine.encoding import Outcome
    from maxaffine.report import Feed, Scaling
    from maxaffine.spline import Spline

ROWS = ".npz (x, y), .npy, IDX (also .gz), a folder of PNG/JPEG images, .tar of WebDataset (or a folder of them), or a"
Data = Annotated[Path, typer.Option(help=f"{ROWS} folder that datasets' save_to_disk wrote")]
Out = Annotated[Path, typer.Option(help="folder for manifest.json and shards (.parquet); a begun one is continued")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32 (default: the network's own)")]
Batch = Annotated[int | None, typer.Option(min=1, help="rows at a time (default: 256)")]
Shard = Annotated[int | None, typer.Option(min=1, help="rows a file, a multiple of --batch (default: up to 16384)")]
Threads = Annotated[int | None, typer.Option(min=1, help="threads of torch (default: what torch takes)")]
Ray = Annotated[bool, typer.Option("--ray", help="encode through Ray: on the connected cluster, or here")]
Workers = Annotated[int, typer.Option(min=1, help="CPUs of a Ray cluster that is started here")]
Rank = Annotated[int, typer.Option(min=0, envvar="RANK", help="take every --world-size-th file, as torchrun says")]
World = Annotated[int, typer.Option(min=1, envvar="WORLD_SIZE", help="processes that write to this folder together")]
Place = Annotated[int | None, typer.Option(min=0, envvar="LOCAL_RANK", help="number of the GPU, with --device cuda")]

GO_ON = "stopped; the finished files are kept, and the same command goes on from there"
NO_OPTIONS = "these codes were not written by maxaffine encode: search them with CodeIndex in Python"
SHOWN = 10  # rows that could not be read, in the terminal; the manifest has all


def encode(
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
    batch: Batch = None,
    shard: Shard = None,
    threads: Threads = None,
    ray: Ray = False,
    workers: Workers = 2,
    rank: Rank = 0,
    world_size: World = 1,
    local_rank: Place = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    trusted: Trusted = False,
) -> None:
    """Write the codes of a data set to Parquet files. Stopped or killed, the same command goes on."""
    with clean_exit("codes"):
        from maxaffine.data import as_stream
        from maxaffine.encoding import encode as write
        from maxaffine.report import Scaling

        scaling = Scaling(
            None if scale is None else numbers(scale, "scale", 1)[0],
            numbers(mean, "mean"),
            numbers(std, "std"),
            None if permute is None else whole(permute, "permute"),
        )
        like(dtype or DTYPES[0], device)
        rows, start = as_stream(data, labels, limit), time.perf_counter()
        cut = Cut(until, select, over)
        spline, feed = fitted(model, rows, scaling, None if shape is None else whole(shape, "shape"), cut, trusted)
        spline = placed(spline, dtype, device, local_rank)
        options = recorded(model, scaling, cut)
        try:
            with progress() as bar:
                done = write(
                    spline,
                    rows,
                    out,
                    prepare=feed,
                    batch=batch,
                    shard=shard,
                    threads=threads,
                    executor="ray" if ray else "here",
                    workers=workers,
                    rank=rank,
                    world_size=world_size,
                    options=options,
                    track=tracker(bar),
                )
        except KeyboardInterrupt:
            log_console.print(GO_ON, soft_wrap=True, highlight=False)
            raise typer.Exit(130) from None
        _say(done, f"rank {rank} of {world_size}", time.perf_counter() - start)


def fitted(
    model: str,
    rows: "Stream",
    scaling: "Scaling",
    shape: tuple[int, ...] | None,
    cut: Cut,
    trusted: bool,
) -> "tuple[Spline, Feed]":
    """A network, and how rows become its inputs."""
    from maxaffine.data import first_row
    from maxaffine.report import fit

    try:
        first = first_row(rows)
    finally:
        rows.close()  # reading opens it again
    if FACTORY.fullmatch(model):
        feed = fit(first, shape, scaling)
        return captured(model, feed(first.inputs), cut), feed
    spline = loaded(model, trusted, cut)
    return spline, fit(first, spline.in_shape if shape is None else shape, scaling)


def placed(spline: "Spline", dtype: str | None, device: str, local_rank: int | None = None) -> "Spline":
    """A network in the dtype asked for, on its device."""
    spline = spline if dtype is None else spline.to(like(dtype, "cpu").dtype)
    return spline if device == "cpu" else spline.to("cuda" if local_rank is None else f"cuda:{local_rank}")


def recorded(model: str, scaling: "Scaling", cut: Cut) -> dict[str, Any]:
    """What a query needs to be encoded in the same way, for the manifest."""
    order = None if scaling.permute is None else list(scaling.permute)
    about = {"scale": scaling.factor, "mean": list(scaling.mean), "std": list(scaling.std), "permute": order}
    return {"model": model, **cut._asdict(), **about}


def _say(done: "Outcome", rank: str, seconds: float) -> None:
    """What is where; a line a row that could not be read, and exit code 1 for them."""
    out_console.print(str(done.folder), soft_wrap=True, highlight=False)
    what = f"{done.rows:,} rows in {done.shards} files, {_bytes(done.bytes)}; {done.written} written in {seconds:.1f} s"
    out_console.print(what, soft_wrap=True, highlight=False)
    if not done.complete:
        out_console.print(f"{rank} is finished, others are not", soft_wrap=True, highlight=False)
    for row in done.failed[:SHOWN]:
        say_failed(row)
    if done.failed:
        more = f" ({len(done.failed) - SHOWN} more are in manifest.json)" if len(done.failed) > SHOWN else ""
        advice = "repair them and give the same command again"
        line = f"maxaffine: {len(done.failed)} of {done.rows + len(done.failed)} rows cannot be read{more}; {advice}"
        log_console.print(line, soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1)


def say_failed(row: "Failed") -> None:
    """Print a row that could not be read."""
    line = " ".join(f"maxaffine: {row.name}: {row.reason}".split())
    log_console.print(line, soft_wrap=True, highlight=False, markup=False)


def cut_of(options: Mapping[str, Any]) -> Cut:
    """The cut that `recorded` wrote; of older folders only until. Raises InputError for anything else."""
    words = [options.get(name) for name in Cut._fields]
    if not all(word is None or isinstance(word, str) for word in words):
        raise InputError(NO_OPTIONS)
    return Cut(*words)


def scaling_of(options: Mapping[str, Any]) -> "Scaling":
    """What `recorded` wrote. Raises InputError for anything else."""
    from maxaffine.arguments import is_number
    from maxaffine.report import Scaling

    try:
        factor, order = options["scale"], options["permute"]
        mean, std, axes = (tuple(part) for part in (options["mean"], options["std"], order or ()))
    except (KeyError, TypeError):
        raise InputError(NO_OPTIONS) from None
    if not all(map(is_number, (*mean, *std, *axes, 1 if factor is None else factor))):
        raise InputError(NO_OPTIONS)
    return Scaling(factor, mean, std, None if order is None else axes)


def _bytes(size: float) -> str:
    """A size for people.

    >>> _bytes(3_840_000)
    '3.84 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
