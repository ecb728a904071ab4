"""Data sets of other libraries, taken by what they can do: ``len`` and an index that gives an image and a label.

Neither torchvision nor Hugging Face's datasets is imported: an image is read according to the library of its type.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from maxaffine.data.dataset import Dataset
from maxaffine.errors import InputError

IMAGE_KEYS = ("image", "img", "pixel_values", "x", "input", "inputs")
LABEL_KEYS = ("label", "labels", "fine_label", "y", "target", "targets")


def as_dataset(obj: Any, limit: int | None = None) -> Dataset:
    """Read a map-style data set: len(obj), and obj[i] an (image, label) pair or a dictionary that holds both.

    Images are pictures of pillow (grey, RGB or palette), arrays or tensors of one shape; the result holds them as
    (N, channels, height, width), a grey one with one channel; rows that are no images stay (N, *row). Names of
    classes are taken from ``obj.classes`` (torchvision) or ``obj.features[label].names`` (Hugging Face), if there.
    ``limit`` reads only the first rows. A Dataset is returned as it is.

    >>> pairs = [(np.zeros((4, 4, 3), np.uint8), 1), (np.ones((4, 4, 3), np.uint8), 0)]
    >>> data = as_dataset(pairs)
    >>> data.inputs.shape, data.labels.tolist()
    ((2, 3, 4, 4), [1, 0])

    Raises:
        InputError: obj has no length or index, an item is no image with a label, or shapes differ.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit is {limit}: ask for at least 1 row")
    if isinstance(obj, Dataset):
        labels = obj.labels if obj.labels is None else obj.labels[:limit]
        return Dataset(obj.inputs[:limit], labels, obj.classes, obj.source)
    kind = type(obj).__name__
    try:
        length = len(obj)
    except TypeError as error:
        raise InputError(f"{kind} has no len(): give a map-style data set, not a stream of rows") from error
    number = length if limit is None else min(limit, length)
    if number == 0:
        raise InputError(f"{kind} is empty: give at least one row")
    images, labels, key = [], [], ""
    for row in range(number):
        image, label, key = sample_of(obj, row, kind)
        images.append(image)
        labels.append(label)
        if images[row].shape != images[0].shape:
            raise InputError(f"{kind}[{row}] has shape {images[row].shape}, {kind}[0] {images[0].shape}: resize them")
    return Dataset(np.stack(images), np.array(labels, np.int64), names_of(obj, key), kind)


def sample_of(obj: Any, row: int, kind: str) -> tuple[np.ndarray, int, str]:
    """One row of a map-style data set: its image (channels, height, width) or values (*row), label and its key.

    Raises InputError.
    """
    image, label, key = _item(obj, row, kind)
    return _image(image, f"{kind}[{row}]"), _label(label, f"{kind}[{row}]"), key


def _item(obj: Any, row: int, kind: str) -> tuple[Any, Any, str]:
    """Image, label and the label's key, if any, of one row."""
    try:
        item = obj[row]
    except (TypeError, KeyError, IndexError) as error:
        raise InputError(f"{kind}[{row}] fails: give a data set that is indexed by row numbers") from error
    if isinstance(item, Mapping):
        image, label = (next((k for k in keys if k in item), None) for keys in (IMAGE_KEYS, LABEL_KEYS))
        if image is None or label is None:
            held = ", ".join(map(str, item))
            raise InputError(f"{kind}[{row}] holds {held}; rename its columns to image and label")
        return item[image], item[label], label
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise InputError(f"{kind}[{row}] is a {type(item).__name__}; an (image, label) pair or a dictionary is read")
    return item[0], item[1], ""


def _picture(image: Any) -> np.ndarray:
    """Pixels of a picture of pillow; palettes are looked up."""
    image = image.convert("RGB") if image.mode == "P" else image
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"colour mode {image.mode}; convert it to grey (L) or RGB")
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels


def _tensor(image: Any) -> np.ndarray:
    return image.detach().cpu().numpy()  # channels first, as torch has them


def _array(image: Any) -> np.ndarray:
    """An array with its channels first: the axis that is 1, 3 or 4 long, the last one if both could be."""
    values = np.asarray(image)
    last = values.ndim == 3 and values.shape[2] in (1, 3, 4)
    return values.transpose(2, 0, 1) if last else values


READERS: Mapping[str, Callable[[Any], np.ndarray]] = {
    "PIL": _picture,
    "torch": _tensor,
    "numpy": _array,
    "builtins": _array,  # nested lists, as Hugging Face gives arrays
}


def _image(image: Any, where: str) -> np.ndarray:
    """One image (channels, height, width), or a row of another rank as it is."""
    libraries = [base.__module__.split(".")[0] for base in type(image).__mro__]
    reader = next((READERS[library] for library in libraries if library in READERS), _array)
    try:
        values = reader(image)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error
    if values.dtype.kind not in "biuf" or values.ndim == 0 or values.size == 0:
        raise InputError(f"{where}: an image of {values.dtype} {values.shape}; give numbers")
    return values[None] if values.ndim == 2 else values


def _label(label: Any, where: str) -> int:
    values = np.asarray(label)
    if values.size != 1 or values.dtype.kind not in "biu":
        raise InputError(f"{where}: label {label!r}; give one whole number, the class")
    return int(values.reshape(()))


def names_of(obj: Any, key: str) -> tuple[str, ...]:
    """Names of the classes, of torchvision's or Hugging Face's making; none if there are none."""
    features = getattr(obj, "features", None)
    column = features.get(key) if isinstance(features, Mapping) else None
    return tuple(map(str, getattr(column, "names", None) or getattr(obj, "classes", None) or ()))
