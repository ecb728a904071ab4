"""An index in a folder: opened again, killed while it adds, damaged, on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_search import drawn, history

import maxaffine as ma
from maxaffine.search import store


def same(a: ma.CodeIndex, b: ma.CodeIndex) -> bool:
    """Whether two indexes answer alike."""
    query, k = drawn(20, 77, 7), len(a)
    if len(a) != len(b) or a.ids.tolist() != b.ids.tolist():
        return False
    (d, i), (e, j) = a.search(query, k), b.search(query, k)
    return torch.equal(d, e) and torch.equal(i, j)


def test_a_folder_holds_what_memory_holds(tmp_path: Path) -> None:
    """Every change of the index in memory, repeated on one that is opened anew each time."""
    place, before = tmp_path / "index", {}
    ma.CodeIndex.create(place, drawn(1, 0, 7)[:0])
    for index, held, data in history(3):
        mine = ma.CodeIndex.open(place)
        mine.remove([i for i in before if i not in held])
        new = [i for i in held if i not in before]
        mine.add(data[torch.tensor([held[i] for i in new])], new)
        before = dict(held)
        again = ma.CodeIndex.open(place)
        assert same(mine, index) and same(again, index)
        assert all(isinstance(part.rows, np.memmap) for part in (*mine.state.parts, *again.state.parts))
    named = {part.name for part in again.state.parts}
    assert {path.name for path in place.iterdir()} == named | {"manifest.json"}  # nothing else is left lying about


def test_running_numbers_go_on(tmp_path: Path) -> None:
    index = ma.CodeIndex.create(tmp_path / "a", drawn(5, 0))
    index.remove([3, 4])
    assert ma.CodeIndex.open(tmp_path / "a").add(drawn(2, 1)).tolist() == [5, 6]


def test_save_writes_a_second_index(tmp_path: Path) -> None:
    memory = ma.CodeIndex.build(drawn(50, 0, 7))
    first = memory.save(tmp_path / "a")
    first.remove(range(10))
    second = first.save(str(tmp_path / "b"))
    assert same(second, first) and len(memory) == 50 and "in memory" in repr(memory)
    first.add(drawn(3, 1, 7))
    assert len(ma.CodeIndex.open(tmp_path / "b")) == 40 == len(second)


def test_the_manifest_says_format_and_version(tmp_path: Path) -> None:
    ma.CodeIndex.create(tmp_path, drawn(3, 0), kind="exact")
    content = json.loads((tmp_path / "manifest.json").read_text())["maxaffine-index"]
    assert content["format"] == 1 and content["version"] == ma.__version__


def test_operators_and_kind_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    code = drawn(300, 0, 64)
    index = ma.CodeIndex.create(tmp_path / "a", code, kind="hnsw", operators="units")
    again = ma.CodeIndex.open(tmp_path / "a")
    assert "hnsw" in repr(again) and torch.equal(again.search(code, 1).ids, index.search(code, 1).ids)


# ---- killed -----------------------------------------------------------------------------------------------

ADDING = """
import sys
from test_search import drawn
import maxaffine as ma
index = ma.CodeIndex.open(sys.argv[1])
print("ready", flush=True)
for seed in range(1, 10_000):
    index.add(drawn(50, seed, 7))
    print(len(index), flush=True)
"""


def adding(place: Path) -> subprocess.Popen:
    """A process that adds fifty codes after fifty, and says how many were committed."""
    paths = [str(Path(ma.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ADDING, str(place)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed_after(place: Path, pause: float) -> None:
    """Kill it at some moment: the folder holds what was committed, and takes more."""
    ma.CodeIndex.create(place, drawn(50, 0, 7))
    with adding(place) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
    index = ma.CodeIndex.open(place)
    committed = int(said[-1]) if said else 50
    assert len(index) in (committed, committed + 50)  # killed between the commit and the word that says so
    whole = ma.CodeIndex.build(drawn(50, 0, 7))
    for seed in range(1, len(index) // 50):
        whole.add(drawn(50, seed, 7))
    assert same(index, whole)
    index.add(drawn(50, 0, 7))
    assert len(list(place.iterdir())) == len(index.state.parts) + 1  # what the dead left is taken away


def test_a_killed_process_leaves_the_last_commit(tmp_path: Path) -> None:
    killed_after(tmp_path / "index", 0.113)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_twenty_moments(tmp_path: Path, moment: int) -> None:
    killed_after(tmp_path / "index", float(np.random.default_rng(moment).uniform(0, 0.3)))


class Died(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("step", range(12))
def test_stopped_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Every write to the disk in turn is the last: the folder is as before, or, after the last one, as wanted."""
    place = tmp_path / "index"
    index = ma.CodeIndex.create(place, drawn(90, 0, 7))
    index.remove([5])
    left, done = step, []
    before, after = ma.CodeIndex.build(drawn(90, 0, 7)), ma.CodeIndex.build(drawn(90, 0, 7))
    before.remove([5])
    after.remove([5])
    after.add(drawn(30, 1, 7))

    def failing(real):
        def call(*arguments):
            if len(done) == left:
                raise Died
            done.append(real.__name__)
            return real(*arguments)

        return call

    for name in ("_written", "_settle"):
        monkeypatch.setattr(store, name, failing(getattr(store, name)))
    monkeypatch.setattr(store.os, "replace", failing(os.replace))
    died = False
    try:
        index.add(drawn(30, 1, 7))
    except Died:
        died = True
    monkeypatch.undo()
    found = ma.CodeIndex.open(place)
    assert same(found, after if "replace" in done else before)
    assert died == (step < 10)
    if "replace" not in done:
        found.add(drawn(30, 1, 7))
        assert same(ma.CodeIndex.open(place), after)


