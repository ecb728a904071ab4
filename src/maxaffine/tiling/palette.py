"""Calm colours of equal lightness, computed in OKLCH, where equal steps look equal.

Source of the colour space: B. Ottosson, 2020, "A perceptual color space for image processing".
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bytes = NDArray[np.uint8]

TINT_HUES = (250.0, 80.0, 160.0, 310.0, 205.0, 25.0)
CLASS_HUES = (250.0, 55.0, 155.0, 345.0, 100.0, 300.0, 200.0, 20.0, 128.0, 275.0)
SHADES = (0.0, 0.036, -0.036, 0.018, -0.018, 0.054)  # lightness of the six cell colours within one class

DARKER = 0.36  # so much less lightness on a dark page

# OKLab -> cube roots of the cone responses -> linear sRGB.
TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def oklch(lightness: ArrayLike, chroma: float, hue: ArrayLike) -> Bytes:
    """Colours as sRGB bytes (n, 3) of lightness 0 to 1, chroma and hue in degrees.

    >>> oklch(1.0, 0.0, 0.0).tolist(), oklch(0.628, 0.2577, 29.23).tolist()
    ([[255, 255, 255]], [[255, 0, 0]])
    """
    light, angle = np.broadcast_arrays(np.atleast_1d(np.asarray(lightness, float)), np.deg2rad(hue))
    lab = np.stack([light, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)
    linear = ((lab @ TO_CONES.T) ** 3 @ TO_RGB.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


def tints(dark: bool = False) -> Bytes:
    """The six colours of cells (6, 3), for a light or a dark page."""
    light = np.array([0.86, 0.89, 0.83, 0.85, 0.90, 0.82])
    return oklch(light - DARKER * dark, 0.048, TINT_HUES)


def class_tints(count: int, dark: bool = False) -> Bytes:
    """For each of ``count`` classes six shades of its hue (count, 6, 3); after ten classes the hues come again."""
    shades = 0.80 - DARKER * dark + np.array(SHADES)
    turns = [shades - 0.07 * (k // len(CLASS_HUES) % 3) for k in range(count)]
    hues = [CLASS_HUES[k % len(CLASS_HUES)] for k in range(count)]
    return np.stack([oklch(turn, 0.085, hue) for turn, hue in zip(turns, hues, strict=True)])


def ramp(count: int) -> Bytes:
    """Colours for small to large values (count, 3): from dark violet to light yellow, in equal steps of lightness."""
    share = np.linspace(0, 1, count)
    return oklch(0.32 + 0.58 * share, 0.1, 300 - 200 * share)
