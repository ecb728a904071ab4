"""Power diagrams: the cells of a layer as nearest centroids, up to a radius a cell.

argmax_r <a_r, x> + b_r = argmin_r |x - a_r|^2 - rad_r      with rad_r = |a_r|^2 + 2 b_r

because |x - a_r|^2 - rad_r = |x|^2 - 2 (<a_r, x> + b_r). A layer sums its units: the code (r_1 ... r_K) has the
centroid mu = sum_k a_{k, r_k} and rad = |mu|^2 + 2 sum_k b_{k, r_k}. With all radii equal this is K-means.
Source: Aurenhammer 1987 (power diagrams); Balestriero, Cosentino, Aazhang & Baraniuk 2019, arXiv 1905.08443.
"""

from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.codebook.steps import built, step_of
from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.operators.elementwise import Elementwise
from maxaffine.operators.maso import MASO
from maxaffine.operators.maximum import Pair, Windows
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.plan import Plan
from maxaffine.spline import Spline, through
from maxaffine.types import flat

WORDS = 2**16  # of a whole joint codebook


@dataclass(frozen=True, eq=False)
class PowerDiagram:
    """M cells of R^D by centroids (M, *in) and radii (M,): x is in the cell of least |x - centroid|^2 - radius.

    The radii are squared ones and may be negative; adding a number to all of them changes nothing.

    >>> diagram = PowerDiagram(torch.tensor([[0.0], [4.0]]), torch.tensor([0.0, 8.0]))
    >>> x = torch.tensor([[0.5], [1.5]])
    >>> diagram.assign(x).tolist(), diagram.nearest(x).tolist()
    ([0, 1], [0, 0])
    """

    centroids: Tensor
    radii: Tensor

    def __post_init__(self) -> None:
        arguments.floats(self.centroids, "centroids", "a tensor (M, *in)")
        arguments.floats(self.radii, "radii", "a tensor (M,)")
        if self.centroids.dim() < 2 or self.radii.shape != self.centroids.shape[:1] or not len(self.radii):
            shapes = f"{tuple(self.centroids.shape)} and {tuple(self.radii.shape)}"
            raise InputError(f"centroids and radii have shapes {shapes}; give (M, *in) and (M,) with M >= 1")

    def __len__(self) -> int:
        return len(self.radii)

    def assign(self, x: Tensor) -> Tensor:
        """The cell of each x (N, *in): the least power |x - centroid|^2 - radius, of equal ones the lowest number."""
        heights = (self.radii - flat(self.centroids).square().sum(1)) / 2
        return (self._products(x) + heights).argmax(1)

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest centroid of each x, whatever the radii: the Voronoi cell, the assignment of K-means."""
        return (self._products(x) - flat(self.centroids).square().sum(1) / 2).argmax(1)

    def power(self, x: Tensor) -> Tensor:
        """|x - centroid|^2 - radius of each x for every cell, (N, M)."""
        return (
            flat(x).square().sum(1)[:, None]
            - 2 * self._products(x)
            + (flat(self.centroids).square().sum(1) - self.radii)
        )

    def _products(self, x: Tensor) -> Tensor:
        centres = self.centroids
        arguments.rows(x, "x", tuple(centres.shape[1:]), centres.dtype, centres.device, "the power diagram")
        return flat(x) @ flat(centres).T


def unit_diagram(maso: MASO, unit: int) -> PowerDiagram:
    """The cells of one unit: centroid a_r and radius |a_r|^2 + 2 b_r of each piece; `assign` is the unit's code.

    >>> diagram = unit_diagram(MASO(torch.tensor([[[0.0], [2.0]]]), torch.tensor([[0.0, -2.0]])), 0)
    >>> diagram.radii.tolist(), diagram.assign(torch.tensor([[0.9], [1.1]])).tolist()
    ([0.0, 0.0], [0, 1])
    """
    arguments.require(maso, MASO, "maso", "a MASO such as maxaffine.maso_of(spline, name)")
    k = arguments.whole(unit, "unit", 0, maso.K - 1)
    return PowerDiagram(maso.A[k], maso.A[k].square().sum(1) + 2 * maso.B[k])


def layer_diagram(maso: MASO, codes: Tensor | None = None) -> PowerDiagram:
    """The cells of a layer: centroid sum_k a_{k, r_k} and radius |centroid|^2 + 2 sum_k b_{k, r_k} of each code.

    codes: (M, K) the codewords wanted (default: all R^K, see `codewords`); `assign` then gives the place of a code in
    them. Raises MemoryBudgetError for more than 65,536 of them.

    >>> relu = MASO(torch.stack([torch.zeros(2, 2), torch.eye(2)], 1), torch.zeros(2, 2))
    >>> layer_diagram(relu).assign(torch.tensor([[1.0, -1], [-1, -1]])).tolist(), codewords(2, 2).tolist()
    ([2, 0], [[0, 0], [0, 1], [1, 0], [1, 1]])
    """
    arguments.require(maso, MASO, "maso", "a MASO such as maxaffine.maso_of(spline, name)")
    words = codewords(maso.K, maso.R).to(maso.A.device) if codes is None else codes
    arguments.values(words, "codes", f"whole numbers (M, {maso.K}), one a unit")
    if words.dim() != 2 or words.shape[1] != maso.K or words.is_floating_point():
        raise InputError(f"codes is {arguments.told(words)}; give whole numbers (M, {maso.K}), one a unit")
    if words.numel() and not 0 <= int(words.min()) <= int(words.max()) < maso.R:
        raise InputError(
            f"codes go from {int(words.min())} to {int(words.max())}; the units have pieces 0 to {maso.R - 1}"
        )
    units = torch.arange(maso.K, device=maso.A.device)
    A, B = maso.A[units, words.long()], maso.B[units, words.long()]
    centroids = A.sum(1)
    return PowerDiagram(centroids, centroids.square().sum(1) + 2 * B.sum(1))


def codewords(units: int, pieces: int) -> Tensor:
    """All codes of a layer, (R^K, K) int64, the last unit changing fastest: the joint codebook.

    A factorial code reads K codebooks of R words; this is the one of R^K words that it stands for. Raises
    MemoryBudgetError for more than 65,536 words.
    """
    k, r = arguments.whole(units, "units"), arguments.whole(pieces, "pieces")
    if r**k > WORDS:
        raise MemoryBudgetError(f"{k} units of {r} pieces have {r}^{k} codes; give the codes wanted, (M, {k})")
    return torch.cartesian_prod(*[torch.arange(r)] * k).reshape(-1, k)


def joint_code(maso: MASO, x: Tensor) -> Tensor:
    """The code (N, K) of a layer whose centroids compete as one K-means codebook: the nearest of all R^K, no radii.

    It equals the factorial code maso.code(x), unit by unit, exactly when all radii are equal: with tied offsets
    B = -|A|^2 / 2 where the pieces of different units are orthogonal. The search costs R^K instead of K R.
    Source: Balestriero & Baraniuk 2019, arXiv 1810.09274 (orthogonal filters make joint quantisation tractable).

    >>> A = torch.eye(4).reshape(2, 2, 4)
    >>> maso, x = MASO(A, -A.square().sum(2) / 2), torch.tensor([[0.3, 0.1, -2.0, 1.0]])
    >>> joint_code(maso, x).tolist(), maso.code(x).tolist()
    ([[0, 1]], [[0, 1]])
    """
    diagram = layer_diagram(maso)
    return codewords(maso.K, maso.R).to(x.device)[diagram.nearest(x)]


def network_diagram(spline: Spline, x: Tensor, name: str, *, input: str | None = None) -> PowerDiagram:
    """Centroid and radius of each signal's cell at one operator: mu = J^T 1 and rad = |mu|^2 + 2 1^T b.

    J and b are the affine map from the network's input to the operator's output, frozen at the code of x: one product
    with J^T, no matrix is built. Row n of the diagram is the cell of x[n]. Within one cell of the operators before it,
    assignment to these (one row a code) is the operator's code: each cell is subdivided by a power diagram of its own.
    Across such cells the rows do not belong to one diagram. input: the name of an operator, whose output space is taken
    instead of the network's input (the operator just before gives the diagram of the layer alone, the same for all x).

    The operator must be convex in each unit (ReLU, leaky ReLU, abs, maxima): of another, such as hardtanh, this is
    refused, because its pieces do not compete for the largest value. Raises NotPiecewiseAffineError, InputError.
    Source: Balestriero, Cosentino, Aazhang & Baraniuk 2019, arXiv 1905.08443 (Theorem 4; their code takes J^T z).

    >>> import maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).double()
    >>> x = torch.randn(50, 2, dtype=torch.float64)
    >>> spline = ma.Spline(net, x)
    >>> diagram = network_diagram(spline, x, "1")
    >>> bool((spline.code(x[diagram.assign(x)]) == spline.code(x)).all())
    True
    """
    competing(spline, name)
    f = through(spline, x, name, input=input)
    mu = f.vm(torch.ones(len(x), *f.out_shape, dtype=spline.dtype, device=spline.device))
    return PowerDiagram(mu, flat(mu).square().sum(1) + 2 * flat(f.b).sum(1))


def competing(spline: Spline, name: str) -> None:
    """Raise InputError unless in every unit of an operator the piece taken is the one of largest value."""
    plan = Plan(arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)").captured.graph)
    operator = built(spline, plan, step_of(spline, plan, name))
    if not convex(operator):
        raise InputError(f"{name!r} ({operator.name}) is not convex: its pieces do not compete for the largest value")


@singledispatch
def convex(operator: SplineOperator) -> bool:
    """Whether each unit of an operator is the largest of its pieces."""
    raise InputError(f"{operator.name} is an operator of your own, of which only its code is known: it has no diagram")


@convex.register
def _(operator: Elementwise) -> bool:
    return all(bool((torch.as_tensor(b) >= torch.as_tensor(a)).all()) for a, b in pairwise(operator.slopes))


@convex.register
def _(operator: Windows | Pair) -> bool:
    return operator.sign > 0


def head_diagram(weight: Tensor, bias: Tensor | None = None) -> PowerDiagram:
    """The classes of a linear head (C, D) as a power diagram: centroids w_c / 2 and radii b_c + |w_c|^2 / 4.

    argmax_c <w_c, z> + b_c is the cell of z. Gap between best and second power: the score margin.

    >>> head = torch.nn.Linear(2, 3)
    >>> z = torch.randn(20, 2)
    >>> diagram = head_diagram(head.weight.detach(), head.bias.detach())
    >>> torch.equal(diagram.assign(z), head(z).argmax(1))
    True
    """
    arguments.floats(weight, "weight", "the weight (C, D) of a linear layer")
    if bias is not None:
        arguments.floats(bias, "bias", "the bias (C,) of a linear layer")
    if weight.dim() != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        given = arguments.told(bias) if bias is not None else "None"
        raise InputError(f"weight is {arguments.told(weight)} and bias {given}; give (C, D) and (C,)")
    offset = torch.zeros_like(weight[:, 0]) if bias is None else bias
    return PowerDiagram(weight / 2, offset + weight.square().sum(1) / 4)
