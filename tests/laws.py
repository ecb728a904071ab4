"""The laws of a network as a composition of spline operators, each an assertion over inputs x (N, *in).

`truth` is the original network as a function; nothing here reads how the package works. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import maxaffine as ma
from maxaffine.types import flat

Truth = Callable[[Tensor], Tensor]
TOLERANCE = 1e-9
NEAR = 1e-7  # closer than this an input counts as being on a wall
STEP = 1e-5  # relative step off a wall: far above rounding, far below the next wall


def assert_close(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    """|found - wanted| <= tolerance * max(1, |wanted|), the largest entry of each deciding; shapes equal."""
    assert found.shape == wanted.shape, f"shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}"
    if wanted.numel():
        error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0)
        assert error <= tolerance, f"off by {error:.3g} relative, allowed {tolerance:.3g}"


def directions(x: Tensor, seed: int = 5) -> Tensor:
    """A random unit vector for each input, of its shape."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    return noise / flat(noise).norm(dim=1).reshape(-1, *[1] * (x.dim() - 1))


def exits(spline: ma.Spline, x: Tensor, along: Tensor) -> Tensor:
    """How far each input can go along its direction before the first wall of its region (N,); at most 10."""

    def exit_of(point: Tensor, step: Tensor) -> Tensor:
        region = spline.region(point)
        slack = region.h - region.G @ point.flatten()
        speed = region.G @ step.flatten()
        times = torch.where(speed > 0, slack.clamp(min=0) / speed, torch.inf)
        return torch.cat((times, torch.tensor([10.0], dtype=x.dtype))).min()

    return torch.stack([exit_of(point, step) for point, step in zip(x, along, strict=True)])


def others(spline: ma.Spline, x: Tensor, fraction: float = 0.9, seed: int = 5) -> Tensor:
    """Another point of each input's region: `fraction` of the way to the first wall in a random direction."""
    along = directions(x, seed)
    return x + fraction * exits(spline, x, along).reshape(-1, *[1] * (x.dim() - 1)) * along


def assert_exact(spline: ma.Spline, truth: Truth, x: Tensor, tolerance: float = TOLERANCE) -> None:
    """spline(x) = f(x), in the dtype of x, and without an autograd graph left behind by code and maps."""
    y = spline(x)
    assert y.dtype == x.dtype
    assert_close(y.detach(), truth(x).detach(), tolerance)


def assert_complete(spline: ma.Spline, truth: Truth, x: Tensor) -> None:
    """f(x) = A[x] x + b[x]: the inner products and the bias add up to the output."""
    f = spline.at(x)
    inner = torch.einsum("nod,nd->no", f.A.reshape(len(x), -1, x[0].numel()), flat(x))
    assert_close(inner.reshape(f.b.shape) + f.b, truth(x).detach())
    assert not f.A.requires_grad and not f.b.requires_grad


def assert_frozen(spline: ma.Spline, truth: Truth, x: Tensor) -> None:
    """f(x') = A[x] x' + b[x] at other points x' of the region of x."""
    f = spline.at(x)
    for fraction in (0.5, 0.99):
        elsewhere = others(spline, x, fraction)
        assert_close(f(elsewhere), truth(elsewhere).detach())


