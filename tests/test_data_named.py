"""Well-known data sets: tiny files of every layout are read back, and every broken one is refused in one line."""

import builtins
import gzip
import io
import pickle
import struct
import sys

import numpy as np
import pytest
from assets import asset, cifar_test, mnist_test, needs_assets

from maxaffine.data import Dataset, load
from maxaffine.data.pickles import ALLOWED, read_pickle
from maxaffine.errors import FileFormatError, InputError, MissingExtraError

RNG = np.random.default_rng(0)


def bytes_of(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def idx(values):
    return bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape) + values.tobytes()


def mnist(root, inside="MNIST/raw", n=12, pack=bytes, ending=""):
    """The four files; returns what was written, by part."""
    folder = root / inside
    folder.mkdir(parents=True)
    written = {}
    for part in ("train", "t10k"):
        images, labels = bytes_of(n, 28, 28), np.arange(n, dtype=np.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
        written[part] = images, labels
    return written


def planes(n):
    """Images as CIFAR stores them, (n, 3072): the red plane row by row, then green, then blue."""
    return bytes_of(n, 3072)


def cifar10(root, protocol=4, n=5):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    written = {}
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        data, labels = planes(n), [(k + i) % 10 for i in range(n)]
        batch = {"batch_label": name, "data": data, "labels": labels, "filenames": ["a.png"] * n}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
        written[name] = data, labels
    return written


def cifar100(root, n=4):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"thing {k}" for k in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names, "coarse_label_names": ["x"] * 20}))
    data, labels = planes(n), [99, 0, 7, 42]
    for name in ("train", "test"):
        found = {"data": data if name == "train" else data[::-1], "fine_labels": labels, "coarse_labels": [0] * n}
        (folder / name).write_bytes(pickle.dumps(found))
    return data, labels, names


def check(data, images, labels):
    assert isinstance(data, Dataset)
    assert data.inputs.dtype == np.uint8
    assert np.array_equal(data.inputs, images)
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == list(labels)


def pixel_by_pixel(rows):
    """(n, 3072) -> (n, 3, 32, 32) by the publishers' words: 1024 red values row by row, 1024 green, 1024 blue."""
    images = np.empty((len(rows), 3, 32, 32), np.uint8)
    for channel, y, x in np.ndindex(3, 32, 32):
        images[:, channel, y, x] = rows[:, 1024 * channel + 32 * y + x]
    return images


@pytest.mark.parametrize(("name", "inside"), [("mnist", "MNIST/raw"), ("fashion", "FashionMNIST/raw")])
@pytest.mark.parametrize(("pack", "ending"), [(bytes, ""), (gzip.compress, ".gz")])
def test_mnist_and_fashion(tmp_path, name, inside, pack, ending):
    written = mnist(tmp_path, inside, pack=pack, ending=ending)
    for train, part in ((True, "train"), (False, "t10k")):
        images, labels = written[part]
        for root in (tmp_path, str(tmp_path / inside)):
            check(load(name, root, train=train), images[:, None], labels)
    assert len(load(name, tmp_path).classes) == 10


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar10(tmp_path, protocol):
    written = cifar10(tmp_path, protocol)
    train = [written[f"data_batch_{k}"] for k in range(1, 6)]
    rows = np.concatenate([data for data, _ in train])
    data = load("cifar10", tmp_path)
    check(data, pixel_by_pixel(rows), [label for _, labels in train for label in labels])
    assert data.classes[:2] == ("airplane", "automobile")
    check(load("cifar10", tmp_path, train=False), pixel_by_pixel(written["test_batch"][0]), written["test_batch"][1])


# {"data": array([[1, 2, 3]], uint8), "labels": [7]} as Python 2 and numpy 1 wrote CIFAR: byte strings everywhere.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87"
    b"Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
    b"\xff\xffK\x00tb\x89U\x03\x01\xfe\x03tbU\x06labels]K\x07au."
)


