"""Experiments: their files, the training of one network, and grids that are killed and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

pytest.importorskip("pydantic", reason="pydantic is not installed")
pytest.importorskip("sklearn", reason="the digits need scikit-learn")

from maxaffine.errors import FileFormatError, InputError
from maxaffine.experiment import executors, grid, training
from maxaffine.experiment.grid import train_all
from maxaffine.experiment.records import collect
from maxaffine.experiment.rows import augmented, permuted, rows_of
from maxaffine.experiment.runs import distinct, runs_of
from maxaffine.experiment.specification import Data, Model, Training, parse, read
from maxaffine.experiment.steps import Site, advance
from maxaffine.experiment.steps import read as stored
from maxaffine.experiment.training import batches, factor, network, train_epoch, trainee
from maxaffine.experiment.uncorrected import UncorrectedAdam

TINY = {
    "model": {"name": "mlp", "widths": [8]},
    "data": {"train": 100, "test": 50},
    "training": {"epochs": 3, "batch": 20},
}
# Between them these use every source of random numbers and everything that is carried from epoch to epoch.
FULL = {
    "templates": {
        "model": {"name": "mlp", "widths": [8], "batch_norm": True},
        "penalty": {"on": "templates", "kind": "mean", "share": 0.5},
        "training": {"epochs": 3, "batch": 20, "gammas": [0.1]},
        "measure": {"templates": "epochs", "template_rows": 20, "last": 2},
    },
    "augmentation": {
        "data": {"train": 100, "test": 50, "random_labels": True},
        "training": {
            "gammas": [1],
            "balanced": False,
            "augmentation": True,
            "optimiser": "adam-uncorrected",
            "schedule": "root",
        },
    },
}


def tables(**changes):
    """The tiny experiment with some tables changed key by key."""
    return TINY | {name: TINY.get(name, {}) | table for name, table in changes.items()}


def only(content):
    """The single run of an experiment."""
    [run] = runs_of(parse(content, "a.toml"))
    return run


def same(a, b):
    """Whether two contents of run files are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b or (a != a and b != b)  # NaN is the loss of epoch 0


# --- the file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": {"gamas": [0]}}, r"a\.toml: unknown key training\.gamas; known here are gammas, learning_rates"),
        ({"trainning": {}}, r"a\.toml: unknown key trainning; known here are model, data, penalty"),
        ({"training": {"gammas": [0, -1]}}, r"a\.toml: training\.gammas: gamma = -1: give finite numbers >= 0"),
        ({"training": {"gammas": [float("nan")]}}, "gamma = nan"),
        ({"training": {"gammas": [float("inf")]}}, "gamma = inf"),
        ({"training": {"gammas": [1, 1.0]}}, "each once"),
        ({"training": {"gammas": []}}, "at least one"),
        ({"training": {"learning_rates": [0]}}, r"learning rate of 0"),
        ({"training": {"epochs": 0}}, r"training\.epochs: input should be greater than or equal to 1, got 0"),
        ({"training": {"epochs": True}}, r"training\.epochs: .* got True"),
        ({"training": {"seeds": -1}}, r"training\.seeds: -1 seeds: give 1 to 10000, or a list of them"),
        ({"training": {"seeds": 10**30}}, r"training\.seeds: 10*0 seeds: give 1 to 10000"),
        ({"training": {"gammas": 1}}, r"training\.gammas: input should be a list, got 1"),
        ({"model": 3}, r"model: input should be a table, got 3"),
        ({"training": {"seeds": [-1]}}, r"training\.seeds"),
        ({"training": {"seeds": [2**63]}}, r"training\.seeds"),
        ({"penalty": {"kind": "summ"}}, r"penalty\.kind: input should be 'sum', 'mean', .* got 'summ'"),
        ({"penalty": {"share": 0}}, r"penalty\.share"),
        ({"title": 3}, "title = 3"),
        ({"variant": [{"model": {}}]}, r"each \[\[variant\]\] needs a name"),
        ({"variant": [{"name": "x"}, {"name": "x"}]}, "two variants are called 'x'"),
        ({"variant": [{"name": "x", "penalti": {}}]}, r"a\.toml, variant 'x': unknown key penalti"),
        ({"quick": {"training": {"epoch": 1}}}, r"a\.toml, \[quick\]: unknown key training\.epoch"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(content, message):
    with pytest.raises(InputError, match=message) as found:
        parse(content, "a.toml")
    assert "\n" not in str(found.value)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a.toml"
    with pytest.raises(FileFormatError, match=r"a\.toml: cannot be read \(No such file"):
        read(path)
    path.write_text("a = ")
    with pytest.raises(FileFormatError, match=r"a\.toml: not TOML: Invalid value"):
        read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"a\.toml: cannot be read"):
        read(path)


