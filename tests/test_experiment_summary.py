"""Statistics, tables, files and figures of a grid, on made-up results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("scipy", reason="SciPy is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from scipy import stats

from maxaffine.errors import FileFormatError, InputError
from maxaffine.experiment import records
from maxaffine.experiment.records import FILES, Histogram, Layer, Result
from maxaffine.experiment.summary import bootstrap_interval, cells, differences, t_interval
from maxaffine.experiment.table import markdown
from maxaffine.plot import experiment_templates, experiments

EPOCHS, IMAGES, CLASSES = 6, 50, 3
NUMBERS = (
    "loss",
    "train_accuracy",
    "train_cross_entropy",
    "test_accuracy",
    "test_cross_entropy",
    "off_diagonal_energy",
)
TRACED = (
    *(f"train_{n}" for n in ("inner_correct", "inner_incorrect", "cosine_between", "cosine_correct", "cosine_wrong")),
    *(f"{p}_affine_accuracy{end}" for p in ("train", "test") for end in ("", "_alone")),
    *("train_to_optimal", "train_to_optimal_centred"),
)


def result(variant="", gamma=0.0, seed=0, rate=1e-3, templates=False, random=None):
    """A finished run with random numbers."""
    random = random or np.random.default_rng([seed, int(100 * gamma), len(variant)])
    epochs = {"epoch": np.arange(EPOCHS + 1.0)}
    epochs |= {name: random.uniform(0.1, 0.9, EPOCHS + 1) for name in (*NUMBERS, *(TRACED if templates else ()))}
    epochs["loss"][0] = np.nan
    root = random.normal(size=(CLASSES, 4))
    histograms, layers = [], []
    for epoch in (0, EPOCHS) if templates else ():
        for quantity in (
            "inner_correct",
            "inner_incorrect",
            "margin",
            "cosine_between",
            "cosine_correct",
            "cosine_wrong",
        ):
            edges = np.linspace(-1, 1, 17) * 2.0 ** (seed % 2)
            histograms.append(Histogram(epoch, "train", quantity, edges, random.integers(1, 9, 16), 0.1, 0.2))
        layers.append(Layer(epoch, "act1", 8, 5 + seed, 0.5, 0.25))
    correct = random.integers(0, 2, IMAGES).astype(float)
    return Result(variant, gamma, rate, seed, 3, epochs, correct, root @ root.T, tuple(histograms), tuple(layers))


def grid(gammas=(1.0, 0.0, 0.5), seeds=(2, 0, 1), variants=("a", "b"), templates=False):
    """Runs in no particular order of gammas and seeds."""
    pairs = [(g, s) for s in seeds for g in gammas]
    mixed = [*pairs[::2], *pairs[1::2]]
    return [result(v, g, s, templates=templates) for v in variants for g, s in mixed]


def test_cells_are_the_paper_s_statistics():
    results = grid()
    found = cells(results)
    assert [(c.variant, c.gamma) for c in found] == [(v, g) for v in "ab" for g in (0.0, 0.5, 1.0)]
    for cell in found:
        runs = [r for r in results if (r.variant, r.gamma) == (cell.variant, cell.gamma)]
        last = [sum(r.epochs["test_accuracy"][k] for k in (4, 5, 6)) / 3 for r in runs]
        mean = sum(last) / 3
        assert cell.seeds == 3
        assert cell.test_accuracy == pytest.approx(mean, rel=1e-14)
        assert cell.std == pytest.approx((sum((v - mean) ** 2 for v in last) / 2) ** 0.5, rel=1e-12)
        assert cell.best == max(v for r in runs for v in r.epochs["test_accuracy"][1:])  # not before training
        train = [np.mean(r.epochs["train_accuracy"][-3:]) for r in runs]
        assert cell.gap == pytest.approx(np.mean(train) - mean, abs=1e-14)
        assert cell.test_cross_entropy == pytest.approx(np.mean([r.epochs["test_cross_entropy"][-3:] for r in runs]))
    [alone] = cells([results[0]])
    assert alone.seeds == 1 and np.isnan(alone.std)


def test_differences_are_between_equal_seeds():
    results = grid()
    found = differences(results, draws=2000)
    assert [(d.variant, d.gamma, d.seeds) for d in found] == [(v, g, 3) for v in "ab" for g in (0.5, 1.0)]
    for d in found:
        runs = {(r.gamma, r.seed): r for r in results if r.variant == d.variant}
        own = [runs[d.gamma, s].final("test_accuracy") - runs[0.0, s].final("test_accuracy") for s in range(3)]
        judge = stats.ttest_1samp(own, 0).confidence_interval(0.95)
        assert d.test_accuracy == pytest.approx((np.mean(own), judge.low, judge.high), rel=1e-10)
        images = np.mean([runs[d.gamma, s].correct - runs[0.0, s].correct for s in range(3)], axis=0)
        assert d.over_images.value == pytest.approx(images.mean(), abs=1e-14)
        brute = np.random.default_rng(1).choice(images, (4000, IMAGES)).mean(1)  # draws images one by one
        assert d.over_images[1:] == pytest.approx(np.quantile(brute, [0.025, 0.975]), abs=0.03)
        assert d.over_images.low < d.over_images.value < d.over_images.high
    missing = [r for r in results if (r.gamma, r.seed) != (0.0, 1)]
    assert {d.seeds for d in differences(missing)} == {2}
    assert differences([r for r in results if r.gamma]) == []


def test_intervals_cover():
    random, inside = np.random.default_rng(0), []
    for sample in random.normal(3, 2, (3000, 5)):
        found = t_interval(sample)
        inside.append(found.low < 3 < found.high)
    assert abs(np.mean(inside) - 0.95) < 0.014  # 3.5 standard errors
    inside = []
    for k in range(250):  # differences of correctness: -1, 0, 1 with mean 0.1
        found = bootstrap_interval(random.choice([-1, 0, 1], 300, p=[0.1, 0.7, 0.2]), 400, k)
        inside.append(found.low < 0.1 < found.high)
    assert 0.9 < np.mean(inside) < 0.99
    one = t_interval([2.0])
    assert one.value == 2 and np.isnan(one.low)
    with pytest.raises(InputError, match=r"numbers of shape \(0,\)"):
        t_interval([])


def test_files_read_back(tmp_path):
    results = [*grid(templates=True), result("plain, without templates", 0.0)]
    records.write(tmp_path, results)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.parquet" for name in FILES}
    loaded = records.load(tmp_path)
    assert len(loaded) == len(results)
    for a, b in zip(results, loaded, strict=True):
        assert [getattr(a, n) for n in (*records.NAMED, "last", "layers")] == [
            getattr(b, n) for n in (*records.NAMED, "last", "layers")
        ]
        assert a.epochs.keys() == b.epochs.keys()
        assert all(np.array_equal(a.epochs[n], b.epochs[n], equal_nan=True) for n in a.epochs)
        assert np.array_equal(a.correct, b.correct) and np.array_equal(a.gram, b.gram)
        assert len(a.histograms) == len(b.histograms)
        for h, k in zip(a.histograms, b.histograms, strict=True):
            assert np.array_equal(h.edges, k.edges) and np.array_equal(h.counts, k.counts)
            assert replace(h, edges=0, counts=0).__dict__ == replace(k, edges=0, counts=0).__dict__
    assert markdown(loaded) == markdown(results)
    records.write(tmp_path, [])
    assert records.load(tmp_path) == []
    (tmp_path / "grams.parquet").write_bytes(b"PAR1")
    with pytest.raises(FileFormatError, match=r"grams\.parquet: not a readable table"):
        records.load(tmp_path)


def test_tables_say_what_there_is():
    tables = markdown(grid(templates=True)).split("\n\n")
    assert len(tables) == 5
    assert all(len({line.count("|") for line in table.strip().splitlines()}) == 1 for table in tables)
    assert tables[0].startswith("| variant | γ | test accuracy, % |") and "| rate |" not in tables[0]
    cell = cells(grid(templates=True))[1]
    assert f"| a | 0.5 | {100 * cell.test_accuracy:.2f} | {100 * cell.std:.2f} | {100 * cell.best:.2f} |" in tables[0]
    assert "| a | 0 | `act1` | 8 | 6 | 50.0 % | 25.0 % |" in tables[4]
    assert len(markdown(grid(variants=("",))).split("\n\n")) == 2  # no templates
    assert markdown(grid(variants=("",))).startswith("| γ |")
    alone = markdown([result()])  # no pair either, and one run has no deviation
    assert len(alone.split("\n\n")) == 1 and alone.startswith("| test accuracy, % |") and "nan" not in alone


FIGURES = [
    *(getattr(experiments, name) for name in ("accuracy", "curves", "energies", "gaps", "grams", "effects")),
    *(getattr(experiment_templates, name) for name in ("bimodality", "cosines", "alignments", "towards_optimal")),
]


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_figures_are_drawn(draw, tmp_path):
    drawn = draw(grid(templates=True))
    drawn.savefig(tmp_path / "a.png", dpi=40)
    panels = [axis for axis in drawn.axes if axis.get_visible() and axis.get_label() != "<colorbar>"]
    assert panels and all(axis.has_data() and (axis.get_xlabel() or axis.get_title()) for axis in panels)


def test_figures_show_the_numbers():
    results = grid()
    left = experiments.accuracy(results).axes[0]
    mean, best = (line.get_ydata() for line in left.lines)
    assert np.allclose(mean, [100 * c.test_accuracy for c in cells(results)[:3]])
    assert np.allclose(best, [100 * c.best for c in cells(results)[:3]])
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "0.5", "1"]
    chosen = experiments.best_gamma(results, ("a", 1e-3))
    assert chosen == max((c for c in cells(results)[1:3]), key=lambda c: c.test_accuracy).gamma
    assert experiments.best_gamma(grid(gammas=(0.0,)), ("a", 1e-3)) is None


def test_histograms_of_different_bins_are_added():
    runs = [result(seed=s, templates=True) for s in (0, 1)]  # bins of width 1/8 and 1/4
    groups = [[h for r in runs for h in r.histograms if h.epoch == EPOCHS and h.quantity == "inner_correct"]]
    fine, wide = groups[0]
    joined = experiment_templates._onto(fine, wide.edges) + wide.counts
    for k in range(16):
        low, high = wide.edges[k], wide.edges[k + 1]
        inside = (fine.edges[:-1] >= low) & (fine.edges[:-1] < high)
        assert joined[k] == wide.counts[k] + fine.counts[inside].sum()


@pytest.mark.parametrize(
    ("draw", "results", "message"),
    [
        (experiments.accuracy, [], "no finished run"),
        (experiments.grams, [result()], "give both"),
        (experiments.effects, [result()], "no such pair"),
        (experiment_templates.bimodality, [result()], "no run has histograms"),
        (experiment_templates.towards_optimal, [result()], "templates of every epoch"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, results, message):
    with pytest.raises(InputError, match=message):
        draw(results)
