"""Well-known sets of images by their names, from the files of their publishers in torchvision's layout."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from maxaffine.arguments import path_of
from maxaffine.data.dataset import BROKEN, Contents, Dataset, first_line
from maxaffine.data.files import read_file, read_image
from maxaffine.data.pickles import read_pickle
from maxaffine.data.places import folder_of, need
from maxaffine.errors import FileFormatError, InputError, MissingExtraError

DIGIT_NAMES = tuple("0123456789")
FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_SEED, DIGITS_HELD_OUT = 0, 360
PAGE_ROWS = 1000  # images in a page of cifar10-png, one a row of pixels
TEST_LABELS = 50000  # the labels of the test images follow those of as many training images


def load(name: str, root: str | Path | None = None, train: bool = True) -> Dataset:
    """Load a well-known data set: images (N, channels, side, side) of bytes, labels (N,), names of the classes.

    name: "digits" (8 x 8, of scikit-learn; needs no file), "mnist", "fashion" (28 x 28 grey), "cifar10", "cifar100",
        "svhn" (32 x 32 colour; SVHN without its "extra" part), or "cifar10-png" (pages of 1000 images).
    root: the folder that holds the files as torchvision leaves them (MNIST/raw, FashionMNIST/raw,
        cifar-10-batches-py, cifar-100-python, train_32x32.mat), or the innermost folder itself. Nothing is downloaded.
    train: the training part, or the test part. Of the digits, 360 of 1797 are held out by a fixed shuffle.

    >>> load("digits", train=False).inputs.shape
    (360, 1, 8, 8)

    Raises:
        InputError: the name is unknown, or a root is needed.
        FileFormatError: a file is missing, cut off, of the wrong size, or not what its name says.
        MissingExtraError: scikit-learn (digits), scipy (svhn) or pillow (cifar10-png) is not installed.
    """
    if not isinstance(name, str) or name not in READERS:
        raise InputError(f"load({name!r}): known are {', '.join(READERS)}; for files of your own use read(path)")
    images, labels, classes = READERS[name](None if root is None else path_of(root), train)
    return Dataset(images, labels, classes, f"{name} ({'train' if train else 'test'})")


def _digits(root: Path | None, train: bool) -> Contents:
    del root  # they come with scikit-learn
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError('the digits need scikit-learn: pip install "maxaffine[report]"') from error
    rows, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    order = np.random.default_rng(DIGITS_SEED).permutation(len(labels))
    part = order[DIGITS_HELD_OUT:] if train else order[:DIGITS_HELD_OUT]
    return rows[part].reshape(-1, 1, 8, 8).astype(np.uint8), labels[part].astype(np.int64), DIGIT_NAMES


def _mnist(root: Path | None, train: bool) -> Contents:
    return *_idx("mnist", root, "MNIST/raw", train), DIGIT_NAMES


def _fashion(root: Path | None, train: bool) -> Contents:
    return *_idx("fashion", root, "FashionMNIST/raw", train), FASHION


def _idx(name: str, root: Path | None, inside: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    folder, part = folder_of(name, root, inside), "train" if train else "t10k"
    advice = f"put the four files of {name}, as published or unpacked, into {inside} under root="
    found = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        path = need(folder, (stem, f"{stem}.gz"), advice)
        found.append(read_file(path)[0])
    images, labels = found
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise FileFormatError(
            f"{folder}: images of {part} are {images.dtype} {images.shape}; uint8 (N, 28, 28) expected"
        )
    return images[:, None], _labels(labels, len(images), 10, folder / f"{part}-labels-idx1-ubyte")


def _cifar10(root: Path | None, train: bool) -> Contents:
    folder = folder_of("cifar10", root, "cifar-10-batches-py")
    names = [f"data_batch_{k}" for k in range(1, 6)] if train else ["test_batch"]
    parts = [_cifar_batch(folder, name, "labels", 10, "cifar-10-python.tar.gz") for name in names]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), CIFAR10


def _cifar100(root: Path | None, train: bool) -> Contents:
    folder, archive = folder_of("cifar100", root, "cifar-100-python"), "cifar-100-python.tar.gz"
    meta = need(folder, ("meta",), f"unpack {archive} under root=")
    names = read_pickle(meta).get("fine_label_names")
    if not isinstance(names, list) or len(names) != 100:
        raise FileFormatError(f"{meta}: no list of 100 fine_label_names; unpack {archive} again")
    return *_cifar_batch(folder, "train" if train else "test", "fine_labels", 100, archive), tuple(map(str, names))


def _cifar_batch(folder: Path, name: str, key: str, classes: int, archive: str) -> tuple[np.ndarray, np.ndarray]:
    path = need(folder, (name,), f"unpack {archive} under root=")
    found = read_pickle(path)
    rows, labels = found.get("data"), found.get(key)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3072:
        what = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else f"keys {', '.join(found) or 'none'}"
        raise FileFormatError(f"{path}: data of uint8 (N, 3072) expected, found {what}; unpack {archive} again")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise FileFormatError(f"{path}: no list of whole numbers {key}; unpack {archive} again")
    return rows.reshape(-1, 3, 32, 32), _labels(np.asarray(labels), len(rows), classes, path)


def _svhn(root: Path | None, train: bool) -> Contents:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtraError('the .mat files of SVHN need scipy: pip install "maxaffine[train]"') from error
    name = f"{'train' if train else 'test'}_32x32.mat"
    path = need(folder_of("svhn", root, "svhn"), (name,), "put the published file under root=")
    try:
        found = loadmat(path, variable_names=("X", "y"))
        images, labels = found["X"], found["y"]
    except (*BROKEN, MatReadError, TypeError, IndexError, OverflowError, NotImplementedError, MemoryError) as error:
        raise FileFormatError(f"{path}: not a readable .mat file ({first_line(error)}); fetch it again") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise FileFormatError(f"{path}: X is {images.dtype} {images.shape}; uint8 (32, 32, 3, N) expected")
    marks = _labels(labels, images.shape[3], 11, path)
    # The publishers write the digit 0 as 10.
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), marks % 10, DIGIT_NAMES


def _cifar10_png(root: Path | None, train: bool) -> Contents:
    folder = folder_of("cifar10-png", root, "cifar10")
    first, last = (0, 50) if train else (50, 60)
    there = [k for k in range(first, last) if any(folder.glob(f"cifar10_batch_{k}.png*"))] or [first]
    advice = "pages are numbered without a gap: 0 to 49 to train on, from 50 on to test on"
    pages = [need(folder, (f"cifar10_batch_{k}.png",), advice) for k in range(first, max(there) + 1)]
    images = np.concatenate([_page(path) for path in pages])
    labels = _js_labels(need(folder, ("cifar10_labels.js",), "it holds the labels of all pages"))
    start = 0 if train else TEST_LABELS
    if len(labels) < start + len(images):
        raise FileFormatError(f"{folder / 'cifar10_labels.js'}: {len(labels)} labels; {start + len(images)} are needed")
    chosen = labels[start : start + len(images)]
    return images, _labels(chosen, len(images), 10, folder / "cifar10_labels.js"), CIFAR10


def _page(path: Path) -> np.ndarray:
    """Return the images of a page, (1000, 3, 32, 32): row k of its 1024 x 1000 pixels is image k, row by row."""
    pixels = read_image(path)
    if pixels.shape != (3, PAGE_ROWS, 1024):
        raise FileFormatError(f"{path}: shape {pixels.shape}; 1024 x {PAGE_ROWS} RGB pixels expected")
    return np.ascontiguousarray(pixels.transpose(1, 0, 2).reshape(PAGE_ROWS, 3, 32, 32))


def _js_labels(path: Path) -> np.ndarray:
    """Return the numbers of a line ``var labels=[6, 9, ...];``."""
    found = re.fullmatch(r"\s*var\s+labels\s*=\s*\[([\d\s,]*)\]\s*;?\s*", path.read_text(errors="replace"))
    if not found:
        raise FileFormatError(f"{path}: not one line var labels=[6, 9, ...]; it may be cut off: fetch it again")
    numbers = re.findall(r"\d+", found[1])
    if any(len(number) > 9 for number in numbers):
        raise FileFormatError(f"{path}: a label of more than nine digits; fetch it again")
    return np.array([int(number) for number in numbers], np.int64)


def _labels(labels: np.ndarray, rows: int, classes: int, path: Path) -> np.ndarray:
    """Return labels (N,) as int64.

    Raises:
        FileFormatError: they are not whole numbers below ``classes``, or not one a row.
    """
    if rows == 0 or labels.size != rows or labels.dtype.kind not in "iu":
        raise FileFormatError(
            f"{path}: {labels.size} labels of {labels.dtype} for {rows} images; fetch the files again"
        )
    if labels.min() < 0 or labels.max() >= classes:
        wrong = int(labels.max()) if labels.max() >= classes else int(labels.min())
        raise FileFormatError(f"{path}: label {wrong}; labels are from 0 to {classes - 1}")
    return labels.reshape(rows).astype(np.int64)


Reader = Callable[[Path | None, bool], Contents]
READERS: Mapping[str, Reader] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion": _fashion,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "svhn": _svhn,
    "cifar10-png": _cifar10_png,
}
