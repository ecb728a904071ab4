"""Codes of data sets in files: the same codes as in memory, whatever holds the rows and whatever happens to the job."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine import data as readers
from maxaffine.encoding import Outcome, encode, iterate_codes, job, plan, read_codes
from maxaffine.errors import FileFormatError, InputError, MemoryBudgetError, MissingExtraError

pytestmark = pytest.mark.skipif(find_spec("pyarrow") is None, reason='pyarrow is missing: pip install ".[search]"')
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason='Ray is missing: pip install ".[distributed]"')
ray_noise = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
SHARDS = {"batch": 4, "shard": 8}


@lru_cache
def network() -> ma.Spline:
    """Two kinds of operators: four pieces a maximum, two a ReLU."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 11), nn.ReLU())
    return ma.Spline(nn.Sequential(*layers), torch.zeros(1, 1, 6, 6))


def bytes_of(rows: int = 30) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (rows, 6, 6), dtype=np.uint8), generator.integers(0, 3, rows)


def prepared(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.reshape(-1, 1, 6, 6).astype(np.float32) / 255)


def folder_digest(folder: Path) -> str:
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    return hashlib.sha256(repr(files).encode()).hexdigest()


def pictures(folder: Path, rows: np.ndarray, labels: np.ndarray) -> Path:
    from PIL import Image

    for k, (row, label) in enumerate(zip(rows, labels, strict=True)):
        (folder / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row).save(folder / "abc"[label] / f"{k:03}.png")
    return folder