def assert_replay(spline: ma.Spline, truth: Truth, x: Tensor) -> None:
    """The code of x replayed elsewhere in its region is the network there; one code serves many points."""
    code, elsewhere = spline.code(x), others(spline, x)
    assert_close(spline.replay(code, elsewhere), truth(elsewhere).detach())
    steps = torch.linspace(-3, 3, 7, dtype=x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    line = x[:1] + steps * directions(x[:1])
    assert_close(spline.replay(code[0], line), spline.at(x[:1].expand_as(line))(line))


def assert_jacobian(spline: ma.Spline, truth: Truth, x: Tensor) -> None:
    """A[x] is the Jacobian that autograd finds of the original network."""
    jacobians = [torch.autograd.functional.jacobian(lambda z: truth(z[None].clone())[0], point) for point in x]
    assert_close(spline.at(x).A, torch.stack([torch.as_tensor(j) for j in jacobians]))


def assert_products(spline: ma.Spline, x: Tensor) -> None:
    """mv, vm and rows are products with the dense A, which they do not build; f(z) = A z + b."""
    f = spline.at(x)
    n, d = len(x), x[0].numel()
    a = f.A.reshape(n, -1, d)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(6), dtype=x.dtype)
    u = torch.randn(f.b.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
    image = torch.einsum("nod,nd->no", a, flat(v)).reshape(f.b.shape)
    assert_close(spline.at(x).mv(v), image)
    assert_close(spline.at(x)(v), image + f.b)
    assert_close(spline.at(x).vm(u), torch.einsum("no,nod->nd", flat(u), a).reshape(x.shape))


def assert_rows(spline: ma.Spline, x: Tensor) -> None:
    """rows(classes) are those rows of A where the output is a vector; repeated and reordered too."""
    f = spline.at(x)
    classes = torch.arange(f.b.shape[1]).flip(0)[:2].repeat(2)
    assert_close(spline.at(x).rows(classes), f.A[:, classes])


def assert_adjoint(spline: ma.Spline, x: Tensor) -> None:
    """<A v, u> = <v, A^T u>."""
    f = spline.at(x)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(8), dtype=x.dtype)
    u = torch.randn(f.b.shape, generator=torch.Generator().manual_seed(9), dtype=x.dtype)
    assert_close(flat(f.mv(v) * u).sum(1), flat(v * f.vm(u)).sum(1))


def assert_offset(spline: ma.Spline, x: Tensor) -> None:
    """b[x] is the frozen network at the origin."""
    assert_close(spline.at(x).b, spline.replay(spline.code(x), torch.zeros_like(x)))


def assert_region(spline: ma.Spline, x: Tensor) -> None:
    """Each input lies in its own region, points before its walls too, points behind them do not."""
    along = directions(x, 10)
    steps = exits(spline, x, along)
    for point, direction, step in zip(x, along, steps, strict=True):
        region = spline.region(point)
        assert region.G.dtype == region.h.dtype == torch.float64
        assert region.G.shape == (len(region.h), point.numel())
        assert bool(region.contains(point)) and bool(region.contains(point + 0.99 * step * direction))
        if NEAR < step < 10:
            assert not bool(region.contains(point + (1 + STEP) * step * direction))
        both = torch.stack((point, point + 0.5 * step * direction))
        assert region.contains(both).tolist() == [True, True]


def assert_walls(spline: ma.Spline, x: Tensor) -> None:
    """Along a ray the code is constant up to the first wall of the region and another one just behind it."""
    along = directions(x, 11)
    steps = exits(spline, x, along)
    code = spline.code(x)
    shape = (-1, *[1] * (x.dim() - 1))
    for fraction in (0.1, 0.6, 1 - STEP):
        assert bool((spline.code(x + fraction * steps.reshape(shape) * along) == code).all())
    behind = spline.code(x + (1 + STEP) * steps.reshape(shape) * along) == code
    assert not bool(behind[(steps < 10) & (steps > NEAR)].any())


def assert_off_walls(spline: ma.Spline, x: Tensor) -> None:
    """Generic inputs lie inside their regions, not on a wall: the other laws are not empty."""
    assert bool((ma.margin(spline, x).values > NEAR).all())
    assert bool((exits(spline, x, directions(x)) > NEAR).all())
    assert all(float(spline.region(point).margin()) > NEAR for point in x)


