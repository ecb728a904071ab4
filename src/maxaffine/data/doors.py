"""Anything that holds rows, as a stream of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maxaffine import arguments
from maxaffine.data.dataset import BROKEN, Dataset, first_line
from maxaffine.data.files import read_labels
from maxaffine.data.pictures import archives, items, pictures
from maxaffine.data.stored import Held, stored
from maxaffine.data.streams import Stream
from maxaffine.errors import FileFormatError, InputError, MissingExtraError

HUGGING_FACE, SPLITS = "dataset_info.json", "dataset_dict.json"


def as_stream(data: Any, labels: str | Path | None = None, limit: int | None = None) -> Stream:
    """Rows of any source, to be read some at a time.

    data: an .npz, .npy or IDX file, a folder of images, a .tar of WebDataset or a folder of them, a folder that Hugging
    Face's save_to_disk wrote, an array or tensor (N, *row), a Dataset, or a map-style data set of another library.
    labels: a file beside the data. limit: the first rows only.
    Raises FileFormatError, InputError, MissingExtraError.

    >>> rows = as_stream(np.arange(12.0).reshape(4, 3))
    >>> len(rows), rows.row_shape, rows.read(1, 3).values.tolist()
    (4, (3,), [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    """
    if limit is not None:
        arguments.whole(limit, "limit")
    if isinstance(data, Stream):
        return data
    if isinstance(data, str | Path):
        return _from_path(Path(data), None if labels is None else read_labels(Path(labels)), limit)
    if labels is not None:
        raise InputError("labels= names a file beside a data file; give data that holds its labels")
    return _from_object(data, limit)


def _from_object(data: Any, limit: int | None) -> Stream:
    table: list[tuple[type, Callable[[], Dataset]]] = [
        (Dataset, lambda: data),
        (Tensor, lambda: _array(_numpy(data), "tensor")),
        (np.ndarray, lambda: _array(data, "array")),
    ]
    found = next((make() for kind, make in table if isinstance(data, kind)), None)
    if found is None:
        return items(data, limit)
    if found.inputs.dtype.kind not in "biuf" or found.inputs.ndim < 2 or found.inputs.size == 0:
        shape = f"{found.inputs.dtype} {found.inputs.shape}"
        raise InputError(f"{found.source}: rows of {shape}; give at least one row of at least one real number")
    kept = None if found.labels is None else found.labels[:limit]
    return Held(Dataset(found.inputs[:limit], kept, found.classes, found.source))


def _numpy(data: Tensor) -> np.ndarray:
    try:
        return arguments.values(data, "data", "rows (N, *row)").detach().cpu().numpy()
    except TypeError:
        raise InputError(f"data is {arguments.told(data)}, which numpy has not; use data.to(torch.float32)") from None


def _array(values: np.ndarray, source: str) -> Dataset:
    return Dataset(values, None, (), source)


def _from_path(path: Path, labels: np.ndarray | None, limit: int | None) -> Stream:
    if not path.exists():
        raise FileFormatError(f"{path}: no such file or folder")
    if path.is_dir() and any((path / name).is_file() for name in (HUGGING_FACE, SPLITS)):
        found, kind = items(_hugging_face(path), limit), "a data set of Hugging Face"
    elif tars := sorted(path.glob("*.tar")) if path.is_dir() else [path] * (path.suffix == ".tar"):
        found, kind = archives(tars, path.name, limit), "an archive"
    else:
        return (pictures if path.is_dir() else stored)(path, labels, limit)
    if labels is not None:
        raise InputError(f"{path} is {kind} and holds its own labels; leave the file of labels out")
    return found


def _hugging_face(path: Path) -> Any:
    if (path / SPLITS).is_file():
        parts = sorted(p.name for p in path.iterdir() if p.is_dir())
        raise FileFormatError(f"{path}: holds {len(parts)} data sets; give one of them, such as {path / parts[0]}")
    try:
        import datasets
    except ImportError as error:
        hint = 'pip install "maxaffine[datasets]"'
        raise MissingExtraError(f"{path}: a data set of Hugging Face needs its library: {hint}") from error
    try:
        return datasets.load_from_disk(str(path))
    except (*BROKEN, TypeError) as error:
        raise FileFormatError(f"{path}: not a readable data set ({first_line(error)}); save it again") from error
