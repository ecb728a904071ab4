"""What every reader returns, and what they have in common."""

import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

# Everything numpy, gzip, zipfile and pillow raise on a file that is cut off or not what its name says.
BROKEN = (ValueError, OSError, EOFError, KeyError, SyntaxError, zlib.error, zipfile.BadZipFile)

Contents = tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]  # rows, labels, class names


@dataclass(frozen=True)
class Dataset:
    """Rows as stored, inputs (N, *row); labels (N,): int64 classes, float64 targets, or None.

    >>> data = Dataset(np.zeros((2, 28, 28), np.uint8), np.array([3, 1]), (), "two.npz")
    >>> len(data), data.row_shape
    (2, (28, 28))
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one stored row."""
        return self.inputs.shape[1:]


def first_line(error: BaseException | str) -> str:
    """Return what an error says in one line: its own first, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