def test_variants_and_the_quick_setting_change_single_keys(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("""
        training = { epochs = 9, batch = 30 }
        [[variant]]
        name = "wide"
        model.name = "dense_cnn"
        training.batch = 40
        [[variant]]
        name = "plain"
        [quick]
        training.epochs = 2
    """)
    full, quick = read(path).variants, read(path, quick=True).variants
    assert [(n, s.training.epochs, s.training.batch) for n, s in full.items()] == [("wide", 9, 40), ("plain", 9, 30)]
    assert [(n, s.training.epochs, s.training.batch) for n, s in quick.items()] == [("wide", 2, 40), ("plain", 2, 30)]
    assert [s.model.name for s in quick.values()] == ["dense_cnn", "mlp"]


def test_a_key_says_what_is_computed_and_no_more():
    grown = parse(tables(training={"gammas": [0, 1], "seeds": 2}, penalty={"kind": "mean"}), "a.toml")
    variants = parse({"variant": [{"name": "x"}, {"name": "y", "penalty": {"kind": "mean"}}], **TINY}, "a.toml")
    zero, one = runs_of(grown)[:2]
    assert (zero.gamma, one.gamma) == (0, 1)
    x, y = runs_of(variants)
    assert zero.key == x.key == y.key  # without a weight all penalties are the same; names and grids do not matter
    assert len(distinct([x, y])) == 1 and len({run.key for run in runs_of(grown)}) == 4
    more = tables(training={"gammas": [1], "epochs": 4}, penalty={"kind": "mean"})
    assert one.key != only(more).key
    assert replace(one, settings=only(tables(training={"gammas": [1]})).settings).key != one.key  # the sum


# --- the data


def test_rows_are_taken_in_turns_and_labels_permuted_in_the_training_part_only():
    rows = rows_of(Data(train=100, test=50), None)
    assert rows.train.shape == (100, 1, 8, 8) and rows.train.dtype == torch.float32
    assert rows.train_labels.bincount().tolist() == [10] * 10 and rows.test_labels.bincount().tolist() == [5] * 10
    assert float(rows.train.flatten(1).mean(1).abs().max()) < 1e-6
    learner = trainee(only(tables(data={"random_labels": True})), rows)
    assert learner.labels.bincount().tolist() == [10] * 10
    assert 5 <= int((learner.labels == rows.train_labels).sum()) <= 20  # 10 expected
    other = permuted(rows.train_labels, torch.Generator().manual_seed(1))
    assert not torch.equal(other, permuted(rows.train_labels, torch.Generator().manual_seed(2)))


def test_grey_is_the_mean_over_channels_and_too_few_rows_are_said(monkeypatch):
    image = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    two = type("D", (), {"inputs": image, "labels": np.array([0, 1]), "__len__": lambda _: 2})()
    monkeypatch.setattr("maxaffine.experiment.rows.files.load", lambda *_, **__: two)
    rows = rows_of(Data(name="grey", grey=True, normalise=False), None)
    assert torch.equal(rows.train, torch.from_numpy(image.mean(1, keepdims=True)).float())
    with pytest.raises(InputError, match=r"data\.train = 3: grey has 2 such rows"):
        rows_of(Data(name="grey", train=3), None)


def test_augmentation_is_a_shifted_crop_of_the_reflected_image_or_its_mirror():
    images = torch.randn(60, 2, 6, 5)
    moved = augmented(images, torch.Generator().manual_seed(0))
    seen = set()
    for image, one in zip(images.numpy(), moved.numpy(), strict=True):
        room = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        crops = {
            (i, j, f): room[:, i : i + 6, j : j + 5][..., :: -1 if f else 1]
            for i in range(5)
            for j in range(5)
            for f in (0, 1)
        }
        found = [key for key, crop in crops.items() if np.array_equal(crop, one)]
        assert found
        seen |= set(found)
    assert {f for _, _, f in seen} == {0, 1} and {i for i, _, _ in seen} == {j for _, j, _ in seen} == set(range(5))
    assert len({(i, j) for i, j, _ in seen}) > 15  # of 25: the two are drawn apart


@pytest.mark.parametrize("balanced", [True, False])
def test_batches_of_an_epoch(balanced):
    labels = torch.arange(10).repeat(11)
    drawn = [torch.stack(list(batches(Training(batch=20, balanced=balanced), labels, 3, e))) for e in (1, 1, 2)]
    assert drawn[0].shape == (5, 20)  # floor(110 / 20)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    if balanced:
        assert all(labels[batch].bincount().tolist() == [2] * 10 for batch in drawn[0])
    else:
        assert len(drawn[0].unique()) == 100  # no row twice


# --- one network


def test_adam_without_bias_correction_is_the_formula():
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))
    p, m, v = w.detach().clone().numpy(), np.zeros(4), np.zeros(4)
    optimiser = UncorrectedAdam([w], lr=0.01)
    for _ in range(20):
        w.grad = torch.randn(4, dtype=torch.float64)
        g = w.grad.numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 0.01 * m / (np.sqrt(v) + 1e-8)
        optimiser.step()
    assert np.abs(w.detach().numpy() - p).max() < 1e-14