def test_pickles_of_python_2_are_read(tmp_path):
    (tmp_path / "old").write_bytes(PYTHON2)
    found = read_pickle(tmp_path / "old")
    assert found["data"].tolist() == [[1, 254, 3]] and found["labels"] == [7]
    judge = pickle.loads(PYTHON2, encoding="latin1")
    assert np.array_equal(found["data"], judge["data"])


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", ">i4", "<f8", ">f8", "f2", "b1", "<u8"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_of_plain_numbers_are_read_back(tmp_path, dtype, protocol):
    values = (RNG.normal(size=(3, 4, 2)) * 50).astype(dtype)
    stored = {"c": values, "f": np.asfortranarray(values), "none": values[:0], "scalar": values[0, 0, 0:1].reshape(())}
    (tmp_path / "p").write_bytes(pickle.dumps(stored, protocol))
    found = read_pickle(tmp_path / "p")
    for key, wanted in stored.items():
        assert found[key].shape == wanted.shape and np.array_equal(found[key], wanted)
        assert found[key].dtype == wanted.dtype.newbyteorder("=")


def test_cifar100(tmp_path):
    data, labels, names = cifar100(tmp_path)
    found = load("cifar100", tmp_path)
    check(found, pixel_by_pixel(data), labels)
    assert found.classes == tuple(names)
    check(load("cifar100", tmp_path / "cifar-100-python", train=False), pixel_by_pixel(data[::-1]), labels)


@pytest.mark.parametrize("compressed", [False, True])
def test_svhn(tmp_path, compressed):
    io_ = pytest.importorskip("scipy.io")
    stored = bytes_of(32, 32, 3, 7)
    labels = np.array([[10], [1], [9], [10], [2], [3], [5]], np.uint8)
    io_.savemat(tmp_path / "test_32x32.mat", {"X": stored, "y": labels}, do_compression=compressed)
    data = load("svhn", tmp_path, train=False)
    check(data, np.stack([stored[..., n].transpose(2, 0, 1) for n in range(7)]), [0, 1, 9, 0, 2, 3, 5])
    assert data.inputs.flags.c_contiguous


def png_pages(root, pages, labels):
    Image = pytest.importorskip("PIL.Image")
    root.mkdir(exist_ok=True)
    images = {}
    for k in pages:
        few = bytes_of(2, 32, 32, 3)  # two images in turn: small files
        rows = few[np.arange(1000) % 2]
        rows[k] = 255 - rows[k]
        Image.fromarray(rows.reshape(1000, 1024, 3)).save(root / f"cifar10_batch_{k}.png", compress_level=1)
        images[k] = rows.transpose(0, 3, 1, 2)
    (root / "cifar10_labels.js").write_text(f"var labels=[{', '.join(map(str, labels))}];\n")
    return images