# ---- damaged ----------------------------------------------------------------------------------------------


def files_of(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good") / "index"
    index = ma.CodeIndex.create(place, drawn(90, 0, 7))
    index.remove([5])
    return place


@pytest.mark.parametrize("harm", ["half", "empty", "flip", "gone", "longer"])
def test_damage_is_seen(tmp_path: Path, good: Path, harm: str) -> None:
    assert len(files_of(good)) == 7
    for number, original in enumerate(files_of(good)):
        place = tmp_path / str(number)
        shutil.copytree(good, place)
        path = place / original.relative_to(good)
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        {
            "half": lambda p=path, d=data: p.write_bytes(d[: len(d) // 2]),
            "empty": lambda p=path: p.write_bytes(b""),
            "flip": lambda p=path, d=data: p.write_bytes(d),
            "gone": lambda p=path: p.unlink(),
            "longer": lambda p=path: p.write_bytes(p.read_bytes() + b"{}"),
        }[harm]()
        with pytest.raises(ma.errors.FileFormatError, match=r"damaged|missing") as refused:
            ma.CodeIndex.open(place)
        assert "\n" not in str(refused.value)
        if harm in ("half", "empty", "gone"):
            with pytest.raises(ma.errors.FileFormatError, match=r"damaged|missing"):
                ma.CodeIndex.open(place, verify=False)


def test_other_files_are_refused(tmp_path: Path, good: Path) -> None:
    with pytest.raises(ma.errors.FileFormatError, match="holds no index of codes"):
        ma.CodeIndex.open(tmp_path)
    with pytest.raises(ma.errors.FileFormatError, match="is not empty; open the index"):
        ma.CodeIndex.create(good, drawn(3, 0))
    (tmp_path / "file").write_text("")
    with pytest.raises(ma.errors.FileFormatError, match=r"cannot write .*file"):
        ma.CodeIndex.create(tmp_path / "file" / "index", drawn(3, 0))
    shutil.copytree(good, tmp_path / "newer")
    manifest = tmp_path / "newer" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ma.errors.FileFormatError, match=r"format 2 of maxaffine .*update maxaffine"):
        ma.CodeIndex.open(tmp_path / "newer")


def test_codes_of_another_network_are_refused(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU())
    x = torch.randn(5, 4)
    ma.CodeIndex.create(tmp_path / "a", ma.Spline(net, x[:1]).code(x))
    index = ma.CodeIndex.open(tmp_path / "a")
    torch.nn.init.normal_(net[0].weight)
    with pytest.raises(ma.errors.InputError, match="made by other weights"):
        index.search(ma.Spline(net, x[:1]).code(x), 1)
    with pytest.raises(ma.errors.InputError, match="differ in structure"):
        index.add(drawn(3, 0))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = ma.CodeIndex.create(tmp_path / "a", drawn(5, 0))
    second = ma.CodeIndex.open(tmp_path / "a")
    second.add(drawn(2, 1))
    for change in (lambda: first.add(drawn(2, 2)), lambda: first.remove([0])):
        with pytest.raises(ma.errors.InputError, match="changed by another process since it was opened; open it again"):
            change()
    assert len(first) == 5 and len(ma.CodeIndex.open(tmp_path / "a")) == 7


def test_a_reader_goes_on_when_a_writer_takes_parts_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the manifest and the parts that it names, another process commits."""
    writer = ma.CodeIndex.create(tmp_path / "a", drawn(5, 0))
    real, first = store._state, []

    def late(folder, about, verify):
        if not first:
            first.append(writer.add(drawn(50, 1)))
        return real(folder, about, verify)

    monkeypatch.setattr(store, "_state", late)
    assert len(ma.CodeIndex.open(tmp_path / "a")) == 55


FULL = """
import resource, sys
from test_search import drawn
import maxaffine as ma
index = ma.CodeIndex.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    index.add(drawn(3000, 1, 700))
except ma.errors.FileFormatError as error:
    print(error)
print(len(index), len(index.add(drawn(3, 2, 700))))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """Files above 20 kB cannot be written: the index says so, keeps what it had, and goes on."""
    ma.CodeIndex.create(tmp_path / "a", drawn(5, 0, 700))
    paths = [str(Path(ma.__file__).parents[1]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FULL, str(tmp_path / "a")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    line, rest = done.stdout.splitlines()
    assert line == f"cannot write {tmp_path / 'a'}: File too large; the index still holds the 5 codes committed before"
    assert rest == "5 3" and len(ma.CodeIndex.open(tmp_path / "a")) == 8
    assert len(list((tmp_path / "a").iterdir())) == 1 + len(ma.CodeIndex.open(tmp_path / "a").state.parts)
