"""Encode, search, duplicates and neighbours on the command line, end to end, and every bad input as one line."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import maxaffine as ma
from maxaffine.cli import app, searching
from maxaffine.encoding import encode, read_codes

pytestmark = pytest.mark.skipif(find_spec("pyarrow") is None, reason='pyarrow is missing: pip install ".[search]"')

FACTORIES = """
import torch
from torch import nn

def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8))

def smooth():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU())
"""
SCALE = ("--scale", "1/255")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with factories, saved networks, rows, pictures of them, and codes by the command and from Python."""
    place = tmp_path_factory.mktemp("original")
    (place / "factories.py").write_text(FACTORIES)
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (20, 6, 6), dtype=np.uint8), generator.integers(0, 2, 20)
    x[13] = x[4]
    np.savez(place / "x.npz", x=x, y=y)
    np.save(place / "q.npy", x[3:5])
    np.save(place / "wide.npy", np.ones((2, 5), np.uint8))
    for k, (row, label) in enumerate(zip(x, y, strict=True)):
        (place / "in" / "ab"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row).save(place / "in" / "ab"[label] / f"{k:02}.png")
    Image.fromarray(x[7]).save(place / "seven.png")
    for name, seed in (("other", 1), ("net", 0)):
        torch.manual_seed(seed)
        layers = (nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
        spline = ma.Spline(nn.Sequential(nn.Flatten(), *layers), torch.zeros(1, 1, 6, 6))
        spline.save(place / f"{name}.safetensors")
    encode(spline, torch.from_numpy(x)[:, None] / 255, place / "python")
    with pytest.raises(SystemExit):
        command = ["encode", str(place / "net.safetensors"), "--data", str(place / "x.npz")]
        app([*command, "--out", str(place / "codes"), *SCALE])
    return place


@pytest.fixture
def unchanged(original, monkeypatch):
    """That folder itself as the current one, which a test must leave as it is."""
    monkeypatch.chdir(original)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return original


@pytest.fixture
def place(unchanged, tmp_path, monkeypatch):
    """A copy of it, without the codes."""
    shutil.copytree(unchanged, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("codes", "python"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *words):
    """(exit code, stdout, stderr) of one command."""
    with pytest.raises(SystemExit) as stopped:
        app(list(words))
    said = capsys.readouterr()
    return stopped.value.code, said.out, said.err


def encoded(capsys, out="codes", *words):
    code, said, err = run(capsys, "encode", "net.safetensors", "--data", "x.npz", "--out", out, *SCALE, *words)
    assert (code, err) == (0, "")
    return said


@pytest.mark.parametrize("model", ["net.safetensors", "factories:mlp"])
def test_encode_says_where_the_codes_are_and_goes_on(place, capsys, model):
    words = ("encode", model, "--data", "x.npz", "--out", "codes", *SCALE, "--batch", "4", "--shard", "8")
    words += ("--shape", "1,6,6") if model.startswith("factories") else ()
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    where, what = out.splitlines()
    assert where == str(place / "codes") and what.startswith("20 rows in 3 files, ") and "; 3 written in " in what
    x = torch.from_numpy(np.load("x.npz")["x"])[:, None] / 255
    assert bool((read_codes("codes").code == ma.load("net.safetensors").code(x)).all())
    (place / "codes/codes-000001.parquet").write_bytes(b"damaged")
    _, out, _ = run(capsys, *words)
    assert "; 1 written in " in out
    assert run(capsys, *words, "--dtype", "float64")[0] == 2
    assert bool((read_codes("codes").code == ma.load("net.safetensors").code(x)).all())


def test_ranks_as_torchrun_says_them(place, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert "rank 1 of 2 is finished, others are not" in encoded(capsys, "codes", "--shard", "8", "--batch", "4")
    monkeypatch.setenv("RANK", "0")
    assert "20 rows in 3 files" in encoded(capsys, "codes", "--shard", "8", "--batch", "4")
    assert len(read_codes("codes")) == 20


def test_control_c_keeps_what_is_finished(place, capsys, monkeypatch):
    from maxaffine.cli import encoding

    def stopping(_bar):
        def track(steps, _what):
            yield from list(steps)[:3]
            raise KeyboardInterrupt

        return track

    monkeypatch.setattr(encoding, "tracker", stopping)
    words = ("encode", "net.safetensors", "--data", "x.npz", "--out", "codes", *SCALE, "--batch", "4", "--shard", "8")
    code, out, err = run(capsys, *words)
    assert (code, out, len(err.splitlines())) == (130, "", 1) and "goes on from there" in err
    assert len(list((place / "codes").glob("*.parquet"))) == 1
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert "; 2 written in " in run(capsys, *words)[1]


def test_pictures_that_cannot_be_read_make_the_exit_code_1(place, capsys):
    for k in (3, 8):
        next((place / "in").glob(f"*/{k:02}.png")).write_bytes(b"none")
    code, out, err = run(capsys, "encode", "net.safetensors", "--data", "in", "--out", "codes", *SCALE)
    assert code == 1 and "18 rows in 1 files" in out
    first, second, last = err.splitlines()
    assert "03.png: not a readable image" in first + second and "08.png: not a readable image" in first + second
    assert last == "maxaffine: 2 of 20 rows cannot be read; repair them and give the same command again"
    code, _, err = run(capsys, "neighbours", "net.safetensors", "--data", "in", "--out", "m.png", *SCALE, "--k", "3")
    assert code == 1 and len(err.splitlines()) == 2 and (place / "m.png").stat().st_size > 1000


def test_search_by_row_by_picture_and_by_file(place, capsys):
    encoded(capsys)
    code, out, err = run(capsys, "search", "codes", "4", "seven.png", "q.npy", "--k", "2", "--out", "found.json")
    assert (code, err) == (0, "")
    found = json.loads((place / "found.json").read_text())
    assert [row["query"] for row in found[::2]] == ["row 4", "seven.png", "q.npy[0]", "q.npy[1]"]
    assert (found[0]["id"], found[0]["distance"]) == (13, 0) and 4 not in [row["id"] for row in found[:2]]
    assert {(row["id"], row["distance"]) for row in found[2:4]} >= {(7, 0.0)}
    spline, x = ma.load("net.safetensors"), torch.from_numpy(np.load("x.npz")["x"])[:, None] / 255
    whole = ma.pairwise_distance(spline.code(x[3:4]), spline.code(x))[0]
    assert [row["distance"] for row in found[4:6]] == whole.sort().values[:2].tolist()
    assert "seven.png" in out and "row 4" in out
    assert run(capsys, "search", "codes", "4", "--operators", "2", "--out", "found.csv")[0] == 0
    rows = list(csv.DictReader((place / "found.csv").read_text().splitlines()))
    whole = ma.pairwise_distance(spline.code(x[4:5]), spline.code(x), operators="2")[0]
    assert [float(row["distance"]) for row in rows] == whole.sort().values[1:11].tolist()


def test_many_answers_are_written_and_the_first_are_shown(place, capsys, monkeypatch):
    encoded(capsys)
    monkeypatch.setattr(searching, "ROWS", 3)
    code, out, _ = run(capsys, "search", "codes", "4", "7", "--k", "2", "--out", "found.json")
    assert code == 0 and "and 1 more" in out and len(json.loads((place / "found.json").read_text())) == 4
    assert "and 1 more: say --out" in run(capsys, "search", "codes", "4", "7", "--k", "2")[1]


def test_search_names_pictures_and_classes(place, capsys):
    assert run(capsys, "encode", "net.safetensors", "--data", "in", "--out", "codes", *SCALE)[0] == 0
    name = next((place / "in").glob("*/07.png")).relative_to(place / "in").as_posix()
    assert run(capsys, "search", "codes", "seven.png", "--k", "1", "--out", "f.json")[0] == 0
    (found,) = json.loads((place / "f.json").read_text())
    assert found["distance"] == 0 and (found["name"] == name or found["label"] in "ab")
    assert found["label"] == found["name"][0]


def test_duplicates(place, capsys):
    encoded(capsys)
    code, out, err = run(capsys, "duplicates", "codes", "--radius", "0", "--out", "d.json")
    assert (code, err) == (0, "") and "rows have a near-duplicate within 0" in out and "4, 13" in out
    found = json.loads((place / "d.json").read_text())
    assert {"first": 4, "second": 13, "distance": 0.0} in found
    x = torch.from_numpy(np.load("x.npz")["x"])[:, None] / 255
    distances = ma.pairwise_distance(*[ma.load("net.safetensors").code(x)] * 2)
    assert len(found) == int((distances.triu(1) + torch.ones(20, 20).tril() == 0).sum())
    run(capsys, "encode", "net.safetensors", "--data", "in", "--out", "named", *SCALE)
    assert "04.png" in run(capsys, "duplicates", "named", "--radius", "0")[1]


def test_neighbours_draws_each_depth(place, capsys):
    words = ("neighbours", "net.safetensors", "--data", "x.npz", *SCALE, "--k", "3")
    code, out, err = run(capsys, *words, "--out", "pictures/m.png", "--queries", "4,7")
    assert (code, err, out.strip()) == (0, "", str(place / "pictures/m.png"))
    with Image.open("pictures/m.png") as picture:
        assert picture.width > 300 and len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert run(capsys, *words, "--out", "m.svg", "--operators", "4")[0] == 0


def test_the_neighbours_are_the_nearest_at_each_depth(place, monkeypatch, capsys):
    from maxaffine.plot import codes

    seen = {}
    real = codes.neighbours

    def kept(images, found, queries, labels):
        seen.update(found)
        return real(images, found, queries, labels)

    monkeypatch.setattr(codes, "neighbours", kept)
    words = ("--queries", "4,7", "--k", "5", "--out", "m.png")
    assert run(capsys, "neighbours", "net.safetensors", "--data", "x.npz", *SCALE, *words)[0] == 0
    code = ma.load("net.safetensors").code(torch.from_numpy(np.load("x.npz")["x"])[:, None] / 255)
    for name in ("2", "4"):
        distances = ma.pairwise_distance(code[[4, 7]], code, operators=name)
        distances[[0, 1], [4, 7]] = np.inf
        assert np.array_equal(seen[name].distances, distances.sort(1).values[:, :5].numpy())
        assert not (seen[name].rows == np.array([[4], [7]])).any()


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


ENCODE = ("encode", "net.safetensors", "--data", "x.npz", *SCALE, "--out", "new")
DRAW = ("neighbours", "net.safetensors", "--data", "x.npz", *SCALE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("encode", "none.onnx", "--data", "x.npz", "--out", "new"), "no such file"),
        (("encode", "net.safetensors", "--data", "none.npz", "--out", "new"), "none.npz: no such file"),
        (("encode", "net.safetensors", "--data", "x.npz", "--out", "new"), "say how the network takes them"),
        (("encode", "net.safetensors", "--data", "wide.npy", "--out", "new", *SCALE), "the network takes (1, 6, 6)"),
        (("encode", "net.safetensors", "--data", "factories.py", "--out", "new"), "unknown kind of data"),
        (("encode", "factories:linear", "--data", "x.npz", "--out", "new", *SCALE), "no spline operator"),
        (("encode", "factories:smooth", "--data", "x.npz", "--out", "new", *SCALE), "piecewise affine"),
        ((*ENCODE, "--labels", "q.npy"), "labels of shape"),
        ((*ENCODE, "--batch", "3", "--shard", "4"), "no multiple of batch=3"),
        ((*ENCODE, "--dtype", "float16"), "dtype float16"),
        ((*ENCODE, "--device", "tpu"), "device tpu"),
        ((*ENCODE, "--rank", "2", "--world-size", "2"), "rank is 2"),
        ((*ENCODE[:-1], "factories.py"), "cannot write to"),
        ((*ENCODE[:-1], "."), "holds other files"),
        ((*ENCODE[:-1], "codes", "--limit", "7"), "begun with other data"),
        (("encode", "other.safetensors", *ENCODE[2:-1], "codes"), "begun with another network, or with other weights"),
        (
            ("encode", "net.safetensors", "--data", "x.npz", "--out", "codes", "--scale", "1"),
            "begun with other scaling",
        ),
        (("search", "none", "3"), "holds no codes"),
        (("search", "codes", "99"), "row 99 is not in"),
        (("search", "codes", "9" * 20), "is not in codes: there are rows 0 to 19"),
        (("search", "codes", "3", "--k", "20"), "k is 20; give a whole number from 1 to 19"),
        (("search", "codes", "none.png"), "none.png: no such file"),
        (("search", "codes", "factories.py"), "unknown kind of data"),
        (("search", "codes", "wide.npy"), "the network takes (1, 6, 6)"),
        (("search", "codes", "seven.png", "--model", "other.safetensors"), "other weights"),
        (("search", "codes", "3", "--operators", "relu"), "no spline operator is called 'relu'"),
        (("search", "codes", "3", "--out", "f.txt"), "give a file that ends in .json or .csv"),
        (("search", "python", "seven.png"), "say --model"),
        (("search", "codes", "4", "--model", "nope.onnx"), "nope.onnx: no such file"),
        (("duplicates", "none", "--radius", "0"), "holds no codes"),
        (("duplicates", "codes", "--radius", "0", "--out", "f"), "give a file that ends in"),
        ((*DRAW, "--out", "m.bmp"), "give a file that ends in .png"),
        ((*DRAW, "--out", "m.png", "--queries", "99"), "row 99 is not among"),
        ((*DRAW, "--out", "m.png", "--queries", "x"), "--queries x"),
        ((*DRAW, "--out", "m.png", "--k", "20"), "k is 20; give a whole number from 1 to 19"),
        (("neighbours", "factories:linear", *DRAW[2:], "--out", "m.png"), "no spline operator, so its codes say"),
        ((*DRAW, "--out", "m.png", "--operators", "9"), "no spline operator is called '9'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(unchanged, capsys, words, told):
    before = contents(unchanged)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and told in err
    assert err.startswith("maxaffine: ") and len(err.splitlines()) == 1 and "Traceback" not in err
    assert contents(unchanged) == before, "something was changed"


def test_a_factory_that_a_manifest_names_is_not_called(place, capsys):
    assert run(capsys, "encode", "factories:mlp", "--data", "x.npz", "--out", "codes", *SCALE)[0] == 0
    code, _, err = run(capsys, "search", "codes", "seven.png", "--k", "2")
    assert code == 2 and "not called because a file says so" in err
    assert run(capsys, "search", "codes", "seven.png", "--k", "2", "--model", "factories:mlp")[0] == 0
    assert run(capsys, "search", "codes", "7", "--k", "2")[0] == 0


@pytest.mark.parametrize("options", [{"scale": 1}, {"scale": "x", "mean": [0], "std": [1], "permute": None}])
def test_options_that_the_command_did_not_write(place, capsys, options):
    x = torch.zeros(3, 1, 6, 6)
    encode(ma.load("net.safetensors"), x, "mine", options={"model": "net.safetensors", **options})
    code, _, err = run(capsys, "search", "mine", "seven.png", "--k", "1")
    assert code == 2 and "not written by maxaffine encode" in err and len(err.splitlines()) == 1