def nearest_wall(region: ma.Region, point: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest wall and the unit normal that leads to it, from G and h alone."""
    norms = region.G.norm(dim=1)
    distances = (region.h - region.G @ point.flatten()) / norms
    i = distances.argmin()
    return distances[i], (region.G[i] / norms[i]).reshape(point.shape)


def assert_margin(spline: ma.Spline, x: Tensor) -> None:
    """The margin is the distance to the nearest wall: the unit it names changes behind it, none before."""
    found = ma.margin(spline, x)
    for point, value, name, unit in zip(x, found.values, found.operators, found.units.tolist(), strict=True):
        region = spline.region(point)
        if len(region.h) == 0:
            assert value == region.margin() == torch.inf
            continue
        distance, normal = nearest_wall(region, point)
        assert_close(region.margin(), distance)
        assert_close(value, distance)
        if distance < NEAR:
            continue
        pair = torch.stack((point + (1 - STEP) * distance * normal, point + (1 + STEP) * distance * normal))
        here, codes = spline.code(point[None]), spline.code(pair)
        assert (codes == here).tolist() == [True, False]
        assert here[name].flatten()[unit] != codes[1][name].flatten()[unit], f"{name} {unit} is not crossed"


def assert_norms(spline: ma.Spline, x: Tensor) -> None:
    """margin(norm=p) is min_i slack_i / |G_i|_q with 1/p + 1/q = 1."""
    for point in x:
        region = spline.region(point)
        slack = region.h - region.G @ point.flatten()
        for norm, dual in ((1, torch.inf), (2, 2.0), (torch.inf, 1)):
            wanted = (slack / region.G.norm(p=dual, dim=1)).min() if len(slack) else torch.tensor(torch.inf)
            assert_same_value(region.margin(norm=norm), wanted)
            assert_same_value(ma.margin(spline, point[None], norm=norm).values[0], wanted)


def assert_same_value(found: Tensor, wanted: Tensor) -> None:
    """Two numbers agree to the tolerance, infinities included."""
    assert found == wanted or abs(found - wanted) <= TOLERANCE, f"{found} is not {wanted}"


def assert_distance(spline: ma.Spline, x: Tensor) -> None:
    """The distance of two codes is the fraction of units that differ (Eq. 15), counted one by one."""
    code = spline.code(x)
    names = [operator.name for operator in spline.operators]
    if not names:
        return
    shifted = torch.arange(len(x)).roll(1).tolist()
    units = torch.cat([flat(code[name]) for name in names], 1)
    wanted = (units != units[shifted]).double().mean(1)
    other = spline.code(x[shifted])
    assert_close(ma.distance(code, other).double(), wanted)
    assert_close(ma.pairwise_distance(code, code).double(), (units[:, None] != units).double().mean(2))
    last = flat(code[names[-1]])
    assert_close(ma.distance(code, other, operators=names[-1:]).double(), (last != last[shifted]).double().mean(1))
    equal = (units == units[shifted]).all(1)
    assert bool(((code == other) == equal).all())
    same = [a == b for a, b in zip(code.ids(), other.ids(), strict=True)]
    assert same == equal.tolist()


def assert_rows_independent(spline: ma.Spline, x: Tensor) -> None:
    """Row i of output, code and map depends on row i of the input alone, for batches of any size."""
    y, code, f = spline(x), spline.code(x), spline.at(x)
    for i in range(len(x)):
        row = x[i : i + 1]
        assert_close(y[i : i + 1], spline(row))
        assert bool(code[i] == spline.code(row))
        assert_close(f.A[i : i + 1], spline.at(row).A)
        assert_close(f.b[i : i + 1], spline.at(row).b)


def assert_preactivations(spline: ma.Spline, x: Tensor) -> None:
    """The map to the operand of a ReLU says which of its units are active, elsewhere in the region too."""
    code = spline.code(x)
    elsewhere = others(spline, x)
    for operator in spline.operators:
        if operator.op == "relu":
            f = spline.at(x, output=operator.name)
            assert bool(((f(x) > 0) == code[operator.name].bool()).all())
            assert bool(((f(elsewhere) > 0) == code[operator.name].bool()).all())


def assert_stages(spline: ma.Spline, x: Tensor) -> None:
    """In a chain the map to an operator's operand, its ReLU, and the map from its output compose to f."""
    for operator in spline.operators:
        if operator.op == "relu":
            before, after = spline.at(x, output=operator.name), spline.at(x, input=operator.name)
            assert_close(after(before(x).relu()), spline(x))
            mask = (before(x) > 0).to(x.dtype).reshape(len(x), 1, -1)
            inside = before.A.reshape(len(x), mask.shape[2], -1)
            outside = after.A.reshape(len(x), -1, mask.shape[2])
            assert_close((outside * mask) @ inside, spline.at(x).A.reshape(len(x), -1, x[0].numel()))


LAWS_WITH_TRUTH = (assert_exact, assert_complete, assert_frozen, assert_replay, assert_jacobian)
LAWS_ALONE = (
    assert_products,
    assert_adjoint,
    assert_offset,
    assert_region,
    assert_walls,
    assert_off_walls,
    assert_margin,
    assert_distance,
    assert_rows_independent,
    assert_preactivations,
)
