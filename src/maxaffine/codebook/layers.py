"""Layers whose offsets are tied to their slopes, B = -|A|^2 / 2: the largest output is that of the nearest centroid.

argmax_r <a_r, x> - |a_r|^2 / 2 = argmin_r |x - a_r|^2      so that each unit does K-means with the centroids a_r
"""

from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine import arguments
from maxaffine.operators.maso import MASO


def tied_bias(weight: Tensor) -> Tensor:
    """-|w|^2 / 2 of each row (or kernel) of a weight (R, *in): (R,)."""
    return -weight.flatten(1).square().sum(1) / 2


class TiedLinear(nn.Linear):
    """A linear layer without a bias of its own: <w_r, x> - |w_r|^2 / 2, largest where w_r is nearest to x.

    As a last layer it classifies by nearest centroid. Source: Balestriero & Baraniuk 2018, arXiv 1805.06576.

    >>> import torch
    >>> layer, x = TiedLinear(3, 5), torch.randn(20, 3)
    >>> torch.equal(layer(x).argmax(1), torch.cdist(x, layer.weight).argmin(1))
    True
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, D) -> (N, R)."""
        return F.linear(input, self.weight, tied_bias(self.weight))


class TiedConv2d(nn.Conv2d):
    """A convolution without a bias of its own: at each place the largest channel is the kernel nearest to the patch.

    kernel_size, stride, padding, dilation and groups are those of torch's; padding counts as patches of zeros.

    >>> import torch
    >>> layer = TiedConv2d(1, 4, 3)
    >>> patches = torch.nn.functional.unfold(x := torch.randn(1, 1, 5, 5), 3)[0].T
    >>> nearest = torch.cdist(patches, layer.weight.flatten(1)).argmin(1)
    >>> torch.equal(layer(x).argmax(1).flatten(), nearest)
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, R, H', W')."""
        return self._conv_forward(input, self.weight, tied_bias(self.weight))


class TiedMaxout(nn.Module):
    """A max-affine layer of K units with R pieces whose offsets are tied: z_k = max_r <A_kr, x> - |A_kr|^2 / 2.

    The code of unit k is the nearest of its R centroids A_k; its value is (|x|^2 - distance^2) / 2. It trains like any
    layer and is captured as one: amax with R pieces. Source: Balestriero & Baraniuk 2018, arXiv 1805.06576.

    >>> import torch, maxaffine as ma
    >>> layer, x = TiedMaxout(3, units=4, pieces=5), torch.randn(20, 3)
    >>> code = ma.Spline(layer, x).code(x)["amax"]
    >>> torch.equal(code.long(), torch.stack([torch.cdist(x, a).argmin(1) for a in layer.centroids], 1))
    True
    """

    def __init__(self, in_features: int, units: int, pieces: int) -> None:
        super().__init__()
        sizes = [arguments.whole(n, name) for n, name in ((units, "units"), (pieces, "pieces"))]
        self.shape = (sizes[0], sizes[1])
        self.linear = TiedLinear(arguments.whole(in_features, "in_features"), sizes[0] * sizes[1])

    @property
    def centroids(self) -> Tensor:
        """(K, R, D)."""
        return self.linear.weight.unflatten(0, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        return self.linear(x).unflatten(-1, self.shape).amax(-1)


def tied(A: Tensor) -> MASO:
    """The MASO with slopes A (K, R, D) and the offsets of K-means, B = -|A|^2 / 2.

    >>> import torch
    >>> tied(torch.tensor([[[1.0], [3.0]]])).code(torch.tensor([[1.9], [2.1]])).tolist()
    [[0], [1]]
    """
    arguments.floats(A, "A", "slopes (K, R, D)")
    return MASO(A, -A.square().sum(-1) / 2)
