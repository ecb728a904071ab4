"""Partitions in files: the same cells as in memory, whoever does the work, and whatever happens to it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from net import inputs_of
from nets import BY_NAME, captured
from test_plane_degenerate import CASES
from test_plane_degenerate import captured as degenerate
from torch import nn

import maxaffine as ma
from maxaffine.distributed import CellBatch, PartitionFiles, job, manifest, parts, stream_partition, streaming, work
from maxaffine.errors import FileFormatError, InputError, MemoryBudgetError, MissingExtraError
from maxaffine.geometry.plane import PlanePartition

pytestmark = pytest.mark.skipif(find_spec("pyarrow") is None, reason='pyarrow is missing: pip install ".[distributed]"')
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is missing: pip install ".[distributed]"')
# What Ray itself leaves open or calls by old names when a local cluster starts and ends.
ray_noise = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def mlp() -> ma.Spline:
    torch.manual_seed(0)
    layers = (nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    return ma.Spline(nn.Sequential(*layers).double(), torch.zeros(1, 2, dtype=torch.float64))


def maxima() -> ma.Spline:
    """Maxima of five first: their inner walls cut the root cells."""
    torch.manual_seed(0)
    first = (nn.Linear(2, 40), nn.Unflatten(1, (1, 40)), nn.MaxPool1d(5), nn.Flatten())
    layers = (*first, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    return ma.Spline(nn.Sequential(*layers).double(), torch.zeros(1, 2, dtype=torch.float64))


def twice() -> ma.Spline:
    """Every unit has a double, in both layers."""
    torch.manual_seed(0)
    layers = (nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1))
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            layer.weight[6:], layer.bias[6:] = layer.weight[:6], layer.bias[:6]
    return ma.Spline(nn.Sequential(*layers).double(), torch.zeros(1, 2, dtype=torch.float64))


def square(reach: float = 4.0) -> ma.Plane:
    return ma.Plane.square(torch.zeros(2), torch.tensor([reach, 0.0]), torch.tensor([0.0, reach]))


OWN = {"mlp": mlp, "maxima": maxima, "twice": twice}


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "TASKS", 12)


@lru_cache
def given(name: str) -> tuple[ma.Spline, ma.Plane, PlanePartition]:
    """A network, a plane, and its partition in memory."""
    if name in OWN:
        spline, plane = OWN[name](), square()
    elif name in CASES:
        origin, u, v = (torch.tensor([float(c) for c in axis], dtype=torch.float64) for axis in CASES[name].axes)
        spline, plane = degenerate(name), ma.Plane.square(origin, u, v)
    else:
        net = BY_NAME[name]
        spline = captured(name)
        origin, u, v = inputs_of(net, 3)
        reach = 0.1 if name == "cnn" else 1.0
        plane = ma.Plane.polygon(origin, reach * u, reach * v, [(-0.5, -0.4), (0.5, -0.5), (0.6, 0.2), (0, 0.7)])
    return spline, plane, ma.partition(spline, plane)


def assert_same(files: PartitionFiles, whole: PlanePartition) -> None:
    """Every cell once, with its area, its map, and walls on which its corners lie; and the same in memory."""
    place = {name: i for i, name in enumerate(whole.codes[:].ids())}
    edges: list[list[int]] = [[] for _ in place]
    for e, c in np.argwhere(whole.neighbours >= 0):
        edges[whole.neighbours[e, c]].append(e)
    seen: list[int] = []
    for batch in files.batches():
        rows = [place[name] for name in batch.codes[:].ids()]
        seen += rows
        np.testing.assert_allclose(batch.areas, whole.areas[rows], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(batch.A, whole.A[rows], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(batch.b, whole.b[rows], rtol=1e-9, atol=1e-11)
        assert len(set(batch.names.tolist())) == len(batch)
        for i, row in enumerate(rows):
            assert_outline(batch, i, whole, row, edges[row])
    assert sorted(seen) == list(range(len(whole)))
    assert len(files) == len(whole)
    assert abs(files.area - whole.plane.area) <= 1e-9 * whole.plane.area
    loaded = files.load()
    counts = [(len(p), len(p.vertices), len(p.edges), len(p.indices)) for p in (loaded, whole)]
    assert counts[0] == counts[1]
    assert sorted(map(sorted, loaded.edge_units)) == sorted(map(sorted, whole.edge_units))


def assert_outline(batch: CellBatch, i: int, whole: PlanePartition, row: int, edges: list[int]) -> None:
    """The polygon has the corners of the cell (more only where it goes straight on), and the units of its edges.

    A unit that is zero on the whole cell and changes at an edge is named by the neighbour alone.
    """
    first, last = batch.offsets[i : i + 2]
    found = batch.corners[first:last]
    wanted = whole.vertices[whole.indices[whole.offsets[row] : whole.offsets[row + 1]]]
    gaps = np.hypot(*(wanted[:, None] - found[None]).transpose(2, 0, 1))
    assert gaps.min(1).max() < 1e-9, "a corner is missing"
    x, y = (found - found[0]).T
    area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    assert abs(area - batch.areas[i]) <= 1e-9 * abs(area) + 1e-14
    walls = [batch.walls[side] for side in range(first, last)]
    changes = [whole.edge_units[e] for e in edges]
    if all(len(w) < 2 for w in walls):
        assert len(found) == len(wanted)
        assert not all(len(c) < 2 for c in changes) or sorted(walls) == sorted(changes)
    for units in changes:
        assert not units or any(set(units) & set(w) for w in walls), "no side has a wall of an edge"


# ---- the same cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [250_000, 5])
@pytest.mark.parametrize("name", ["mlp", "maxima", "cnn", "pool_padded", "residual"])
def test_the_cells_are_those_of_the_partition_in_memory(name: str, chunk: int, tmp_path: Path) -> None:
    spline, plane, whole = given(name)
    files = stream_partition(spline, plane, tmp_path / "new" / "folder", chunk=chunk)
    assert_same(files, whole)
    assert_same(PartitionFiles.open(tmp_path / "new" / "folder"), whole)


@pytest.mark.parametrize(("tasks", "chunk"), [(64, 2), (5, 250_000), (5, 4)])
@pytest.mark.parametrize(
    "name",
    ["twice", "no bias, maxima", "scaled and opposite units", "six candidates in one point"],
)
def test_coincident_walls_survive(
    name: str, tasks: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several units change across one side; the root cells may know of some of them already."""
    monkeypatch.setattr(streaming, "TASKS", tasks)
    spline, plane, whole = given(name)
    files = stream_partition(spline, plane, tmp_path, chunk=chunk)
    assert files.setup.count > 1 and (tasks < 64 or len(files.setup.frontier.table) > 0)
    assert_same(files, whole)


