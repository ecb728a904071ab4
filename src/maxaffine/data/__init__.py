"""Data: rows as they are stored and their labels, from files, well-known data sets or other libraries' objects.

>>> data = load("digits")
>>> data.inputs.shape, data.inputs.dtype, len(data.classes)
((1437, 1, 8, 8), dtype('uint8'), 10)

`load` knows data sets by name, `read` any ``.npz``, ``.npy``, IDX (the MNIST format, also gzipped) or folder of PNG or
JPEG images whose sub-folders are the classes, `as_dataset` any map-style data set of another library, `as_stream` all
of these, some rows at a time. Values are returned as stored; how they are scaled is said by the caller: `normalise` is
the paper's way. `Balanced` draws class-balanced batches.
"""

from maxaffine.data.dataset import BROKEN, Contents, Dataset
from maxaffine.data.doors import as_stream
from maxaffine.data.files import KINDS, read
from maxaffine.data.named import load
from maxaffine.data.objects import as_dataset
from maxaffine.data.sampling import Balanced
from maxaffine.data.scaling import normalise
from maxaffine.data.streams import Failed, Rows, Stream, first_row

__all__ = [
    "BROKEN",
    "KINDS",
    "Balanced",
    "Contents",
    "Dataset",
    "Failed",
    "Rows",
    "Stream",
    "as_dataset",
    "as_stream",
    "first_row",
    "load",
    "normalise",
    "read",
]
