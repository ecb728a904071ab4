"""Distributions of numbers that arrive in chunks: exact histograms whose bins widen, with mean, spread and range.

The range of <A_c, x> is not known before the pass, and the scores of a cheap first pass do not bound it (they have the
biases in them). So bins are [k 2^e, (k+1) 2^e): when a number lies outside, e grows, and pairs of bins become one. Bins
of exponent e + 1 are unions of bins of exponent e and v / 2^e is exact in binary, so that the counts are those of all
numbers with the last bins. These depend on the largest |v| alone: not on the order, the chunks or who merges what.
"""

from dataclasses import dataclass
from math import frexp, inf, nan, sqrt

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError

MOST = 2**20  # bins
LEAST = -1000  # no finer bins than 2^LEAST: 2^-e must be a number


@dataclass(frozen=True, eq=False)
class Distribution:
    """How numbers are distributed: counts (B,) int64 in bins [k 2^e, (k+1) 2^e), -B/2 <= k < B/2; count, mean, range.

    squares: sum of squared deviations from the mean. Made by `distribution`, joined by `merge_distributions`.
    """

    counts: Tensor
    exponent: int
    count: int
    mean: float
    squares: float
    low: float
    high: float

    @property
    def edges(self) -> Tensor:
        """(B + 1,) float64: the exact edges of the bins."""
        half = len(self.counts) // 2
        return torch.arange(-half, half + 1, dtype=torch.float64) * 2.0**self.exponent

    @property
    def std(self) -> float:
        """Standard deviation over all numbers (divided by their count)."""
        return sqrt(self.squares / self.count) if self.count else nan

    def __str__(self) -> str:
        spread = f"{self.mean:.4g} +- {self.std:.4g} from {self.low:.4g} to {self.high:.4g}"
        return f"{spread} ({self.count:,})" if self.count else "none"


def distribution(values: Tensor, bins: int = 512, reach: float | None = None) -> Distribution:
    """The distribution of the numbers in a tensor; NaN (what is not defined) is left out, so that count tells.

    bins: a power of two. reach: a power of two that bounds |v| (cosines: 1): the bins are those of [-reach, reach],
    the last one closed. Raises InputError for infinite values or another number of bins.

    >>> found = distribution(torch.tensor([-0.5, 0.25, 0.75]), bins=4)
    >>> found.edges.tolist(), found.counts.tolist()
    ([-1.0, -0.5, 0.0, 0.5, 1.0], [0, 1, 1, 1])
    """
    if not isinstance(bins, int) or not 2 <= bins <= MOST or bins & (bins - 1):
        raise InputError(f"bins={bins}; give a power of two up to {MOST}, such as 512")
    if arguments.values(values, "values", "a tensor of real numbers").is_complex():
        raise InputError(f"values is {arguments.told(values)}; give a tensor of real numbers")
    if reach is not None and not (arguments.is_number(reach) and reach > 0 and frexp(reach)[0] == 0.5):
        raise InputError(f"reach={arguments.told(reach)}; give a power of two that bounds the values, such as 1.0")
    v = values.detach().double().flatten()
    v = v[~v.isnan()]
    half = bins // 2
    if not len(v):
        return Distribution(torch.zeros(bins, dtype=torch.long), LEAST, 0, nan, 0.0, inf, -inf)
    low, high, mean = (float(s) for s in (v.min(), v.max(), v.mean()))
    if max(-low, high) == inf:
        raise InputError("a distribution of infinite values; the network overflows, use spline.to(torch.float64)")
    if reach is not None and max(-low, high) > reach:
        raise InputError(f"a value of {max(-low, high):g} lies beyond reach={reach:g}; give a larger one, or none")
    exponent = _exponent(max(-low, high) if reach is None else reach, half, closed=reach is not None)
    places = (v * 2.0**-exponent).floor().long()
    counts = torch.bincount(places.clamp(-half, half - 1) + half, minlength=bins).cpu()
    return Distribution(counts, exponent, len(v), mean, float((v - mean).square().sum()), low, high)


def merge_distributions(p: Distribution, q: Distribution) -> Distribution:
    """The distribution of the numbers of both. Raises InputError when they differ in their number of bins."""
    if len(p.counts) != len(q.counts):
        raise InputError(f"distributions of {len(p.counts)} and {len(q.counts)} bins cannot be merged")
    if not p.count or not q.count:
        return p if p.count else q
    exponent, count = max(p.exponent, q.exponent), p.count + q.count
    step = q.mean - p.mean  # Chan, Golub & LeVeque 1979: no difference of large sums
    return Distribution(
        _widened(p, exponent) + _widened(q, exponent),
        exponent,
        count,
        p.mean + step * q.count / count,
        p.squares + q.squares + step * step * p.count * q.count / count,
        min(p.low, q.low),
        max(p.high, q.high),
    )


def _exponent(peak: float, half: int, closed: bool) -> int:
    """The least e with peak < 2^e B/2 (closed: <=)."""
    mantissa, power = frexp(peak)
    power -= closed and mantissa == 0.5
    return max(power - (half.bit_length() - 1), LEAST) if peak else LEAST


def _widened(p: Distribution, exponent: int) -> Tensor:
    """Counts in bins of a larger exponent: bin k goes to floor(k / 2^shift)."""
    half, shift = len(p.counts) // 2, min(exponent - p.exponent, 62)
    places = (torch.arange(-half, half) >> shift) + half
    return torch.zeros_like(p.counts).index_add_(0, places, p.counts)