def test_a_cell_of_a_maximum_is_whole_although_its_pieces_are_in_several_parts(tmp_path: Path) -> None:
    spline, plane, whole = given("maxima")
    files = stream_partition(spline, plane, tmp_path)
    rows = sum(part.pieces for part in files.parts)
    assert files.setup.merging and rows > len(whole) == len(files)
    owners: dict[int, set[int]] = {}
    for task, part in enumerate(files.parts):
        for table in parts.read_groups(parts.path_of(tmp_path, task), part):
            for name in table["cell"].to_pylist():
                owners.setdefault(name, set()).add(task)
    assert len(owners) == len(whole) and any(len(tasks) > 1 for tasks in owners.values())


def test_threads_and_progress(tmp_path: Path) -> None:
    spline, plane, whole = given("mlp")
    shown: list[int] = []

    def track(tasks, text: str) -> Iterator[int]:
        assert text == "parts of the partition"
        for task in tasks:
            shown.append(task)
            yield task

    assert_same(stream_partition(spline, plane, tmp_path, workers=2, track=track), whole)
    assert shown == list(range(len(list(tmp_path.glob("cells-*.parquet")))))


def test_processes(tmp_path: Path) -> None:
    spline, plane, whole = given("maxima")
    assert_same(stream_partition(spline, plane, tmp_path, workers=2, executor="processes"), whole)