def png(row: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(row).save(file, "png")
    return file.getvalue()


def archive(path: Path, rows: np.ndarray, labels: np.ndarray, first: int = 0) -> Path:
    with tarfile.open(path, "w") as tar:
        for k, (row, label) in enumerate(zip(rows, labels, strict=True)):
            kinds = {"png": png(row), "cls": str(label).encode()} if k % 2 else {"json": b'{"label": %d}' % label}
            npy = io.BytesIO()
            np.save(npy, row)
            for ending, raw in (kinds if k % 2 else kinds | {"npy": npy.getvalue()}).items():
                info = tarfile.TarInfo(f"set.1/{k + first:03}.{ending}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
    return path


def idx(rows: np.ndarray) -> bytes:
    return bytes([0, 0, 8, rows.ndim]) + np.array(rows.shape, ">u4").tobytes() + rows.astype(np.uint8).tobytes()


def stored(kind: str, place: Path, rows: np.ndarray, labels: np.ndarray) -> tuple[object, Path | None]:
    """The rows in a source of each kind, and the file of their labels where they have one."""
    beside = place / "labels-ubyte"
    beside.write_bytes(idx(labels))
    if kind == "npz":
        np.savez_compressed(place / "x.npz", x=rows, y=labels)
        return place / "x.npz", None
    if kind == "npy":
        np.save(place / "x.npy", rows)
        return str(place / "x.npy"), beside
    if kind == "idx":
        (place / "x-ubyte.gz").write_bytes(gzip.compress(idx(rows)))
        return place / "x-ubyte.gz", beside
    if kind == "tar":
        return archive(place / "x.tar", rows, labels), None
    if kind == "tars":
        (place / "tars").mkdir()
        archive(place / "tars" / "0.tar", rows[:11], labels[:11])
        archive(place / "tars" / "1.tar", rows[11:], labels[11:], 11)
        return place / "tars", None
    if kind == "pairs":
        return list(zip(rows, labels, strict=True)), None
    if kind == "held":
        return readers.Dataset(rows, labels, ("a", "b", "c"), "held"), None
    assert kind == "hugging face"
    datasets = pytest.importorskip("datasets")
    columns = {"image": [{"bytes": png(row), "path": None} for row in rows], "label": labels.tolist()}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(place / "hf")
    return place / "hf", None


KINDS = ["npz", "npy", "idx", "tar", "tars", "pairs", "held", "hugging face"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_codes_of_its_rows(kind: str, tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source, beside = stored(kind, tmp_path, rows, labels)
    done = encode(network(), source, tmp_path / "codes", prepare=prepared, labels=beside, **SHARDS)
    assert done == Outcome(tmp_path / "codes", 30, 4, 4, done.bytes, (), True)
    found = read_codes(tmp_path / "codes")
    assert bool((found.code == network().code(prepared(rows))).all())
    assert found.ids.tolist() == list(range(30)) and found.labels.tolist() == labels.tolist()
    assert found.code.weights == network().code(prepared(rows[:1])).weights
    parts = list(iterate_codes(tmp_path / "codes"))
    assert [len(part) for part in parts] == [8, 8, 8, 6]
    assert np.concatenate([part.ids for part in parts]).tolist() == list(range(30))
    assert (found.names[3] == "set.1/003") if kind.startswith("tar") else found.names == ()


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source = pictures(tmp_path / "in", rows, labels)
    encode(network(), source, tmp_path / "codes", prepare=prepared, **SHARDS)
    found, whole = read_codes(tmp_path / "codes"), readers.read(source)
    assert bool((found.code == network().code(prepared(whole.inputs))).all())
    assert found.labels.tolist() == whole.labels.tolist()
    assert all("abc".index(name[0]) == label for name, label in zip(found.names, found.labels, strict=True))
    assert json.loads((tmp_path / "codes/manifest.json").read_text())["plan"]["classes"] == ["a", "b", "c"]


def test_tensors_limits_and_rows_without_labels(tmp_path: Path) -> None:
    x = prepared(bytes_of()[0])
    encode(network(), x, tmp_path / "codes", limit=9, **SHARDS)
    found = read_codes(tmp_path / "codes")
    assert bool((found.code == network().code(x[:9])).all()) and found.labels is None
    targets = readers.Dataset(x.numpy(), np.linspace(0, 1, 30), (), "t")
    encode(network(), targets, tmp_path / "targets", **SHARDS)
    assert np.array_equal(read_codes(tmp_path / "targets").labels, targets.labels)


def test_the_columns_can_be_read_without_this_library(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows, labels = bytes_of()
    encode(network(), list(zip(rows, labels, strict=True)), tmp_path / "codes", prepare=prepared, **SHARDS)
    table = pq.read_table([str(path) for path in sorted((tmp_path / "codes").glob("*.parquet"))])
    assert table.column_names == ["id", "label", "1", "2", "5"]
    code = network().code(prepared(rows))
    bits = np.unpackbits(np.array([list(row) for row in table["5"].to_pylist()], np.uint8), axis=1)[:, :11]
    assert np.array_equal(bits, code["5"].numpy())
    bits = np.unpackbits(np.array([list(row) for row in table["1"].to_pylist()], np.uint8), axis=1)[:, :54]
    assert np.array_equal(2 * bits[:, ::2] + bits[:, 1::2], code["1"].flatten(1).numpy())
    about = json.loads(table.schema.metadata[b"maxaffine-encoded"])
    assert about["structure"] == code.structure and about["weights"] == code.weights


def test_rows_are_streamed(tmp_path: Path) -> None:
    """No more than a few batches are asked for ahead, and none is kept."""
    rows, labels = bytes_of(400)
    asked, alive = [], []

    def seen(values: np.ndarray) -> Tensor:
        asked.append(len(values))
        alive.append(sum(asked) - 4 * len(taken))
        return prepared(values)

    taken: list[int] = []

    def track(steps, _text: str) -> Iterator[int]:
        for step in steps:
            yield step
            taken.append(step)

    encode(network(), list(zip(rows, labels, strict=True)), tmp_path / "c", prepare=seen, track=track, **SHARDS)
    assert len(taken) == 100 and max(asked) == 4 and max(alive) <= 24


# ---- several at once --------------------------------------------------------------------------------------


def test_ranks_share_the_shards_and_the_last_one_finishes(tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source, one, both = list(zip(rows, labels, strict=True)), tmp_path / "one", tmp_path / "both"
    encode(network(), source, one, prepare=prepared, **SHARDS)
    first = encode(network(), source, both, prepare=prepared, rank=1, world_size=3, **SHARDS)
    assert (first.rows, first.written, first.complete) == (8, 1, False)
    with pytest.raises(FileFormatError, match="not finished"):
        read_codes(both)
    assert not encode(network(), source, both, prepare=prepared, rank=2, world_size=3, **SHARDS).complete
    last = encode(network(), source, both, prepare=prepared, rank=0, world_size=3, **SHARDS)
    assert (last.rows, last.written, last.complete) == (30, 2, True)
    assert folder_digest(one) == folder_digest(both)


@needs_ray
@ray_noise
def test_ray_and_a_worker_that_is_killed(tmp_path: Path) -> None:
    """A real local cluster of two workers; one of them is killed while it is at work."""
    rows, labels = bytes_of(120)
    source, workers = list(zip(rows, labels, strict=True)), tmp_path / "workers"
    workers.mkdir()
    encode(network(), source, tmp_path / "one", prepare=prepared, threads=1, **SHARDS)
    main, killed = os.getpid(), []

    def slowly(values: np.ndarray) -> Tensor:
        import time

        (workers / str(os.getpid())).touch()
        time.sleep(0.02 * (os.getpid() != main))
        return torch.from_numpy(values.reshape(-1, 1, 6, 6).astype(np.float32) / 255)

    def track(steps, _text: str) -> Iterator[int]:
        for step in steps:
            yield step
            others = [int(path.name) for path in workers.iterdir() if int(path.name) != main]
            if step == 3 and not killed:
                killed.append(others[0])
                os.kill(others[0], signal.SIGKILL)

    done = encode(network(), source, tmp_path / "ray", prepare=slowly, threads=1, executor="ray", track=track, **SHARDS)
    assert killed and len(list(workers.iterdir())) >= 3  # this process, two workers, and who came for the dead one
    assert (done.rows, done.written, done.complete) == (120, 15, True)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "ray")


# ---- interrupted ------------------------------------------------------------------------------------------


def killed(place: Path, rounds: int) -> None:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("killed_encoding.py")), str(place), str(rounds), "0"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    whole, *found = map(json.loads, done.stdout.splitlines())
    assert len(found) == rounds and {each["digest"] for each in found} == {whole["digest"]}
    assert any(0 < each["shards"] < whole["shards"] for each in found), "no child was killed at work"


def test_killed_at_random_moments_the_job_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    killed(tmp_path, 3)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    killed(tmp_path, 20)


def interrupted(folder: Path, after: int = 5) -> list[tuple[np.ndarray, int]]:
    """The rows of a job that was given up after some batches."""
    rows, labels = bytes_of()
    source = list(zip(rows, labels, strict=True))

    def track(steps, _text: str) -> Iterator[int]:
        yield from islice(steps, after)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(network(), source, folder, prepare=prepared, track=track, **SHARDS)
    return source


def test_control_c_leaves_a_folder_that_can_be_continued(tmp_path: Path) -> None:
    source = interrupted(tmp_path / "a")
    names = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("*.parquet")}
    assert len(names) == 2 and not list((tmp_path / "a").glob(".*"))
    (tmp_path / "a" / ".codes-000003.parquet.0.tmp").write_bytes(b"of a killed run")
    done = encode(network(), source, tmp_path / "a", prepare=prepared, **SHARDS)
    assert (done.written, done.complete) == (2, True)
    assert all((tmp_path / "a" / name).stat().st_mtime_ns == when for name, when in names.items()), "written again"
    encode(network(), source, tmp_path / "b", prepare=prepared, **SHARDS)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    assert encode(network(), source, tmp_path / "a", prepare=prepared).written == 0


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.999, "short", "empty"])
def test_a_damaged_shard_is_found_and_encoded_again(place: float | str, tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source = list(zip(rows, labels, strict=True))
    encode(network(), source, tmp_path, prepare=prepared, **SHARDS)
    before, path = folder_digest(tmp_path), tmp_path / "codes-000001.parquet"
    raw = bytearray(path.read_bytes())
    if isinstance(place, float):
        raw[int(place * len(raw))] ^= 0xFF
    path.write_bytes({"short": raw[:-40], "empty": b""}.get(str(place), bytes(raw)))
    try:
        found = read_codes(tmp_path)
    except FileFormatError as error:
        assert "codes-000001.parquet is damaged" in str(error) and "\n" not in str(error)
    else:  # a byte that nobody reads, such as the name of the program that wrote the file
        assert bool((found.code == network().code(prepared(rows))).all())
    done = encode(network(), source, tmp_path, prepare=prepared, **SHARDS)
    assert done.written == 1 or folder_digest(tmp_path) != before
    assert bool((read_codes(tmp_path).code == network().code(prepared(rows))).all())


def test_flipped_bits_anywhere_never_pass_for_codes(tmp_path: Path) -> None:
    """Every 7th byte of a shard: the codes are refused, or they are right."""
    rows, labels = bytes_of(8)
    source = list(zip(rows, labels, strict=True))
    encode(network(), source, tmp_path, prepare=prepared, **SHARDS)
    path, wanted, refused = tmp_path / "codes-000000.parquet", network().code(prepared(rows)), 0
    raw = path.read_bytes()
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        try:
            found = read_codes(tmp_path)
        except FileFormatError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert bool((found.code == wanted).all()) and found.ids.tolist() == list(range(8))
    assert refused > 50


def test_a_full_disk_is_one_line_and_can_be_continued(tmp_path: Path) -> None:
    source = interrupted(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(FileFormatError, match=r"cannot write .*codes-000002\.parquet") as refusal:
            encode(network(), source, tmp_path, prepare=prepared, **SHARDS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert encode(network(), source, tmp_path, prepare=prepared, **SHARDS).complete


# ---- rows that cannot be read -----------------------------------------------------------------------------


def test_pictures_that_cannot_be_read_are_named_and_the_job_goes_on(tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source = pictures(tmp_path / "in", rows, labels)
    names = readers.as_stream(source).files
    (source / names[5]).write_bytes(b"no picture")
    (source / names[20]).write_bytes(png(np.zeros((3, 6), np.uint8)))
    done = encode(network(), source, tmp_path / "codes", prepare=prepared, **SHARDS)
    assert (done.rows, done.complete) == (28, True)
    assert [(row.number, row.name) for row in done.failed] == [(5, names[5]), (20, names[20])]
    assert "not a readable image" in done.failed[0].reason and "(3, 6)" in done.failed[1].reason
    left = [k for k in range(30) if k not in (5, 20)]
    found = read_codes(tmp_path / "codes")
    assert found.ids.tolist() == left and found.names == tuple(names[k] for k in left)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "codes").glob("*.parquet")}
    order = [int(Path(name).stem) for name in names]
    for k in (5, 20):  # put right, they are encoded; the other shards stay
        (source / names[k]).write_bytes(png(rows[order[k]]))
    done = encode(network(), source, tmp_path / "codes", prepare=prepared, **SHARDS)
    assert (done.rows, done.written, done.failed) == (30, 2, ())
    assert bool((read_codes(tmp_path / "codes").code == network().code(prepared(rows[order]))).all())
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "codes").glob("*.parquet")}
    assert {name for name in kept if kept[name] == now[name]} == {"codes-000001.parquet", "codes-000003.parquet"}


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in ((b"a\xff.png", png(bytes_of()[0][0])), (b"b\nc.png", b"no picture"), ("é.png".encode(), b"")):
        try:
            (folder / os.fsdecode(name)).write_bytes(content)
        except OSError:
            pytest.skip("this file system takes no such names")
    done = encode(network(), folder, tmp_path / "codes", prepare=prepared)
    assert read_codes(tmp_path / "codes").names == ("a\\xff.png",)
    assert [row.name for row in done.failed] == ["b\nc.png", "é.png"]
    assert all(row.reason.startswith("not a readable image (") for row in done.failed)
    assert encode(network(), folder, tmp_path / "codes", prepare=prepared).rows == 1  # goes on


def test_a_picture_that_changed_after_it_was_encoded_is_refused(tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source = pictures(tmp_path / "in", rows, labels)
    encode(network(), source, tmp_path / "codes", prepare=prepared, **SHARDS)
    name = readers.as_stream(source).files[9]
    (source / name).write_bytes(png(np.zeros((6, 6), np.uint8)))
    with pytest.raises(FileFormatError, match=r"codes-000001\.parquet was made from files that changed"):
        encode(network(), source, tmp_path / "codes", prepare=prepared, **SHARDS)


def test_a_shard_without_a_readable_row(tmp_path: Path) -> None:
    x = prepared(bytes_of()[0]).numpy().copy()
    x[8:16, 0, 2, 2] = np.nan
    x[3, 0, 0, 0] = np.inf
    np.save(tmp_path / "x.npy", x)
    done = encode(network(), tmp_path / "x.npy", tmp_path / "codes", **SHARDS)
    assert (done.rows, len(done.failed)) == (21, 9) and done.failed[0] == (
        3,
        "x.npy[3]",
        "holds NaN or infinite values",
    )
    left = [k for k in range(30) if k != 3 and not 8 <= k < 16]
    found = read_codes(tmp_path / "codes")
    assert found.ids.tolist() == left
    assert bool((found.code == network().code(torch.from_numpy(x[left]))).all())


def test_rows_that_only_the_network_s_input_overflows(tmp_path: Path) -> None:
    x = prepared(bytes_of()[0]).numpy().astype(np.float64)
    x[8:16, 0, 1, 1] = 1e300
    x[5] = 1.0  # without contrast: 0 / 0 once it is scaled

    def scaled(rows: np.ndarray) -> Tensor:
        apart = torch.from_numpy(rows) - torch.from_numpy(rows).mean((1, 2, 3), keepdim=True)
        return apart.float() / apart.float().abs().amax((1, 2, 3), keepdim=True)

    np.save(tmp_path / "x.npy", x)
    done = encode(network(), tmp_path / "x.npy", tmp_path / "codes", prepare=scaled, **SHARDS)
    assert [row.number for row in done.failed] == [5, *range(8, 16)]
    assert done.failed[0][1:] == ("x.npy[5]", "becomes NaN or infinite as float32 input of the network")
    left = [k for k in range(30) if k != 5 and not 8 <= k < 16]
    found = read_codes(tmp_path / "codes")
    assert found.ids.tolist() == left
    assert bool((found.code == network().code(scaled(x[left]))).all())


def test_samples_of_an_archive_that_lack_something(tmp_path: Path) -> None:
    rows, _ = bytes_of(6)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for k, row in enumerate(rows):
            files = {"png": png(row), "cls": b"2"}
            files |= {1: {"cls": b"cat"}, 2: {"png": b"none"}}.get(k, {})
            for ending in {3: ("png",), 4: ("cls",)}.get(k, ("png", "cls")):
                info = tarfile.TarInfo(f"{k}.{ending}")
                info.size = len(files[ending])
                tar.addfile(info, io.BytesIO(files[ending]))
    done = encode(network(), tmp_path / "x.tar", tmp_path / "codes", prepare=prepared)
    assert [(row.number, row.reason.split(" (")[0]) for row in done.failed] == [
        (1, "its label is no whole number"),
        (2, "not a readable image"),
        (3, "has no label, other rows have one"),
        (4, "no image"),
    ]
    assert read_codes(tmp_path / "codes").ids.tolist() == [0, 5]


# ---- refused ----------------------------------------------------------------------------------------------


def test_another_job_in_the_folder_is_refused(tmp_path: Path) -> None:
    source = interrupted(tmp_path)
    rows, labels = bytes_of()
    torch.manual_seed(1)
    layers = (nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 11), nn.ReLU())
    other = ma.Spline(nn.Sequential(*layers), torch.zeros(1, 1, 6, 6))
    changed = [(255 - rows[0], labels[0]), *source[1:]]
    cases = [
        ((other, source, {}), "other weights"),
        ((network(), changed, {}), "other data"),
        ((network(), source, {"limit": 20}), "other data"),
        ((network(), source, {"prepare": lambda rows: prepared(rows) * 2}), "other scaling"),
        ((network(), source, {"batch": 2}), "batch=4, not 2"),
        ((network(), source, {"shard": 16}), "shard=8, not 16"),
        ((network().to(torch.float64), source, {}), "dtype=float32, not float64"),
    ]
    for (spline, rows_, options), words in cases:
        with pytest.raises(FileFormatError, match=words) as refusal:
            encode(spline, rows_, tmp_path, **{"prepare": prepared, **options})
        assert "\n" not in str(refusal.value)
    assert encode(network(), source, tmp_path, prepare=prepared).rows == 30


def test_a_network_with_other_constants_is_another(tmp_path: Path) -> None:
    rows, _ = bytes_of()

    def clipped(limit: float) -> ma.Spline:
        torch.manual_seed(0)
        layers = (nn.Flatten(), nn.Linear(36, 5), nn.Hardtanh(-limit, limit), nn.Linear(5, 5), nn.ReLU())
        return ma.Spline(nn.Sequential(*layers), torch.zeros(1, 1, 6, 6))

    encode(clipped(1.0), rows, tmp_path, prepare=prepared, **SHARDS)
    (tmp_path / "codes-000001.parquet").unlink()
    with pytest.raises(FileFormatError, match="begun with another network, or with other weights;"):
        encode(clipped(0.1), rows, tmp_path, prepare=prepared)
    assert encode(clipped(1.0), rows, tmp_path, prepare=prepared).written == 1


def test_images_beside_folders_are_not_left_out_in_silence(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", *bytes_of(3))
    (source / "stray.png").write_bytes(png(bytes_of()[0][0]))
    for read in (readers.as_stream, readers.read):
        with pytest.raises(FileFormatError, match=r"stray\.png\) beside folders \("):
            read(source)


def test_foreign_folders_and_shards_are_refused(tmp_path: Path) -> None:
    rows, labels = bytes_of()
    source, other = list(zip(rows, labels, strict=True)), tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    for folder, words in ((other, "thesis.tex"), (other / "thesis.tex", "cannot write")):
        with pytest.raises(FileFormatError, match=words):
            encode(network(), source, folder, prepare=prepared)
        with pytest.raises(FileFormatError, match="holds no codes"):
            read_codes(folder)
    encode(network(), source, tmp_path / "a", prepare=prepared, **SHARDS)
    encode(network(), source[:20], tmp_path / "b", prepare=prepared, **SHARDS)
    (tmp_path / "a/codes-000000.parquet").write_bytes((tmp_path / "b/codes-000000.parquet").read_bytes())
    for attempt in (read_codes, lambda folder: encode(network(), source, folder, prepare=prepared)):
        with pytest.raises(FileFormatError, match="belongs to another job"):
            attempt(tmp_path / "a")
    (tmp_path / "b/codes-000001.parquet").unlink()
    with pytest.raises(FileFormatError, match="is missing"):
        read_codes(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value", "words"), [("format", 2, "update maxaffine"), ("version", "9", "begun by maxaffine 9")]
)
def test_other_versions_are_refused(key: str, value: object, words: str, tmp_path: Path) -> None:
    source, path = interrupted(tmp_path), tmp_path / plan.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(FileFormatError, match=words):
        encode(network(), source, tmp_path, prepare=prepared)


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    source, path = interrupted(tmp_path), tmp_path / plan.NAME
    content = json.loads(path.read_text())
    content["plan"]["rows"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="was changed"):
        encode(network(), source, tmp_path, prepare=prepared)
    path.write_text("{")
    with pytest.raises(FileFormatError, match="holds no codes"):
        encode(network(), source, tmp_path, prepare=prepared)


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = bytes_of()
    x = prepared(rows)
    for options, words in [
        ({"batch": 0}, "batch is 0"),
        ({"batch": 4, "shard": 6}, "shard=6 is no multiple of batch=4; give 8"),
        ({"threads": 0}, "threads"),
        ({"workers": 0}, "workers"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
        ({"world_size": 0}, "world_size is 0"),
        ({"executor": "slurm"}, "executor='slurm'"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": 2.5}, r"limit is 2\.5"),
        ({"prepare": 5}, "prepare is 5; give a function"),
        ({"options": 5}, "options is 5; give a mapping"),
        ({"options": {"a": x}}, "options is a dict; give a mapping of what JSON can write"),
        ({"labels": "y.npy"}, "labels="),
    ]:
        with pytest.raises(InputError, match=words):
            encode(network(), x, tmp_path / "new", **options)
    linear = ma.Spline(nn.Linear(3, 2), torch.zeros(1, 3))
    for spline, source, words in [
        (network(), rows, "whole numbers"),
        (network(), x[:, 0], "give prepare="),
        (network(), x[:0], "at least one row"),
        (network(), torch.zeros(3), "at least one row"),
        (network(), [], "is empty"),
        (network(), iter([1]), "no len"),
        (linear, torch.zeros(4, 3), "no spline operator"),
        (network(), x.bfloat16(), r"bfloat16 .* use data\.to\(torch\.float32\)"),
        (network(), x.to_sparse(), "data is a torch.float32 sparse_coo tensor"),
        (5, x, "spline is 5"),
    ]:
        with pytest.raises(InputError, match=words) as refusal:
            encode(spline, source, tmp_path / "new")
        assert "\n" not in str(refusal.value)
    smooth = ma.Spline(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2), nn.ReLU()), torch.zeros(1, 3))
    with pytest.raises(ma.errors.NotPiecewiseAffineError):
        encode(smooth, torch.zeros(4, 3), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    encode(network(), x, tmp_path / "codes")
    with pytest.raises(MemoryBudgetError, match="iterate_codes"):
        read_codes(tmp_path / "codes", memory=100)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"maxaffine\[search\]"):
        encode(network(), x, tmp_path / "other")


def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = bytes_of(4)
    np.save(tmp_path / "cut.npy", rows)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-5])
    np.save(tmp_path / "columns.npy", np.asfortranarray(rows))
    np.savez(tmp_path / "other.npz", z=rows)
    (tmp_path / "cut-ubyte.gz").write_bytes(gzip.compress(idx(rows))[:-20])
    (tmp_path / "short-ubyte").write_bytes(idx(rows)[:-20])
    (tmp_path / "bad-ubyte").write_bytes(b"\0\0")
    (tmp_path / "x.csv").write_text("1,2")
    (tmp_path / "x.tar").write_bytes(gzip.compress(archive(tmp_path / "y.tar", rows, labels).read_bytes()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/1.png").write_bytes(b"none")
    (tmp_path / "several/train").mkdir(parents=True)
    (tmp_path / "several/dataset_dict.json").write_text("{}")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/dataset_info.json").write_text("{}")
    np.save(tmp_path / "labels.npy", labels)
    for name, words in [
        ("none.npy", "no such file"),
        ("cut.npy", "bytes promised"),
        ("columns.npy", "ascontiguousarray"),
        ("other.npz", "holds z"),
        ("cut-ubyte.gz", "cut off|missing"),
        ("short-ubyte", "missing"),
        ("bad-ubyte", "IDX header"),
        ("x.csv", "unknown kind"),
        ("x.tar", "not a readable .tar"),
        ("empty", "no PNG or JPEG image"),
        ("broken", "none of 1 rows can be read"),
        ("several", "such as .*several/train"),
    ]:
        with pytest.raises(FileFormatError, match=words) as refusal:
            encode(network(), tmp_path / name, tmp_path / "codes" / name, prepare=prepared)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="holds its own labels"):
        encode(network(), tmp_path / "y.tar", tmp_path / "codes/y", labels=tmp_path / "labels.npy")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"maxaffine\[datasets\]"):
        encode(network(), tmp_path / "hf", tmp_path / "codes/hf")


def test_threads_are_put_back(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    x = prepared(bytes_of()[0])

    def track(steps, _text: str) -> Iterator[int]:
        for step in steps:
            seen.append(torch.get_num_threads())
            yield step

    wanted = before + 1
    encode(network(), x, tmp_path, threads=wanted, track=track, **SHARDS)
    assert torch.get_num_threads() == before and set(seen[1:]) == {wanted}
    assert job.encode is encode