def test_pages_of_png(tmp_path):
    labels = RNG.integers(0, 10, 51000)
    images = png_pages(tmp_path, (0, 1, 50), labels)
    check(load("cifar10-png", tmp_path), np.concatenate([images[0], images[1]]), labels[:2000])
    check(load("cifar10-png", tmp_path, train=False), images[50], labels[50000:])
    (tmp_path / "cifar10_batch_1.png").rename(tmp_path / "cifar10_batch_2.png")
    refused("cifar10-png", tmp_path, True, r"cifar10_batch_1\.png: no such file; pages are numbered without a gap")
    (tmp_path / "cifar10_batch_2.png").rename(tmp_path / "cifar10_batch_1.png.part")
    refused("cifar10-png", tmp_path, True, r"cifar10_batch_1\.png\.part: an interrupted download")
    whole = (tmp_path / "cifar10_labels.js").read_text()
    (tmp_path / "cifar10_labels.js").write_text(whole[:-40])
    refused("cifar10-png", tmp_path, False, r"cifar10_labels\.js: not one line var labels")
    (tmp_path / "cifar10_labels.js").write_text("var labels=[1, 2];")
    refused("cifar10-png", tmp_path, False, r"cifar10_labels\.js: 2 labels; 51000 are needed")
    (tmp_path / "cifar10_labels.js").write_text(f"var labels=[1, {10**30}];")
    refused("cifar10-png", tmp_path, False, r"cifar10_labels\.js: a label of more than nine digits")
    (tmp_path / "cifar10_labels.js").write_text(whole)
    page = (tmp_path / "cifar10_batch_50.png").read_bytes()
    (tmp_path / "cifar10_batch_50.png").write_bytes(page[: len(page) // 2])
    refused("cifar10-png", tmp_path, False, r"cifar10_batch_50\.png: not a readable image")


def test_digits_need_no_file():
    sklearn = pytest.importorskip("sklearn.datasets")
    images, marks = sklearn.load_digits(return_X_y=True)
    parts = [load("digits", train=train) for train in (True, False)]
    assert [len(part) for part in parts] == [1437, 360]
    found = sorted(
        (int(label), *image.ravel().tolist())
        for part in parts
        for image, label in zip(part.inputs, part.labels, strict=True)
    )
    assert found == sorted((int(label), *row.astype(int).tolist()) for row, label in zip(images, marks, strict=True))
    again = load("digits", train=False)
    assert np.array_equal(again.inputs, parts[1].inputs)
    assert set(parts[0].labels.tolist()) == set(parts[1].labels.tolist()) == set(range(10))


def refused(name, root, train, words):
    with pytest.raises(FileFormatError, match=words) as error:
        load(name, root, train=train)
    assert "\n" not in str(error.value)


def test_a_name_or_a_root_that_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="known are digits, mnist, fashion, cifar10, cifar100, svhn, cifar10-png"):
        load("imagenet", tmp_path)
    with pytest.raises(InputError, match=r"load\(\['mnist'\]\): known are digits"):
        load(["mnist"], tmp_path)
    with pytest.raises(InputError, match=r"give root=, the folder that holds MNIST/raw"):
        load("mnist")
    refused("mnist", tmp_path / "nowhere", True, "nowhere: no such folder")
    for name, words in {
        "mnist": r"train-images-idx3-ubyte: no such file; put the four files of mnist",
        "fashion": r"into FashionMNIST/raw under root=",
        "cifar10": r"data_batch_1: no such file; unpack cifar-10-python\.tar\.gz under root=",
        "cifar100": r"meta: no such file; unpack cifar-100-python\.tar\.gz",
        "svhn": r"train_32x32\.mat: no such file; put the published file under root=",
        "cifar10-png": r"cifar10_batch_0\.png: no such file",
    }.items():
        refused(name, tmp_path, True, words)


def change(path, how):
    path.write_bytes(how(path.read_bytes()))


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (IMAGES, lambda raw: raw[:-1], r"needs 9408 bytes, 9407 are there; fetch the file again"),
        (IMAGES, lambda raw: raw + b"x", r"9409 are there"),
        (IMAGES, lambda raw: raw[:9], "does not start with an IDX header"),
        (IMAGES, lambda _: b"", "does not start with an IDX header"),
        (IMAGES, lambda _: idx(np.zeros((12, 8, 8), np.uint8)), r"uint8 \(12, 8, 8\); uint8 \(N, 28, 28\) expected"),
        (IMAGES, lambda _: idx(np.zeros((11, 28, 28), np.uint8)), "12 labels of uint8 for 11 images"),
        (IMAGES, lambda _: idx(np.zeros((0, 28, 28), np.uint8)), "12 labels of uint8 for 0 images"),
        (LABELS, lambda raw: raw[:-1] + b"\x0a", "label 10; labels are from 0 to 9"),
    ],
)
def test_broken_idx_files(tmp_path, file, content, words):
    mnist(tmp_path)
    change(tmp_path / "MNIST" / "raw" / file, content)
    refused("mnist", tmp_path, True, words)