@needs_ray
@ray_noise
def test_ray(tmp_path: Path) -> None:
    """A local Ray is started and ended; one that is connected is used and left alone; errors come back as they are."""
    import ray

    spline, plane, whole = given("maxima")
    assert_same(stream_partition(spline, plane, tmp_path / "a", executor="ray"), whole)
    assert not ray.is_initialized()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        with pytest.raises(MemoryBudgetError, match="stopped after 3 cells") as refusal:
            stream_partition(spline, plane, tmp_path / "b", executor="ray", limit=3)
        assert "\n" not in str(refusal.value)
        assert_same(stream_partition(spline, plane, tmp_path / "b", executor="ray"), whole)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_the_columns_can_be_read_without_this_library(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    spline, plane, whole = given("mlp")
    stream_partition(spline, plane, tmp_path)
    table = pq.read_table([str(path) for path in sorted(tmp_path.glob("cells-*.parquet"))])
    assert len(table) == len(whole) and abs(sum(table["area"].to_pylist()) - plane.area) < 1e-9
    names = pq.read_table(tmp_path / "units.parquet").to_pylist()
    for row in table.slice(0, 20).to_pylist():
        s, t = np.mean(row["s"]), np.mean(row["t"])
        wanted = spline(plane.embed(np.array([[s, t]])))
        assert abs(row["b"][0] + row["A"][0] * s + row["A"][1] * t - float(wanted)) < 1e-9
        code = spline.code(plane.embed(np.array([[s, t]])))
        bits = np.unpackbits(np.frombuffer(row["code"], np.uint8), bitorder="little")
        for unit in names:
            assert bits[unit["reduced"]] == code[unit["operator"]].flatten()[unit["unit"]]
        assert all(side[0] < len(names) for side in row["sides"])


# ---- interrupted ------------------------------------------------------------------------------------------


DRIVER = """
import sys, time
import test_distributed as here
from maxaffine.distributed import parts, streaming

quickly, calls = parts.bordering, []

def slowly(*arguments):
    calls.append(1)
    time.sleep(0.1 if len(calls) < 10 else 600)
    return quickly(*arguments)

parts.bordering = slowly  # in the workers, too: they import this file

def shown(tasks, text):
    for task in tasks:
        print(task, flush=True)
        yield task

if __name__ == "__main__":
    streaming.stream_partition(here.mlp(), here.square(), sys.argv[1], track=shown, executor="processes")
"""


def test_a_killed_driver_is_continued(tmp_path: Path) -> None:
    script, folder = tmp_path / "driver.py", tmp_path / "folder"
    script.write_text(DRIVER)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as driver:
        list(islice(driver.stdout, 5))  # the fifth task was asked for, so four are done
        os.kill(driver.pid, signal.SIGKILL)
    await_end_of_workers(driver.pid)
    with pytest.raises(FileFormatError, match="not finished"):
        PartitionFiles.open(folder)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("cells-*.parquet")}
    assert 4 <= len(kept) < job.Setup.load(folder).count
    spline, plane, whole = given("mlp")
    assert_same(stream_partition(spline, plane, folder), whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished part was done again"


def await_end_of_workers(session: int) -> None:
    """Until no process of the killed driver's session is left: workers end with their driver."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(session, signal.SIGKILL)
    pytest.fail("workers outlived their driver")


def test_killed_between_writing_and_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is complete but not yet in its place does not count, and is cleared away at the end."""
    spline, plane, whole = given("mlp")
    real, calls = os.replace, []

    class Killed(BaseException):
        pass

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 10:
            real(source, Path(source).with_suffix(".kept"))
            raise Killed
        real(source, target)

    monkeypatch.setattr(job.os, "replace", replace)
    with pytest.raises(Killed):
        stream_partition(spline, plane, tmp_path)
    monkeypatch.undo()
    left = next(iter(tmp_path.glob(".*.kept")))
    left = left.rename(left.with_suffix(".tmp"))
    assert left.stat().st_size > 0 and not calls[-1].exists()
    assert_same(stream_partition(spline, plane, tmp_path), whole)
    assert not list(tmp_path.glob(".*"))


def test_killed_before_the_folder_was_begun(tmp_path: Path) -> None:
    spline, plane, whole = given("mlp")
    (tmp_path / "job.npz").write_bytes(b"half of it")
    (tmp_path / ".job.npz.0.tmp").write_bytes(b"half of it")
    assert_same(stream_partition(spline, plane, tmp_path), whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_control_c_leaves_a_folder_that_can_be_continued(workers: int, tmp_path: Path) -> None:
    spline, plane, whole = given("mlp")

    def track(tasks, _text: str) -> Iterator[int]:
        yield from islice(tasks, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_partition(spline, plane, tmp_path, workers=workers, track=track)
    assert len(list(tmp_path.glob("cells-*.parquet"))) >= 3 and not list(tmp_path.glob(".*"))
    assert_same(stream_partition(spline, plane, tmp_path), whole)


def test_threads_give_up_between_two_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two threads waits inside its task until the driver gives up; it then does not finish the task."""
    spline, plane, _ = given("mlp")
    monkeypatch.setattr(streaming, "TASKS", 3)
    real_chunk, real_part, over = parts.bordering, work.write_part, threading.Event()
    tasks_of: dict[int, list[int]] = {}

    def slowly(*arguments):
        if threading.get_ident() == list(tasks_of)[-1]:
            over.wait(30)
            time.sleep(0.05)
        return real_chunk(*arguments)

    def write_part(setup, folder, task, chunks):
        tasks_of.setdefault(threading.get_ident(), []).append(task)
        if len(tasks_of) == 1:  # the other thread shall have its task before this one begins
            time.sleep(0.2)
        return real_part(setup, folder, task, chunks)

    def track(tasks, _text: str) -> Iterator[int]:
        yield from islice(tasks, 1)
        over.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "bordering", slowly)
    monkeypatch.setattr(work, "write_part", write_part)
    with pytest.raises(KeyboardInterrupt):
        stream_partition(spline, plane, tmp_path, chunk=2, workers=2, track=track)
    (task,) = list(tasks_of.values())[-1]
    assert len(tasks_of) == 2 and list(tmp_path.glob("cells-*.parquet"))
    assert not parts.path_of(tmp_path, task).exists() and not list(tmp_path.glob(".*"))


def test_a_limit_stops_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    spline, plane, whole = given("mlp")
    with pytest.raises(MemoryBudgetError, match="stopped after 50 cells") as refusal:
        stream_partition(spline, plane, tmp_path, limit=50)
    assert "\n" not in str(refusal.value) and list(tmp_path.glob("cells-*.parquet"))
    assert_same(stream_partition(spline, plane, tmp_path, limit=len(whole)), whole)


def test_a_finished_folder_is_not_cut_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spline, plane, whole = given("mlp")
    stream_partition(spline, plane, tmp_path)
    monkeypatch.setitem(streaming.EXECUTORS, "threads", None)
    assert_same(stream_partition(spline, plane, tmp_path), whole)


def test_sides_left_over_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measure of zero with which cells do not fit together: the next one is tried, then it is refused."""
    spline, plane, whole = given("mlp")
    real, wrong = parts.bordering, []

    def bordering(*arguments):
        border, whole_, links, torn = real(*arguments)
        wrong.append(1)
        return border, whole_, links + (len(wrong) == 1), torn

    monkeypatch.setattr(parts, "bordering", bordering)
    files = stream_partition(spline, plane, tmp_path / "a")
    assert files.setup.job.zero == streaming.ZEROS[1] and len(files) == len(whole)
    monkeypatch.setattr(PartitionFiles, "verify", lambda _self: False)
    with pytest.raises(ma.errors.DegenerateSliceError, match="closer together"):
        stream_partition(spline, plane, tmp_path / "b")


def test_what_does_not_fit_together_is_found(tmp_path: Path) -> None:
    """A cell too few, one too many, a side of another unit, a corner elsewhere."""
    spline, plane, _ = given("mlp")
    files = stream_partition(spline, plane, tmp_path)
    task = next(i for i, part in enumerate(files.parts) if part.border == (True,))
    path, summary = parts.path_of(tmp_path, task), files.parts[task]
    (table,) = parts.read_groups(path, summary)

    def holds(rows: list[int], unit: int = 0, shift: float = 0.0) -> bool:
        soup, bundles, _, _ = parts.as_pieces([table.take(rows)])
        soup.e[soup.e >= 0] += unit
        soup.x[0] += shift
        parts.write_part(files.setup, tmp_path, task, iter([(soup, bundles)]))
        return PartitionFiles.open(tmp_path).verify()

    every = list(range(len(table)))
    assert holds(every)
    assert not holds(every[1:]) and not holds([*every, 0])
    assert not holds(every, unit=1)
    assert not holds(every, shift=1e-3)


# ---- refused ----------------------------------------------------------------------------------------------


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    spline, plane, _ = given("mlp")
    mine, other = tmp_path / "mine", tmp_path / "other"
    stream_partition(spline, plane, mine)
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    refused = [
        (spline, square(3.0), mine, "another network or plane"),
        (given("residual")[0], given("residual")[1], mine, "another network or plane"),
        (spline, plane, other, "thesis.tex"),
        (spline, plane, other / "thesis.tex", "cannot write"),
    ]
    for one, slice_, folder, words in refused:
        with pytest.raises(FileFormatError, match=words) as refusal:
            stream_partition(one, slice_, folder)
        assert "\n" not in str(refusal.value)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_a_trained_network_is_another_network(tmp_path: Path) -> None:
    spline = mlp()
    stream_partition(spline, square(), tmp_path)
    with torch.no_grad():
        spline.captured.sources[0].read().mul_(1.5)
    with pytest.raises(FileFormatError, match="another network"):
        stream_partition(spline, square(), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("format", 2, "update maxaffine"), ("version", "9.9", "9.9"), ("fingerprint", None, "another network")],
)
def test_other_versions_are_refused(key: str, value: object, words: str, tmp_path: Path) -> None:
    spline, plane, _ = given("mlp")
    stream_partition(spline, plane, tmp_path)
    path = tmp_path / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(FileFormatError, match=words) as refusal:
        stream_partition(spline, plane, tmp_path)
    assert "\n" not in str(refusal.value)


def test_damaged_and_foreign_parts_are_named(tmp_path: Path) -> None:
    spline, plane, _ = given("mlp")
    stream_partition(spline, plane, tmp_path / "a")
    stream_partition(spline, square(2.0), tmp_path / "b")
    one, two = (parts.path_of(tmp_path / name, 3) for name in "ab")
    one.write_bytes(two.read_bytes())
    with pytest.raises(FileFormatError, match="belongs to another partition"):
        PartitionFiles.open(tmp_path / "a")
    one.write_bytes(two.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="delete it") as refusal:
        stream_partition(spline, plane, tmp_path / "a")
    assert "\n" not in str(refusal.value)
    one.unlink()
    with pytest.raises(FileFormatError, match="is missing"):
        PartitionFiles.open(tmp_path / "a")
    assert_same(stream_partition(spline, plane, tmp_path / "a"), given("mlp")[2])
    with pytest.raises(FileFormatError, match="holds no partition"):
        PartitionFiles.open(tmp_path)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A part larger than files may be; the disk's other files are finished before."""
    spline, plane, whole = given("mlp")
    list(islice(interrupted(spline, plane, tmp_path), 3))
    before = sorted(path.name for path in tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(FileFormatError, match=r"cannot write .*cells-\d+\.parquet") as refusal:
            stream_partition(spline, plane, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert_same(stream_partition(spline, plane, tmp_path), whole)


def interrupted(spline: ma.Spline, plane: ma.Plane, folder: Path) -> Iterator[int]:
    """Tasks done before it is given up."""

    def track(tasks, _text: str) -> Iterator[int]:
        yield from islice(tasks, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_partition(spline, plane, folder, track=track)
    yield from range(3)


def test_what_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    spline, plane, whole = given("mlp")
    files = stream_partition(spline, plane, tmp_path)
    with pytest.raises(MemoryBudgetError, match="batches"):
        files.load(memory=100 * len(whole))
    assert len(files.load(memory=10_000 * len(whole))) == len(whole)


def test_a_slice_inside_a_wall_is_refused_for_files_too(tmp_path: Path) -> None:
    layer = nn.Linear(3, 4).double()
    wall = layer.weight[0].detach()
    x = -layer.bias[0].detach() * wall / (wall @ wall)
    beside = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, u, v = torch.linalg.qr(torch.cat([wall[:, None], beside], 1))[0].T
    spline, plane = ma.Spline(nn.Sequential(layer, nn.ReLU()), x[None]), ma.Plane.square(x, u, v)
    messages = []
    for cut in (lambda: ma.partition(spline, plane), lambda: stream_partition(spline, plane, tmp_path)):
        with pytest.raises(ma.errors.DegenerateSliceError, match="inside its wall") as refusal:
            cut()
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


def test_a_unit_that_is_rounding_on_a_cell_is_refused_by_workers(tmp_path: Path) -> None:
    """Whether it is so all around the plane is not asked there, as ma.partition does."""
    first, second = nn.Linear(2, 3), nn.Linear(3, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.25]]).expand(3, 2))
        second.double().weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.1, 0.2, -0.3]], dtype=torch.float64))
        first.bias.zero_(), second.bias.zero_()
    layers = (first, nn.ReLU(), second, nn.ReLU(), nn.Linear(2, 1))
    spline = ma.Spline(nn.Sequential(*layers).double(), torch.zeros(1, 2, dtype=torch.float64))
    assert len(ma.partition(spline, square())) == 2
    with pytest.raises(ma.errors.DegenerateSliceError, match=r"inside its wall, or.*ma\.partition"):
        stream_partition(spline, square(), tmp_path)


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spline, plane, _ = given("mlp")
    wrong = [{"workers": 0}, {"chunk": 0}, {"limit": 0}, {"executor": "slurm"}]
    for options in wrong:
        with pytest.raises(InputError, match=next(iter(options))):
            stream_partition(spline, plane, tmp_path / "new", **options)
    with pytest.raises(InputError, match="shape"):
        stream_partition(spline, given("residual")[1], tmp_path / "new")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"maxaffine\[distributed\]"):
        stream_partition(spline, plane, tmp_path / "new", executor="ray")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"maxaffine\[distributed\]"):
        stream_partition(spline, plane, tmp_path / "other")
