"""``maxaffine train`` end to end, its refusals, and the experiments of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_cli import run

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")
pytest.importorskip("sklearn", reason="the digits need scikit-learn")

from PIL import Image

from maxaffine.cli import training
from maxaffine.experiment import grid, records
from maxaffine.experiment.runs import distinct, runs_of
from maxaffine.experiment.specification import read
from maxaffine.experiment.steps import Site

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
TOML = """
title = "small"
model = { name = "mlp", widths = [8] }
data = { train = 100, test = 50 }
training = { gammas = [0, 1], learning_rates = [1e-3], seeds = 2, epochs = 3, batch = 20 }
measure = { templates = "end", template_rows = 20 }
[quick]
training = { epochs = 1, seeds = 1 }
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(TOML)
    return tmp_path


def test_an_experiment_is_trained_written_and_continued(place, capsys):
    code, out, err = run(capsys, "train", "a.toml", "--out", "x/y", "--quick")
    assert (code, err) == (0, "") and "2 of 2 runs, " in out
    code, out, err = run(capsys, "train", "a.toml", "--out", "x/y")
    assert (code, err) == (0, "")
    names = {path.name for path in (place / "x/y").iterdir()}
    figures = {"accuracy", "curves", "energies", "gaps", "grams", "effects", "bimodality", "cosines", "alignments"}
    assert names == {"runs", "summary.md"} | {f"{n}.png" for n in figures} | {f"{n}.parquet" for n in records.FILES}
    title, _, *rest = out.splitlines()
    assert title == "small" and "\n".join(rest).startswith((place / "x/y/summary.md").read_text().strip())
    assert rest[-1].startswith("4 of 4 runs, ") and str(place / "x/y/accuracy.png") in rest
    assert [(r.gamma, r.seed) for r in records.load("x/y")] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    for name in figures:
        assert len(np.unique(np.asarray(Image.open(f"x/y/{name}.png").convert("L")))) > 20
    before = {path: path.stat().st_mtime_ns for path in (place / "x/y/runs").iterdir()}
    assert len(before) == 6  # those of --quick are others
    steps = []
    again = grid.train_all(
        runs_of(read("a.toml")), Site(Path("x/y/runs")), track=lambda s, _: steps.append(len(s)) or s
    )
    assert (again.runs, again.failed, steps) == (4, {}, [0])
    assert before == {path: path.stat().st_mtime_ns for path in (place / "x/y/runs").iterdir()}
    Path("one.toml").write_text("[training]\nepochs = 1\n[data]\ntrain = 100\n[model]\nwidths = [4]")
    assert run(capsys, "train", "one.toml", "--out", "x/y")[0] == 0  # digits and a network that takes them
    assert {path.name for path in (place / "x/y").glob("*.png")} == {"curves.png"}  # no figure of the runs before


def test_a_failed_run_is_named_and_the_rest_is_written(place, capsys):
    Path("a.toml").write_text(TOML.replace("[1e-3]", "[1e-3, 1e30]"))
    code, out, err = run(capsys, "train", "a.toml", "--out", "x", "--quick")
    assert code == 2 and "2 of 4 runs, " in out and len(records.load("x")) == 2
    assert [line.split(" failed: the loss is ")[0] for line in err.splitlines()] == [
        f"maxaffine: run gamma {gamma}, rate 1e+30, seed 0" for gamma in (0, 1)
    ]
    Path("a.toml").write_text(TOML.replace("[1e-3]", "[1e30]"))
    code, out, err = run(capsys, "train", "a.toml", "--out", "none", "--quick")
    assert code == 2 and "0 of 2 runs" in out and records.load("none") == []


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (("epochs", "epoch"), (), r"a.toml, [quick]: unknown key training.epoch; known here are gammas"),
        (("[0, 1]", "[0, nan]"), (), "a.toml: training.gammas: gamma = nan: give finite numbers >= 0"),
        (("batch = 20", "batch = 25"), (), "training.batch = 25 is no multiple of the 10 classes of digits"),
        (("", ""), ("--device", "gpu"), "--device gpu: give cpu or cuda"),
        (("train = 100", 'name = "mnist"'), ("--data-root", "nowhere"), "nowhere: no such folder"),
        (("", ""), ("--out", "a.toml/x"), "cannot write to a.toml/x"),
    ],
)
def test_refusals_are_one_line(place, capsys, change, words, message):
    Path("a.toml").write_text(TOML.replace(*change) if change[0] else TOML)
    code, out, err = run(capsys, "train", "a.toml", "--out", "x", *words)
    assert (code, out) == (2, "") and err.startswith("maxaffine: ") and message in err
    assert err.count("\n") == 1 and not Path("x/summary.md").exists()


def test_a_missing_file_and_ctrl_c_are_one_line(place, capsys, monkeypatch):
    code, _, err = run(capsys, "train", "none.toml", "--out", "x")
    assert code == 2 and err.startswith("maxaffine: none.toml: cannot be read")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "train_all", interrupted)
    code, out, err = run(capsys, "train", "a.toml", "--out", "x")
    assert (code, out, err) == (130, "", training.GO_ON + "\n")


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_experiments_of_the_page_are_valid(path, quick):
    experiment = read(path, quick)
    runs = runs_of(experiment)
    assert runs and len({run.name for run in runs}) == len(runs)
    for settings in experiment.variants.values():
        assert settings.training.batch % 10 == 0
        if len(settings.training.gammas) > 1:
            assert settings.training.gammas[0] == 0  # what the others are compared with
    if path.stem == "ablation":  # gamma = 0 is trained once for all variants
        seeds = len(runs[0].settings.training.seeds)
        cells = sum(len(settings.training.gammas) - 1 for settings in experiment.variants.values())
        assert len(distinct(runs)) == seeds * (1 + cells)