def test_the_paper_s_steps_of_the_rate():
    assert [factor("steps", e) for e in (1, 60, 61, 120, 121, 161)] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.008])


def test_a_network_is_refused_in_one_line():
    rows = rows_of(Data(train=100, test=50), None)
    cases = {
        r"model\.name = 'cnn': known are small_cnn": tables(model={"name": "cnn"}),
        r"model\.widths: dense_cnn has no such option; it has batch_norm": tables(model={"name": "dense_cnn"}),
    }
    for message, content in cases.items():
        with pytest.raises(InputError, match=message):
            trainee(only(content), rows)


def test_batch_norms_take_the_momentum_that_is_given():
    rows = rows_of(Data(train=100, test=50), None)
    for given, wanted in (({}, 0.01), ({"momentum": 0.1}, 0.1)):
        net = network(Model(name="mlp", batch_norm=True, widths=(8, 8), **given), rows)
        assert [m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d)] == [wanted, wanted]


def test_settings_are_seen_by_the_training():
    rows, content = rows_of(Data(train=100, test=50), None), tables(training={"seeds": [4]})
    plain = trainee(only(content), rows)
    first = [p.detach().clone() for p in plain.model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, trainee(only(content), rows).model.parameters(), strict=True))
    before = torch.get_rng_state()
    train_epoch(plain, 1)
    assert torch.equal(before, torch.get_rng_state()) and not plain.model.training

    def weights(**changes):
        learner = trainee(only(tables(**changes)), rows)
        train_epoch(learner, 1)
        return torch.cat([p.detach().flatten() for p in learner.model.parameters()])

    base = weights()
    for changes in (
        {"training": {"seeds": [1]}},
        {"training": {"gammas": [1]}},
        {"training": {"gammas": [1]}, "penalty": {"kind": "norm_control"}},
        {"training": {"gammas": [1]}, "penalty": {"on": "all"}},
        {"training": {"balanced": False}},
        {"training": {"augmentation": True}},
        {"training": {"optimiser": "adam-uncorrected"}},
        {"training": {"learning_rates": [2e-3]}},
        {"data": {"random_labels": True}},
    ):
        assert not torch.equal(base, weights(**changes)), changes


def test_random_labels_are_memorized_and_true_ones_generalize(tmp_path):
    """Row 24: training accuracy 1 on permuted labels with test accuracy near chance; codes and templates beside."""
    model, training = {"name": "mlp", "widths": [64]}, {"epochs": 60, "batch": 20, "learning_rates": [0.01]}
    content = {"model": model, "training": training, "measure": {"templates": "epochs", "template_rows": 50}}
    kinds = [{"name": "true"}, {"name": "random", "data": {"random_labels": True}}]
    runs = runs_of(parse(tables(**content) | {"variant": kinds}, "a.toml"))
    assert not train_all(runs, Site(tmp_path)).failed
    true, random = collect(runs, Site(tmp_path))
    assert true.final("train_accuracy") == random.final("train_accuracy") == 1
    assert true.final("test_accuracy") > 0.8 and random.final("test_accuracy") < 0.25
    for result in (true, random):  # rows 20, 22, 23
        last = {name: values[-1] for name, values in result.epochs.items()}
        assert last["train_inner_correct"] > 0 > last["train_inner_incorrect"]
        assert last["train_affine_accuracy"] == 1 and last["train_completeness"] < 1e-3
        assert last["train_cosine_between"] < -0.05 < result.epochs["train_cosine_between"][0]
        distances = result.epochs["train_to_optimal_centred"]
        assert abs(distances[0] - 2**0.5) < 0.05 and distances[-1] < distances[0] - 0.02
        assert {h.quantity for h in result.histograms} >= {"margin", "cosine_between"}
        first, final = (next(h for h in result.histograms if h.epoch == e and h.quantity == "margin") for e in (0, 60))
        assert final.counts.sum() == first.counts.sum() == 50 * 9 and final.mean > first.mean
        [layer] = [layer for layer in result.layers if layer.epoch == 60]
        assert layer.units == 64 and 1 <= layer.codes <= last["codes"] == 50
    assert true.layers[-1].agreement_true == true.layers[-1].agreement_trained > 0.4
    assert random.layers[-1].agreement_trained < 0.3