def test_a_gzip_file_that_is_cut_off(tmp_path):
    mnist(tmp_path, pack=gzip.compress, ending=".gz")
    change(tmp_path / "MNIST" / "raw" / f"{IMAGES}.gz", lambda raw: raw[: len(raw) // 2])
    refused("mnist", tmp_path, True, r"ubyte\.gz: not a readable \.gz file .*cut off: fetch or write it again")


@pytest.mark.parametrize("ending", [".part", ".crdownload"])
def test_interrupted_downloads_are_named(tmp_path, ending):
    mnist(tmp_path, pack=gzip.compress, ending=".gz")
    cifar10(tmp_path)
    for path in (tmp_path / "MNIST" / "raw" / f"{LABELS}.gz", tmp_path / "cifar-10-batches-py" / "data_batch_4"):
        path.rename(f"{path}{ending}")
    refused("mnist", tmp_path, True, rf"{LABELS}\.gz\{ending}: an interrupted download; delete it and fetch")
    refused("cifar10", tmp_path, True, rf"data_batch_4\{ending}: an interrupted download")


def batch(**changes):
    return pickle.dumps({"data": planes(3), "labels": [1, 2, 3], **changes})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (batch()[:-20], "not a readable pickle"),
        (batch()[:500], "not a readable pickle"),
        (b"", "not a readable pickle"),
        (b"<html>not found</html>", "not a readable pickle"),
        (pickle.dumps([1, 2]), "holds a list, not a dictionary"),
        (pickle.dumps({}), r"data of uint8 \(N, 3072\) expected, found keys none"),
        (batch(data=np.zeros((3, 3071), np.uint8)), r"found uint8 \(3, 3071\); unpack"),
        (batch(data=np.zeros((3, 3072))), r"found float64 \(3, 3072\)"),
        (batch(labels=[1, 2]), "2 labels of int64 for 3 images"),
        (batch(labels=[1, 2, 10]), "label 10; labels are from 0 to 9"),
        (batch(labels=[1, -2, 3]), "label -2"),
        (batch(labels=[1, 2.5, 3]), "no list of whole numbers labels"),
        (batch(labels=[[1], [2, 3], 4]), "no list of whole numbers labels"),
        (batch(labels=None), "no list of whole numbers labels"),
        (batch(data=np.array([{}, 1], dtype=object)), "dtype 'O8', which is not of plain numbers"),
        (batch(data=np.zeros(3, [("a", "u1")])), "which is not of plain numbers"),
    ],
)
def test_broken_cifar_files(tmp_path, content, words):
    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    refused("cifar10", tmp_path, False, rf"test_batch: .*{words}")


