"""ONNX operators that slide a window or change the size of a picture: pooling and resizing."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maxaffine.errors import CaptureError

MAX_POOL: tuple[Callable[..., Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVG_POOL: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
Sizes = Sequence[int]
K = TypeVar("K")
V = TypeVar("V")


def pads_of(
    sizes: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, pads: Sizes | None, auto_pad: str
) -> tuple[list[int], list[int]]:
    """The padding before and after each axis; SAME_* makes the output ceil(size / stride)."""
    n = len(kernel)
    if auto_pad == "NOTSET":
        pads = list(pads or [0] * 2 * n)
        return pads[:n], pads[n:]
    if auto_pad == "VALID":
        return [0] * n, [0] * n
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise CaptureError(f"auto_pad '{auto_pad}' is not NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    windows = zip(sizes, kernel, stride, dilation, strict=True)
    needed = [max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size) for size, k, s, d in windows]
    small, large = [p // 2 for p in needed], [p - p // 2 for p in needed]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def max_pool(
    x: Tensor,
    kernel_shape: Sizes,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sizes | None = None,
    pads: Sizes | None = None,
    strides: Sizes | None = None,
) -> Tensor:
    """Largest in each window; a padding torch cannot do itself is one of -inf, which no window picks."""
    n = _dimensions(x, kernel_shape)
    dilation, stride = list(dilations or [1] * n), list(strides or [1] * n)
    before, after = pads_of(x.shape[2:], kernel_shape, stride, dilation, pads, auto_pad)
    if before != after or any(2 * p > k for p, k in zip(before, kernel_shape, strict=True)):
        starts = [size + p for size, p in zip(x.shape[2:], before, strict=True)]
        padded = F.pad(x, _interleaved(before, after), value=-math.inf)
        pooled = MAX_POOL[n - 1](padded, list(kernel_shape), stride, 0, dilation, bool(ceil_mode))
        return _without_late(pooled, starts, stride) if ceil_mode else pooled
    return MAX_POOL[n - 1](x, list(kernel_shape), stride, before, dilation, bool(ceil_mode))


def average_pool(
    x: Tensor,
    kernel_shape: Sizes,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sizes | None = None,
    pads: Sizes | None = None,
    strides: Sizes | None = None,
) -> Tensor:
    """Mean of each window, over the padding too if `count_include_pad`."""
    n = _dimensions(x, kernel_shape)
    if dilations and set(dilations) != {1}:
        raise CaptureError(f"dilations {list(dilations)} of an average are not supported")
    stride = list(strides or [1] * n)
    before, after = pads_of(x.shape[2:], kernel_shape, stride, [1] * n, pads, auto_pad)
    pool, kernel = AVG_POOL[n - 1], list(kernel_shape)
    if before == after and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return pool(x, kernel, stride, before, bool(ceil_mode), bool(count_include_pad))
    starts = [size + p for size, p in zip(x.shape[2:], before, strict=True)]

    def padded_mean(z: Tensor) -> Tensor:
        pooled = pool(F.pad(z, _interleaved(before, after)), kernel, stride, 0, bool(ceil_mode))
        return _without_late(pooled, starts, stride) if ceil_mode else pooled

    if count_include_pad:
        return padded_mean(x)
    return padded_mean(x) / padded_mean(x.new_ones((1, 1, *x.shape[2:])))  # the share that is no padding


def _without_late(pooled: Tensor, starts: Sizes, stride: Sizes) -> Tensor:
    """Without the windows that `ceil_mode` would start in the padding at the end."""
    for i, (start, step) in enumerate(zip(starts, stride, strict=True)):
        count = min(pooled.shape[2 + i], -(-start // step))
        pooled = pooled if count == pooled.shape[2 + i] else pooled.narrow(2 + i, 0, count)
    return pooled


def global_average_pool(x: Tensor) -> Tensor:
    """Mean over all pixels of each channel."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """Largest of all pixels of each channel."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def _dimensions(x: Tensor, kernel: Sizes) -> int:
    n = len(kernel)
    if not 1 <= n <= 3 or x.dim() != n + 2:
        raise CaptureError(f"a window {list(kernel)} does not fit the input {tuple(x.shape)}")
    return n


def _interleaved(before: Sizes, after: Sizes) -> list[int]:
    """The order of F.pad: last axis first, before and after."""
    return [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]