def test_the_off_diagonal_energy_falls_with_gamma(tmp_path):
    """Row 28; and the numbers of the last layer are those of W W^T, by their definitions."""
    training = {"gammas": [0, 0.01, 1], "epochs": 30, "learning_rates": [5e-3]}
    runs = runs_of(parse(tables(training=training), "a.toml"))
    train_all(runs, Site(tmp_path))
    none, some, much = collect(runs, Site(tmp_path))
    energies = [result.final("off_diagonal_energy") for result in (none, some, much)]
    assert energies[0] > 2 * energies[1] > 20 * energies[2] > 0
    off = some.gram - np.diag(np.diag(some.gram))
    assert some.epochs["off_diagonal_energy"][-1] == pytest.approx((off**2).sum() / 90, rel=1e-12)
    assert some.epochs["orthogonality_sum"][-1] == pytest.approx((off**2).sum(), rel=1e-12)
    assert some.epochs["row_norm_most"][-1] == pytest.approx(np.diag(some.gram).max() ** 0.5, rel=1e-12)


# --- grids


@pytest.mark.parametrize("name", FULL)
def test_one_epoch_at_a_time_is_the_same_to_the_bit(name, tmp_path):
    run = only(TINY | FULL[name])
    whole, pieces = Site(tmp_path / "whole"), Site(tmp_path / "pieces")
    for site in (whole, pieces):
        site.folder.mkdir()
    assert advance(run, whole, seconds=1e9) == run.epochs
    steps = 0
    while advance(run, pieces, seconds=0) < run.epochs:
        torch.manual_seed(steps)  # the state of torch's own generator does not matter
        steps += 1
    assert steps == run.epochs - 1
    assert same(stored(whole.file(run)), stored(pieces.file(run)))


