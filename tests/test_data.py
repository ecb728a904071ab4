"""Data files: every kind is read back as it was written, and everything else is refused in one line."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from maxaffine.data import Dataset, read
from maxaffine.errors import FileFormatError, InputError
from maxaffine.report.feed import Feed, Scaling, describe, fit

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


def idx(values: np.ndarray, kind: int, code: str) -> bytes:
    """Write IDX by the letter of its description: magic, sizes, big-endian values in row-major order."""
    header = bytes([0, 0, kind, values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    return header + b"".join(struct.pack(f">{code}", v) for v in values.ravel())


def save_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{k:02}.png")


@pytest.mark.parametrize(
    ("kind", "code", "dtype"),
    [(8, "B", np.uint8), (0xB, "h", np.int16), (0xC, "i", np.int32), (0xE, "d", float)],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_of_every_type_is_read_back(tmp_path, kind, code, dtype, zipped):
    values = RNG.integers(0, 200, (5, 3, 4)).astype(dtype)
    labels = np.array([4, 0, 1, 2, 3], dtype=np.uint8)
    pack = gzip.compress if zipped else bytes
    rows, marks = (tmp_path / f"t10k-{n}-ubyte{'.gz' * zipped}" for n in ("images-idx3", "labels-idx1"))
    rows.write_bytes(pack(idx(values, kind, code)))
    marks.write_bytes(pack(idx(labels, 8, "B")))
    data = read(rows, marks)
    assert data.inputs.dtype == dtype
    assert np.array_equal(data.inputs, values)
    assert data.labels is not None
    assert data.labels.tolist() == [4, 0, 1, 2, 3]


def test_npz_brings_its_labels_and_limit_keeps_the_first_rows(tmp_path):
    x = RNG.normal(size=(6, 2))
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(6)[:, None])
    data = read(tmp_path / "d.npz", limit=4)
    assert np.array_equal(data.inputs, x[:4])
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3]


def test_real_valued_targets_stay_real(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    (tmp_path / "y.txt").write_text("0.5\n1\n2\n")
    labels = read(tmp_path / "x.npy", tmp_path / "y.txt").labels
    assert labels is not None
    assert labels.dtype == np.float64
    assert labels.tolist() == [0.5, 1, 2]


def test_folders_are_classes_and_are_taken_in_turn(tmp_path):
    grey = RNG.integers(0, 255, (2, 6, 5), dtype=np.uint8)
    save_images(tmp_path / "set" / "dog", grey[:1])
    save_images(tmp_path / "set" / "cat", grey)
    data = read(tmp_path / "set")
    assert data.classes == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]
    assert np.array_equal(data.inputs, grey[[0, 0, 1]])
    assert len(read(tmp_path / "set", limit=2)) == 2


def test_colour_images_have_their_channels_first(tmp_path):
    colour = RNG.integers(0, 255, (2, 6, 5, 3), dtype=np.uint8)
    save_images(tmp_path / "set", colour)
    data = read(tmp_path / "set")
    assert data.labels is None
    assert np.array_equal(data.inputs, colour.transpose(0, 3, 1, 2))


def broken(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


GOOD_IDX = idx(np.ones((2, 3, 3), np.uint8), 8, "B")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", b"no zip"),
        ("a.npy", b"\x93NUMPY\x01\x00 cut off"),
        ("a.npy", b""),
        ("a.csv", b"1,2"),
        ("a.idx", b"\1\2\3\4"),
        ("a.idx", b""),
        ("a.idx", GOOD_IDX[:-1]),
        ("a.idx", GOOD_IDX + b"x"),
        ("a-ubyte.gz", b"no gzip"),
        ("a-ubyte.gz", gzip.compress(GOOD_IDX, mtime=0)[:-9]),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path, name, content):
    path = broken(tmp_path, name, content)
    with pytest.raises(FileFormatError, match=name) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match=r"a\.npy"):
        read(tmp_path / "a.npy")


def test_an_npz_without_x_says_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.ones((2, 2)))
    with pytest.raises(FileFormatError, match=r"holds images; save rows as x"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.zeros((4, 0)), r"shape \(4, 0\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.array([["a", "b"]]), "give real numbers"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), "row 1 holds NaN"),
        (np.array([[np.inf]]), "row 0 holds NaN or infinite"),
    ],
)
def test_unusable_rows_are_refused(tmp_path, rows, message):
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4), r"shape \(4,\) for 3 rows"),
        (np.zeros((3, 2)), r"shape \(3, 2\) for 3 rows"),
        (np.array([0, np.nan, 1]), "NaN"),
        (np.array(["a", "b", "c"]), "finite numbers"),
    ],
)
def test_unusable_labels_are_refused(tmp_path, labels, message):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "y.npy", labels)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.npy", tmp_path / "y.npy")


def test_missing_and_empty_places_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "none.npz", "no such file"), (tmp_path / "empty", "no PNG or JPEG")):
        with pytest.raises(FileFormatError, match=message):
            read(path)


def test_images_must_share_their_shape_and_be_whole(tmp_path):
    save_images(tmp_path / "set", np.zeros((1, 6, 5), np.uint8))
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "set" / "zz.png")
    with pytest.raises(InputError, match=r"zz\.png: shape \(5, 6\)"):
        read(tmp_path / "set")
    (tmp_path / "set" / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(FileFormatError, match=r"zz\.png"):
        read(tmp_path / "set")


def dataset(rows: np.ndarray) -> Dataset:
    return Dataset(rows, None, (), "rows.npy")


def test_feed_scales_permutes_and_reshapes():
    rows = RNG.integers(0, 255, (2, 4, 5, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    feed = fit(dataset(rows), (3, 4, 5), Scaling(1 / 255, mean, std, (2, 0, 1)))
    x = feed(rows)
    for n, c, h, w in np.ndindex(2, 3, 4, 5):
        assert x[n, c, h, w].item() == pytest.approx((rows[n, h, w, c] / 255 - mean[c]) / std[c], abs=1e-15)
    assert np.array_equal(feed.stored_order(np.arange(60).reshape(3, 4, 5), (4, 5, 3))[1, 2], [7, 27, 47])


def test_channels_of_the_first_axis_come_before_those_of_the_last():
    rows = np.ones((1, 3, 2, 3))
    x = Feed((3, 2, 3), mean=(0.0, 1.0, 2.0))(rows)
    assert x[0, :, 0, 0].tolist() == [1, 0, -1]


@pytest.mark.parametrize("shape", [(784, 1), (784,), (1, 28, 28), (28, 28, 1), (1, 1, 784, 1)])
def test_a_row_is_reshaped_in_row_major_order(shape):
    rows = RNG.normal(size=(2, 28, 28))
    feed = fit(dataset(rows), shape, Scaling())
    assert tuple(feed(rows).shape) == (2, *shape)
    assert np.array_equal(feed(rows).numpy().ravel(), rows.ravel())
    assert describe(feed, (28, 28)).startswith("x = row; rows of 28 × 28 reshaped to")


@pytest.mark.parametrize(
    ("rows", "shape", "scaling", "message"),
    [
        (np.ones((1, 4), np.uint8), (4,), Scaling(), "--scale 1/255"),
        (np.ones((1, 5)), (4,), Scaling(), "5 values"),
        (np.ones((1, 4, 5, 3)), (3, 4, 5), Scaling(), "--permute"),
        (np.ones((1, 4, 5, 3)), None, Scaling(permute=(0, 1)), "not an order"),
        (np.ones((1, 4, 5, 3)), None, Scaling(mean=(1.0, 2.0)), "mean has 2 values"),
        (np.ones((1, 4)), None, Scaling(std=(0.0,)), "no std of 0"),
        (np.ones((1, 4)), None, Scaling(factor=0.0), "other than 0"),
    ],
)
def test_a_feed_that_would_guess_is_refused(rows, shape, scaling, message):
    with pytest.raises(InputError, match=message):
        fit(dataset(rows), shape, scaling)
