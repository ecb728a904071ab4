"""``maxaffine train``: the runs of an experiment file, its tables and figures."""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maxaffine.cli.words import clean_exit, log_console, out_console, progress, tracker
from maxaffine.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maxaffine.experiment.grid import Outcome
    from maxaffine.experiment.records import Result

File = Annotated[Path, typer.Argument(help="experiment file (.toml)", metavar="EXPERIMENT")]
Out = Annotated[
    Path, typer.Option(help="folder for runs, tables (.parquet, .md) and figures; a begun one is continued")
]
Root = Annotated[Path | None, typer.Option(help="folder of the data sets; the digits need none")]
Workers = Annotated[int, typer.Option(min=1, help="processes, one torch thread each")]
Ray = Annotated[bool, typer.Option("--ray", help="train through Ray: on the connected cluster, or here")]
Quick = Annotated[bool, typer.Option("--quick", help="with what [quick] of the file changes")]
Device = Annotated[str, typer.Option(help="cpu or cuda")]

GO_ON = "stopped; what is done is kept, and the same command goes on from there"


def train(
    experiment: File,
    out: Out,
    data_root: Root = None,
    workers: Workers = 1,
    ray: Ray = False,
    quick: Quick = False,
    device: Device = "cpu",
) -> None:
    """Train the networks of an experiment: a grid of penalties, rates and seeds. Stopped, it can be continued."""
    with clean_exit("summary"):
        from maxaffine.experiment.grid import train_all
        from maxaffine.experiment.records import collect, write
        from maxaffine.experiment.runs import runs_of
        from maxaffine.experiment.specification import read
        from maxaffine.experiment.steps import Site

        described = read(experiment, quick)
        _check(device)
        _need_extras()
        runs, site, start = runs_of(described), Site(out / "runs", data_root, device), time.perf_counter()
        try:
            with progress() as bar:
                outcome = train_all(runs, site, workers=workers, kind="ray" if ray else "processes", track=tracker(bar))
        except KeyboardInterrupt:
            log_console.print(GO_ON, soft_wrap=True, highlight=False)
            raise typer.Exit(130) from None
        results = collect(runs, site)
        write(out, results)
        written = _report(out, results, described.title)
        _say(outcome, [out / "epochs.parquet", *written], time.perf_counter() - start)


def _check(device: str) -> None:
    import torch

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device {device}: give cpu" + (", no GPU is found" if device == "cuda" else " or cuda"))


def _need_extras() -> None:
    """Raise MissingExtraError now, not after hours, for a package that the files, tables and figures need."""
    from maxaffine.distributed.library import parquet
    from maxaffine.experiment.summary import t_interval
    from maxaffine.plot import figure

    parquet()
    t_interval([0.0, 1.0])
    figure((1, 1))


def _report(out: Path, results: "Sequence[Result]", title: str) -> list[Path]:
    """Print the tables, and write them and the figures that the results allow."""
    from maxaffine.experiment.table import markdown
    from maxaffine.report import staged

    if not results:
        return []
    tables = markdown(results)
    out_console.print(f"{title}\n\n{tables}", soft_wrap=True, highlight=False, markup=False)
    with staged(out, "a summary") as contents:
        contents["summary.md"] = tables.encode()
        contents |= {f"{name}.png": _png(draw) for name, (wanted, draw) in _figures(results).items() if wanted}
    for name in _figures(results):
        if f"{name}.png" not in contents:
            (out / f"{name}.png").unlink(missing_ok=True)  # of other results, which were here before
    return [out / name for name in contents]


def _figures(results: "Sequence[Result]") -> "dict[str, tuple[bool, Callable[[], Figure]]]":
    """Each figure: whether there is something to draw, and how."""
    from maxaffine.plot import experiment_templates, experiments

    several = len({result.gamma for result in results}) > 1
    paired = several and any(result.gamma == 0 for result in results)
    kept, every = (any(result.histograms for result in results), any(_traced(result) for result in results))
    table = {
        "accuracy": (several, experiments.accuracy),
        "curves": (True, experiments.curves),
        "energies": (several, experiments.energies),
        "gaps": (several, experiments.gaps),
        "grams": (paired, experiments.grams),
        "effects": (paired, experiments.effects),
        "bimodality": (kept, experiment_templates.bimodality),
        "cosines": (kept, experiment_templates.cosines),
        "alignments": (kept, experiment_templates.alignments),
        "towards_optimal": (every, experiment_templates.towards_optimal),
    }
    return {name: (wanted, lambda draw=draw: draw(results)) for name, (wanted, draw) in table.items()}


def _traced(result: "Result") -> bool:
    from math import isfinite

    values = result.epochs.get("train_to_optimal_centred")
    return values is not None and all(isfinite(v) for v in values)


def _png(draw: "Callable[[], Figure]") -> bytes:
    file = io.BytesIO()
    draw().savefig(file, format="png", dpi=110)
    return file.getvalue()


def _say(outcome: "Outcome", written: Sequence[Path], seconds: float) -> None:
    """What is where; one line a run that failed, and exit code 2 for them."""
    for path in written:
        out_console.print(str(path.resolve()), soft_wrap=True, highlight=False)
    out_console.print(f"{outcome.runs - len(outcome.failed)} of {outcome.runs} runs, {seconds:.0f} s", highlight=False)
    for name, reason in outcome.failed.items():
        log_console.print(f"maxaffine: run {name} failed: {reason}", soft_wrap=True, highlight=False, markup=False)
    if outcome.failed:
        raise typer.Exit(2)