class Calls:
    """Pickled as the call function(*arguments)."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def system_call(mark):
    import os

    return pickle.dumps({"data": Calls(os.system, f"touch {mark}"), "labels": []})


def evaluated(mark):
    return pickle.dumps({"data": planes(1), "labels": [Calls(eval, f"open({str(mark)!r}, 'w').close() or 1")]})


def through_numpy(mark):
    """numpy.load of a pickled file inside: a name of numpy is not good enough."""
    inner = io.BytesIO()
    np.save(inner, np.array([Calls(eval, f"open({str(mark)!r}, 'w').close()")], dtype=object), allow_pickle=True)
    return b"\x80\x04cnumpy\nload\n" + pickle.dumps(io.BytesIO(inner.getvalue()), 4)[2:-1] + b"NN\x88\x87\x86R."


def attributes_of_numpy(mark):
    """From an allowed module to builtins by attributes, as protocol 4 spells them."""
    name = "ndarray.__class__.__base__.__subclasses__"
    return b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name.encode() + b"\x93)R."


MALICIOUS = [system_call, evaluated, through_numpy, attributes_of_numpy]


@pytest.mark.parametrize("attack", MALICIOUS)
def test_a_pickle_that_calls_anything_is_not_executed(tmp_path, attack):
    cifar10(tmp_path)
    mark = tmp_path / "executed"
    content = attack(mark)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    refused("cifar10", tmp_path, False, r"test_batch: asks to call [\w.]+, which no data set needs: not loaded")
    assert not mark.exists()


@pytest.mark.parametrize("attack", [system_call, evaluated])
def test_the_attacks_are_real(tmp_path, attack):
    mark = tmp_path / "executed"
    pickle.loads(attack(mark))
    assert mark.exists()


@pytest.mark.parametrize("name", ALLOWED)
def test_what_stands_for_a_name_cannot_be_changed_by_a_file(tmp_path, name):
    """The opcode b sets attributes of the object below it."""
    module, word = (part.encode() for part in name)
    for state in (b"}\x8c\x08__call__\x8c\x04evils", b"N}\x8c\x09__class__K\x01s\x86", b"}\x8c\x06valuesK\x01s"):
        before = vars(type(ALLOWED[name])).copy()
        (tmp_path / "p").write_bytes(b"\x80\x04c" + module + b"\n" + word + b"\n" + state + b"b.")
        with pytest.raises(FileFormatError):
            read_pickle(tmp_path / "p")
        assert vars(type(ALLOWED[name])) == before


@pytest.mark.parametrize(
    "state",
    [
        "(1, (2, 2), KIND, False, b'abc')",  # too few bytes: nothing is read beyond them
        "(1, (-1, -4), KIND, False, b'abcd')",
        "(1, (2**40, 2**40), KIND, False, b'abcd')",
        "(1, 4, KIND, False, b'abcd')",
        "(1, (4,), None, False, b'abcd')",
        "(1, (4,), KIND, False, [1, 2, 3, 4])",
        "(1,)",
        "None",
    ],
)
def test_an_array_whose_parts_do_not_fit_is_refused(tmp_path, state):
    class Kind:
        def __reduce__(self):
            return np.dtype, ("u1", False, True)

    class Made:
        def __reduce__(self):
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), eval(state, {"KIND": Kind()}) or (None,)

    (tmp_path / "p").write_bytes(pickle.dumps({"data": Made()}))
    with pytest.raises(FileFormatError, match="not a readable pickle"):
        read_pickle(tmp_path / "p")


def test_cifar100_needs_its_names(tmp_path):
    cifar100(tmp_path)
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps({"fine_label_names": ["one"]}))
    refused("cifar100", tmp_path, True, "meta: no list of 100 fine_label_names")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1]])}, "1 labels of int64 for 2 images"),
        ({"X": np.zeros((32, 32, 2), np.uint8), "y": np.array([[1]])}, r"X is uint8 \(32, 32, 2\)"),
        ({"X": np.zeros((32, 32, 3, 1)), "y": np.array([[1]])}, r"X is float64"),
        ({"X": np.zeros((32, 32, 3, 1), np.uint8), "y": np.array([[11]])}, "label 11"),
        ({"X": np.zeros((32, 32, 3, 1), np.uint8)}, r"not a readable \.mat file \('y'\)"),
    ],
)
def test_mat_files_of_another_shape(tmp_path, content, words):
    pytest.importorskip("scipy.io").savemat(tmp_path / "train_32x32.mat", content)
    refused("svhn", tmp_path, True, rf"train_32x32\.mat: .*{words}")


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_that_are_cut_off(tmp_path, compressed):
    path = tmp_path / "train_32x32.mat"
    stored = {"X": bytes_of(32, 32, 3, 4), "y": np.array([[1], [2], [3], [4]])}
    pytest.importorskip("scipy.io").savemat(path, stored, do_compression=compressed)
    raw = path.read_bytes()
    for size in (0, 60, 130, 200, len(raw) // 2, len(raw) - 5):
        path.write_bytes(raw[:size])
        refused("svhn", tmp_path, True, r"train_32x32\.mat: not a readable \.mat file")


@pytest.mark.parametrize(("name", "package", "extra"), [("digits", "sklearn", "report"), ("svhn", "scipy", "train")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, name, package, extra):
    real = builtins.__import__

    def without(wanted, *rest):
        if wanted.split(".")[0] == package:
            raise ImportError(wanted)
        return real(wanted, *rest)

    for known in [known for known in sys.modules if known.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"maxaffine\[{extra}\]"):
        load(name, tmp_path)


@needs_assets
def test_the_real_mnist():
    images, labels = mnist_test()
    data = load("mnist", asset("data/mnist"), train=False)
    check(data, (images * 255).round().byte().numpy(), labels.tolist())
    train = load("mnist", asset("data/mnist"))
    assert train.inputs.shape == (60000, 1, 28, 28)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@needs_assets
def test_the_real_pages_of_cifar10():
    images, labels = cifar_test()
    check(
        load("cifar10-png", asset("data/cifar10"), train=False), (images * 255).round().byte().numpy(), labels.tolist()
    )
    train = load("cifar10-png", asset("data/cifar10"))
    assert train.inputs.shape == (10000, 3, 32, 32)
    # Counts of the official data_batch_1.
    assert np.bincount(train.labels).tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
