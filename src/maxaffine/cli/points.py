"""Points of the input space by word: the number of a row of the data, or a .npy file with one network input."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from maxaffine.data import BROKEN, Dataset
from maxaffine.errors import FileFormatError, InputError
from maxaffine.report import Scaling, fit

if TYPE_CHECKING:
    from maxaffine.types import Shape


@dataclass(frozen=True)
class Source:
    """Where points come from. ``shape``: that of one network input, None where a factory takes what it is given."""

    rows: Dataset | None
    scaling: Scaling
    shape: "Shape | None"

    def point(self, word: str) -> torch.Tensor:
        """One network input (*in), float64: a row as the scaling says, a file as it is."""
        if not word.isdecimal():
            return self._shaped(_read(Path(word)), word)
        rows = self._rows_of(word)
        return fit(rows, self.shape, self.scaling)(rows.inputs[int(word)][None])[0]

    def name(self, word: str) -> str:
        """What stands beside a point: the class of a row if it has one, else the row or the file."""
        if not word.isdecimal():
            return Path(word).stem
        rows = self._rows_of(word)
        if rows.labels is None or rows.labels.dtype.kind != "i":
            return f"row {word}"
        label = int(rows.labels[int(word)])
        return rows.classes[label] if 0 <= label < len(rows.classes) else str(label)

    def _rows_of(self, word: str) -> Dataset:
        if self.rows is None:
            raise InputError(f"{word} is the number of a row: say of which file, --data")
        if int(word) >= len(self.rows):
            raise InputError(f"there is no row {word}: {self.rows.source} has rows 0 to {len(self.rows) - 1}")
        return self.rows

    def _shaped(self, values: np.ndarray, word: str) -> torch.Tensor:
        if self.shape is not None and values.size != math.prod(self.shape):
            raise InputError(f"{word}: an array of shape {values.shape}, the network takes {self.shape}")
        return torch.from_numpy(values if self.shape is None else values.reshape(self.shape))


def _read(path: Path) -> np.ndarray:
    if path.suffix != ".npy":
        raise FileFormatError(f"{path}: a point is the number of a row of --data, or a .npy file")
    try:
        return np.ascontiguousarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: no such file") from error
    except (*BROKEN, TypeError) as error:
        raise FileFormatError(f"{path}: not a readable array of numbers ({error})") from error
