"""The paper's scaling of images."""

import numpy as np
import torch
from torch import Tensor

from maxaffine.arguments import told
from maxaffine.errors import InputError


def normalise(images: Tensor | np.ndarray) -> Tensor:
    """Scale each image by itself: x_n <- (x_n - mean(x_n)) / max |x_n - mean(x_n)|, over all pixels and channels.

    images: (N, *image), at least one value each. Whole numbers become float32; a float dtype and the device are kept.
    The result has mean 0 and values in [-1, 1], and one of them is -1 or 1. A constant image says nothing and becomes
    all zeros. Adding a constant to an image, or a positive factor, changes nothing.

    >>> normalise(torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0]]))
    tensor([[-0.6667, -0.3333,  0.0000,  1.0000],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])

    Raises:
        InputError: there is no image axis, an image is empty or complex, or holds NaN or infinite values.

    Source: the experiments of Balestriero and Baraniuk, 2018, arXiv 1805.06576.
    """
    try:
        rows = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"images is {told(images)}; give real numbers of shape (N, *image)") from None
    if rows.dim() < 2 or rows[:1].numel() == 0 or rows.is_complex():
        raise InputError(f"images are {rows.dtype} {tuple(rows.shape)}; give real numbers of shape (N, *image)")
    rows = rows if rows.is_floating_point() else rows.float()
    flat = rows.flatten(1)
    low, high = flat.aminmax(dim=1, keepdim=True)
    bad = ~(low.isfinite() & high.isfinite())
    if bad.any():
        raise InputError(f"image {int(bad.int().argmax())} holds NaN or infinite values; clean it first")
    mean = flat.mean(1, keepdim=True)
    # The mean of a constant image is rounded: what is left of it must not be blown up to 1.
    scale = torch.maximum(high - mean, mean - low).masked_fill(low == high, torch.inf)
    return (flat - mean).div_(scale).reshape(rows.shape)