# ---- resizing ----------------------------------------------------------------------------------
def upsample(x: Tensor, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    """Upsample (opset 7 to 9) and Resize of opset 10: pixel i comes from i / scale."""
    if any(scale < 1 and 1 / scale % 1 for scale in scales):
        raise CaptureError(f"scales {list(scales)}: which pixel is nearest was only defined in opset 11")
    place = "asymmetric"
    return resize(x, scales, mode=mode, coordinate_transformation_mode=place, nearest_mode="floor")


def resize(
    x: Tensor,
    scales: Sequence[float] | None = None,
    sizes: Sequence[float] | None = None,
    axes: Sizes | None = None,
    antialias: int = 0,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """A picture at another size: nearest in any coordinate mode, linear and cubic in those that torch has."""
    if antialias or exclude_outside or (sizes and keep_aspect_ratio_policy != "stretch"):
        raise CaptureError("antialias, exclude_outside and keep_aspect_ratio_policy are not supported")
    rank, places = x.dim(), range(-x.dim(), 0) if axes is None else axes
    old = {axis: int(x.shape[axis]) for axis in range(2 - rank, 0)}
    wanted = dict(zip(places, sizes or scales or (), strict=True))
    if any(wanted.pop(axis, 1) not in (1, x.shape[axis]) for axis in (-rank, 1 - rank)):
        raise CaptureError("only the pixels may be resized, not the batch or the channels")
    # in single precision as the standard stores them: it decides the ties of the nearest pixel
    factor = {a: np.float32(wanted.get(a, old[a]) / old[a] if sizes else wanted.get(a, 1.0)) for a in old}
    new = {a: int(wanted.get(a, old[a])) if sizes else math.floor(old[a] * factor[a]) for a in old}
    if mode == "nearest":
        y = _nearest(x, old, new, factor, coordinate_transformation_mode, nearest_mode)
    else:
        y = _smooth(x, old, new, factor, mode, coordinate_transformation_mode, cubic_coeff_a, given=not sizes)
    if any(y.shape[axis] != size for axis, size in new.items()):
        raise CaptureError(f"the sizes {list(y.shape[2:])} are not those asked for, {[new[a] for a in sorted(new)]}")
    return y


Place = Callable[[int, np.float32, int, int], float]  # (new pixel, factor, old size, new size) -> old place


def _asymmetric(i: int, factor: np.float32, _old: int, _new: int) -> float:
    return float(i / factor)


def _half_pixel(i: int, factor: np.float32, _old: int, _new: int) -> float:
    return float((i + 0.5) / factor - 0.5)


def _pytorch_half_pixel(i: int, factor: np.float32, _old: int, new: int) -> float:
    return float((i + 0.5) / factor - 0.5) if new > 1 else 0.0


def _align_corners(i: int, _factor: np.float32, old: int, new: int) -> float:
    return float(np.float32(i * (old - 1)) / np.float32(new - 1)) if new > 1 else 0.0


PLACES: dict[str, Place] = {
    "asymmetric": _asymmetric,
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
}
ROUND: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda place: math.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: math.floor(place + 0.5),
}


def _nearest(
    x: Tensor,
    old: dict[int, int],
    new: dict[int, int],
    factor: dict[int, np.float32],
    coordinates: str,
    rounding: str,
) -> Tensor:
    place, whole = _lookup(PLACES, coordinates, "coordinate mode"), _lookup(ROUND, rounding, "nearest mode")
    source = {
        a: [min(max(whole(place(i, factor[a], old[a], new[a])), 0), old[a] - 1) for i in range(new[a])] for a in old
    }
    if all(source[a] == [i * old[a] // new[a] for i in range(new[a])] for a in old) and 3 <= x.dim() <= 5:
        return F.interpolate(x, [new[a] for a in sorted(old)], mode="nearest")
    for axis, indices in source.items():
        if indices != list(range(old[axis])):
            x = x.index_select(axis, torch.tensor(indices, device=x.device))
    return x


SMOOTH_MODES = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}


def _smooth(
    x: Tensor,
    old: dict[int, int],
    new: dict[int, int],
    factor: dict[int, np.float32],
    mode: str,
    coordinates: str,
    a: float,
    *,
    given: bool,
) -> Tensor:
    name = _lookup(_lookup(SMOOTH_MODES, mode, "mode"), x.dim(), f"rank of the input of mode '{mode}'")
    place = _lookup(PLACES, coordinates, "coordinate mode")
    lone = coordinates == "pytorch_half_pixel" and 1 in new.values()
    # from a factor torch finds the size in double precision, which may be another
    other = given and coordinates != "align_corners" and any(int(old[k] * float(factor[k])) != new[k] for k in old)
    if coordinates == "asymmetric" or lone or other or (mode == "cubic" and a != -0.75):  # torch has none of these
        for axis in old:
            taps = _taps(place, factor[axis], old[axis], new[axis], _linear if mode == "linear" else partial(_cubic, a))
            x = (x.transpose(axis, -1) @ torch.tensor(taps, dtype=x.dtype, device=x.device).T).transpose(axis, -1)
        return x
    if coordinates == "align_corners":
        return F.interpolate(x, [new[k] for k in sorted(new)], mode=name, align_corners=True)
    if given:
        return F.interpolate(x, scale_factor=[float(factor[k]) for k in sorted(new)], mode=name, align_corners=False)
    return F.interpolate(x, [new[k] for k in sorted(new)], mode=name, align_corners=False)


def _linear(part: float) -> dict[int, float]:
    return {0: 1 - part, 1: part}


def _cubic(a: float, part: float) -> dict[int, float]:
    """The weights of four pixels around a place, Keys 1981."""
    near = {k: (a + 2) * t**3 - (a + 3) * t**2 + 1 for k, t in ((0, part), (1, 1 - part))}
    far = {k: a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a for k, t in ((-1, 1 + part), (2, 2 - part))}
    return near | far


def _taps(
    place: Place, factor: np.float32, old: int, new: int, weights: Callable[[float], dict[int, float]]
) -> list[list[float]]:
    """The matrix (new, old) of an interpolation along one axis; what lies outside is the pixel at the border."""
    matrix = [[0.0] * old for _ in range(new)]
    for i, row in enumerate(matrix):
        at = place(i, factor, old, new)
        for k, weight in weights(at - math.floor(at)).items():
            row[min(max(math.floor(at) + k, 0), old - 1)] += weight
    return matrix


def _lookup(table: Mapping[K, V], key: K, what: str) -> V:
    if key not in table:
        raise CaptureError(f"{what} '{key}' is not supported, only {', '.join(map(str, table))}")
    return table[key]
