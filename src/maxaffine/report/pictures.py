"""Pictures: inputs, templates and mosaics as PNG images written into the page itself."""

import base64
import html
import io
from dataclasses import dataclass

import numpy as np

from maxaffine.errors import InputError, MissingExtraError
from maxaffine.types import Shape

# A template's sign is its hue and its size the opacity: zero shows the page behind it, light or dark.
POSITIVE, NEGATIVE = (217, 72, 15), (28, 109, 208)
SMALLEST = 4  # a row with a shorter side than this is a list of numbers, not a picture


@dataclass(frozen=True)
class Layout:
    """How a row is a picture: reshaped to ``shape``, ``axes`` sorts it into height, width, channel.

    >>> layout = layout_of((3, 8, 6))
    >>> layout.pixels(np.zeros(144)).shape
    (8, 6, 3)
    """

    shape: Shape
    axes: Shape

    @property
    def channels(self) -> int:
        """1 of a grey picture, 3 of a colour one."""
        return self.shape[self.axes[2]]

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """Return values of one row as (H, W, 1) or (H, W, 3)."""
        return values.reshape(self.shape).transpose(self.axes)


def layout_of(row: Shape, said: Shape | None = None) -> Layout | None:
    """Return how rows of this shape are pictures, None if they are not; ``said`` is a height and width given.

    Raises:
        InputError: the picture said has another number of values than a row.
    """
    values = int(np.prod(row))
    if said is not None:
        if values not in (said[0] * said[1], 3 * said[0] * said[1]):
            raise InputError(f"a picture of {said[0]} x {said[1]} has not the {values} values of a row {tuple(row)}")
        row = tuple(said) if values == said[0] * said[1] else (3, *said)
    if len(row) == 2:
        row = (1, *row)
    if len(row) != 3:
        return None
    if row[0] in (1, 3) and min(row[1:]) >= SMALLEST:
        return Layout(tuple(row), (1, 2, 0))
    if row[2] in (1, 3) and min(row[:2]) >= SMALLEST:
        return Layout(tuple(row), (0, 1, 2))
    return None


def photograph(pixels: np.ndarray, low: float, high: float, alt: str, size: str = "") -> str:
    """Return an <img> of stored pixels (H, W, 1 or 3), ``low`` black and ``high`` white."""
    grey = (pixels.astype(np.float64) - low) / ((high - low) or 1.0)
    return _img((255 * grey.clip(0, 1)).round().astype(np.uint8), alt, size)


def signed(values: np.ndarray, top: float, alt: str, size: str = "") -> str:
    """Return an <img> of values (H, W): positive orange, negative blue, clear at 0, full at ``top``."""
    strength = (np.abs(values) / (top or 1.0)).clip(0, 1)
    hue = np.where(values[..., None] > 0, np.array(POSITIVE), np.array(NEGATIVE))
    rgba = np.concatenate([hue, (255 * strength).round()[..., None]], axis=2)
    return _img(rgba.astype(np.uint8), alt, f"signed {size}")


def _img(pixels: np.ndarray, alt: str, size: str) -> str:
    height, width = pixels.shape[:2]
    box = f'width="{width}" height="{height}"'
    label = html.escape(alt, quote=True)
    return f'<img class="{size.strip()}" src="{png_address(pixels)}" {box} alt="{label}">'


def png_address(pixels: np.ndarray) -> str:
    """Pixels (H, W, 1, 3 or 4) as a PNG image within its own address, data:image/png."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError('the pictures need pillow: pip install "maxaffine[report]"') from error
    squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(squeezed).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
