"""One file or folder of the user's own: .npz, .npy, IDX (also gzipped), PNG or JPEG images in folders."""

import gzip
import math
import re
from itertools import zip_longest
from pathlib import Path
from typing import IO

import numpy as np

from maxaffine.data.dataset import BROKEN, Contents, Dataset, first_line
from maxaffine.errors import FileFormatError, InputError, MissingExtraError

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_NAME = re.compile(r"(ubyte|\.idx\d?)(\.gz)?$")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
KINDS = ".npz, .npy, IDX (...-ubyte or .idx, also .gz) or a folder of PNG/JPEG images"


def read(path: str | Path, labels: str | Path | None = None, limit: int | None = None) -> Dataset:
    """Read a data file or folder; ``labels`` names a second file, ``limit`` keeps the first rows.

    A ``.npz`` holds its rows as ``x`` and, if there are labels, ``y``. Images of sub-folders are taken in
    turn, one of each class, so that the first rows hold every class.

    Raises:
        FileFormatError: a file is missing, of an unknown kind, or broken.
        InputError: there are no rows, a value is NaN or infinite, or labels and rows differ in number.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: ask for at least 1 row")
    path = Path(path)
    # Rows of a folder are read one by one: only as many as wanted, unless a label file counts all of them.
    folder = path.is_dir()
    contents = _read_folder(path, limit if labels is None else None) if folder else read_file(path)
    rows, own_labels, classes = contents
    _check_rows(rows, path)
    found = own_labels if labels is None else read_labels(Path(labels))
    checked = None if found is None else checked_labels(found, len(rows), labels or path)
    return Dataset(rows[:limit], None if checked is None else checked[:limit], classes, path.name)


def read_file(path: Path) -> Contents:
    """Read rows (and the labels of a .npz) of one file.

    Raises:
        FileFormatError: the file is missing, of an unknown kind, or broken.
    """
    readers = {".npz": _read_npz, ".npy": _read_npy}
    if not path.exists():
        raise FileFormatError(f"{path}: no such file or folder")
    reader = _read_idx if IDX_NAME.search(path.name) else readers.get(path.suffix)
    if reader is None:
        raise FileFormatError(f"{path}: unknown kind of data; give {KINDS}")
    try:
        return reader(path)
    except FileFormatError:
        raise
    except BROKEN as error:
        what = f"not a readable {path.suffix} file ({first_line(error)})"
        raise FileFormatError(f"{path}: {what}; it may be cut off: fetch or write it again") from error


def _read_npy(path: Path) -> Contents:
    return np.load(path, allow_pickle=False), None, ()


def _read_npz(path: Path) -> Contents:
    with np.load(path, allow_pickle=False) as arrays:
        names = set(arrays)
        if "x" not in names:
            held = ", ".join(sorted(names)) or "nothing"
            advice = "save rows as x and labels as y: np.savez(path, x=..., y=...)"
            raise FileFormatError(f"{path}: holds {held}; {advice}")
        return arrays["x"], arrays["y"] if "y" in names else None, ()


def _read_idx(path: Path) -> Contents:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    # Header: two zero bytes, the type, the number of axes, then each axis as a big-endian 32-bit number.
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES or len(raw) < 4 + 4 * raw[3]:
        raise FileFormatError(f"{path}: does not start with an IDX header")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", raw[3], 4))
    dtype, start = np.dtype(IDX_TYPES[raw[2]]), 4 + 4 * raw[3]
    promised, there = math.prod(shape) * dtype.itemsize, len(raw) - start
    if there != promised:
        raise FileFormatError(f"{path}: shape {shape} needs {promised} bytes, {there} are there; fetch the file again")
    values = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("=")), None, ()


def _read_folder(path: Path, limit: int | None) -> Contents:
    files, labels, classes = listed(path, limit)
    images = [read_image(file) for file in files]
    for image, file in zip(images, files, strict=True):
        if image.shape != images[0].shape:
            same = f"{files[0].name} has {images[0].shape}: images must share size and colour mode"
            raise InputError(f"{file}: shape {image.shape}, but {same}")
    return np.stack(images), labels, classes


def listed(path: Path, limit: int | None) -> tuple[list[Path], np.ndarray | None, tuple[str, ...]]:
    """Images of a folder, one of each class (sub-folder) in turn; their labels, if there are classes; the classes."""
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders and (stray := _images_in(path)):
        raise FileFormatError(
            f"{path}: holds images ({stray[0].name}) beside folders ({folders[0].name}); "
            "give images alone, or a folder a class"
        )
    groups = [(label, _images_in(folder)) for label, folder in enumerate(folders)] or [(0, _images_in(path))]
    turns = zip_longest(*([(file, label) for file in files] for label, files in groups))
    pairs = [pair for turn in turns for pair in turn if pair is not None][:limit]
    if not pairs:
        raise FileFormatError(f"{path}: no PNG or JPEG image in this folder or its sub-folders")
    labels = np.array([label for _, label in pairs]) if folders else None
    return [file for file, _ in pairs], labels, tuple(folder.name for folder in folders)


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)


def read_image(path: Path, file: IO[bytes] | None = None) -> np.ndarray:
    """Return (H, W) of a grey image, (3, H, W) of a colour one: channels first, as torch has them.

    file: its bytes, where it lies in an archive and the path is only its name.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError('reading images needs pillow: pip install "maxaffine[report]"') from error
    try:
        with Image.open(path if file is None else file) as image:
            mode, pixels = image.mode, np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except BROKEN as error:
        raise FileFormatError(f"{path}: not a readable image ({first_line(error)})") from error
    if mode not in ("L", "P", "RGB"):
        raise InputError(f"{path}: colour mode {mode}; save it as 8-bit grey (L) or RGB")
    return pixels if mode == "L" else pixels.transpose(2, 0, 1)


def read_labels(path: Path) -> np.ndarray:
    """Labels of a file of their own, as they are there. Raises FileFormatError."""
    if path.is_dir() or path.suffix == ".npz":
        raise FileFormatError(f"{path}: labels are read from .npy, IDX, or .txt/.csv with one number a line")
    if path.suffix not in (".txt", ".csv") or not path.exists():
        return read_file(path)[0]
    try:
        return np.atleast_1d(np.array(path.read_text().split(), dtype=np.float64))
    except BROKEN as error:
        raise FileFormatError(f"{path}: not one number a line ({first_line(error)})") from error


def _check_rows(rows: np.ndarray, path: Path) -> None:
    if rows.dtype.kind not in "biuf":
        raise InputError(f"{path}: rows of dtype {rows.dtype}; give real numbers")
    if rows.ndim < 2 or rows.size == 0:
        raise InputError(f"{path}: rows of shape {rows.shape}; give at least one row of at least one value")
    good = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
    if not good.all():
        raise InputError(f"{path}: row {int(good.argmin())} holds NaN or infinite values; clean it first")


def checked_labels(labels: np.ndarray, rows: int, path: str | Path) -> np.ndarray:
    """Labels (N,) as int64 where all are whole, else float64. Raises InputError unless there is one a row."""
    if labels.ndim == 0 or len(labels) != rows or labels.size != rows:
        raise InputError(f"{path}: labels of shape {labels.shape} for {rows} rows; give one label a row")
    values = labels.reshape(rows)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise InputError(f"{path}: labels of dtype {labels.dtype}, or NaN among them; give finite numbers")
    whole = bool((values == np.round(values)).all())
    return values.astype(np.int64 if whole else np.float64)