CHILD = """
import sys
from pathlib import Path
from maxaffine.experiment.runs import runs_of
from maxaffine.experiment.grid import train_all
from maxaffine.experiment.specification import read
from maxaffine.experiment.steps import Site
if __name__ == "__main__":
    train_all(runs_of(read(sys.argv[1])), Site(Path(sys.argv[2])))
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    (tmp_path / "a.toml").write_text("""
        model = { name = "mlp", widths = [8], batch_norm = true }
        data = { train = 100, test = 50 }
        training = { epochs = 40, batch = 20, gammas = [1] }
    """)
    (tmp_path / "child.py").write_text(CHILD)
    [run] = runs_of(read(tmp_path / "a.toml"))
    killed, whole = Site(tmp_path / "killed"), Site(tmp_path / "whole")
    words = [sys.executable, str(tmp_path / "child.py"), str(tmp_path / "a.toml"), str(killed.folder)]
    with subprocess.Popen(words) as child:
        while not killed.file(run).exists() and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    begun = len(stored(killed.file(run))["epochs"])
    assert 2 <= begun < 41  # in the middle
    for site in (killed, whole):
        assert not train_all([run], site).failed
    assert same(stored(killed.file(run)), stored(whole.file(run)))


def test_two_workers_give_what_one_gives(tmp_path):
    runs = runs_of(parse(tables(training={"gammas": [0, 1], "seeds": 2}), "a.toml"))
    seen = []
    for workers in (1, 2):
        steps = []
        outcome = train_all(
            runs, Site(tmp_path / str(workers)), workers=workers, track=lambda s, _, n=steps: (n.append(len(s)), *s)[1:]
        )
        assert (outcome.runs, outcome.failed, steps) == (4, {}, [12])
        seen.append([stored(Site(tmp_path / str(workers)).file(run)) for run in runs])
    assert same(*seen)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is missing")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_ray_gives_what_one_process_gives(tmp_path):
    runs = runs_of(parse(tables(training={"learning_rates": [1e-3, 1e30], "epochs": 2}), "a.toml"))
    here, there = Site(tmp_path / "here"), Site(tmp_path / "there")
    assert list(train_all(runs, here).failed) == list(train_all(runs, there, workers=2, kind="ray").failed)
    assert same(stored(here.file(runs[0])), stored(there.file(runs[0])))


def test_a_failed_run_is_named_and_the_others_are_kept(tmp_path):
    runs = runs_of(parse(tables(training={"learning_rates": [0.03, 1e30], "seeds": 2}), "a.toml"))
    outcome = train_all(runs, Site(tmp_path))
    assert outcome.runs == 4 and set(outcome.failed) == {f"gamma 0, rate 1e+30, seed {s}" for s in (0, 1)}
    assert all(reason.startswith("the loss is ") for reason in outcome.failed.values())
    results = collect(runs, Site(tmp_path))
    assert [result.rate for result in results] == [0.03, 0.03]
    for result in results:  # of the 3 last epochs, image by image
        assert result.correct.shape == (50,) and set((3 * result.correct).round(9)) <= {0, 1, 2, 3}
        assert result.correct.mean() == pytest.approx(result.final("test_accuracy"), abs=1e-12)
        assert len(set(result.epochs["test_accuracy"][1:])) > 1


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_run_whose_process_dies_is_tried_once_more(deaths, tmp_path, monkeypatch):
    class Mortal(executors.Here):
        left = deaths

        def collect(self):
            if type(self).left:
                type(self).left -= 1
                return [(self._waiting.pop(0), executors.DiedError("its process was killed"))]
            return super().collect()

    monkeypatch.setattr(grid, "executor", lambda *given: Mortal(given[1]))
    outcome = train_all([only(TINY)], Site(tmp_path))
    died = {"gamma 0, rate 0.001, seed 0": "DiedError: its process was killed"}
    assert outcome.failed == (died if deaths == 2 else {})


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_death_of_a_process_is_seen(tmp_path, monkeypatch):
    import multiprocessing

    run = only(tables(training={"epochs": 100_000}))
    crew = executors.Processes(Site(tmp_path), 1)
    crew.submit(run)
    [process] = set(multiprocessing.active_children()) - crew._others
    process.kill()
    [(found, result)] = crew.collect()
    crew.close()
    assert found is run and isinstance(result, executors.DiedError)


def test_what_does_not_fit_is_refused_before_the_first_epoch(tmp_path):
    cases = {
        r"training\.batch = 25 is no multiple of the 10 classes of digits; give 20, or balanced = false": tables(
            training={"batch": 25}
        ),
        r"training\.batch = 200: there are 100 rows to train on": tables(training={"batch": 200}),
        r"data\.train = 5000: digits has 1437 such rows": tables(data={"train": 5000}),
        r"share=0\.5": tables(penalty={"share": 0.5}),
        r"load\('mnist'\): give root=": tables(data={"name": "mnist"}),
        r"load\('nothing'\): known are": tables(data={"name": "nothing"}),
    }
    for message, content in cases.items():
        with pytest.raises(InputError, match=message):
            train_all([only(content)], Site(tmp_path))
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="kind = 'cloud'"):
        train_all([only(TINY)], Site(tmp_path), kind="cloud")
    train_all([only(tables(training={"batch": 25, "balanced": False}))], Site(tmp_path))


def test_training_leaves_torch_as_it_was(tmp_path):
    def settings():
        cudnn = torch.backends.cudnn
        flags = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
        return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), *flags

    before, state = settings(), torch.get_rng_state()
    with training.repeatable("cuda"):
        assert not torch.backends.cudnn.allow_tf32
    advance(only(TINY), Site(tmp_path))
    assert settings() == before and torch.equal(torch.get_rng_state(), state)


def test_a_run_of_other_data_or_versions_does_not_go_on(tmp_path):
    site, run = Site(tmp_path), only(TINY)
    advance(run, site, seconds=0)
    content = stored(site.file(run))
    names = {"digest": "other data", "torch": "torch x", "version": "maxaffine x"}
    names["device"] = "device x, this one is cpu"
    for key, message in names.items():
        torch.save(content | {key: "x"}, site.file(run))
        with pytest.raises(FileFormatError, match=f"was begun with {message}"):
            advance(run, site)
    torch.save(content | {"format": 2}, site.file(run))
    with pytest.raises(FileFormatError, match="has format 2, this version reads 1"):
        train_all([run], site)
    site.file(run).write_bytes(site.file(run).read_bytes()[:1000])
    with pytest.raises(FileFormatError, match="not a readable run"):
        train_all([run], site)
