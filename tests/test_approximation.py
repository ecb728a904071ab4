"""Tangent splines and sup-norm approximations: the stated error is a bound, tight, and near the optimum."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.approximation import SMOOTH, Approximation, approximate, tangents
from maxaffine.approximation.smooth import Function, bends
from maxaffine.errors import InputError

F64 = torch.float64
EVERYWHERE = torch.cat(
    [torch.linspace(-40, 40, 800_001, dtype=F64), torch.tensor([-1e6, -300.0, 300.0, 1e6], dtype=F64)]
)


def square(x: Tensor) -> Tensor:
    return x**2


def law_bound(f: Function, g: Approximation, x: Tensor) -> None:
    """|f - g| <= error at every point of a dense grid, and the bound is not more than 0.1 % above it."""
    seen = (f(x) - g(x)).abs().max().item()
    assert seen <= g.error <= 1.001 * seen


def law_continuous(g: Approximation) -> None:
    left, right = (
        s[:-1] * g.knots + o[:-1] for s, o in ((g.slopes, g.offsets), (g.slopes.roll(-1), g.offsets.roll(-1)))
    )
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)
    assert (g.knots.diff() > 0).all() and len(g.slopes) == len(g.offsets) == len(g.knots) + 1 == g.pieces


# --- tangents of a convex function -----------------------------------------------------------------------


def error_of_tangents(f: Function, R: int, low: float, high: float) -> float:
    points = low + (high - low) * (torch.arange(R, dtype=F64) + 0.5) / R
    x = torch.linspace(low, high, 100_001, dtype=F64)
    mas = tangents(lambda p: f(p[:, 0]), points)
    assert (mas.K, mas.R, mas.D) == (1, R, 1)
    below = f(x) - mas(x[:, None])[:, 0]
    assert below.min() > -1e-12  # a tangent of a convex function never passes above it
    torch.testing.assert_close(mas(points[:, None])[:, 0], f(points), rtol=1e-12, atol=1e-12)
    return below.max().item()


def test_tangents_of_the_square_have_the_known_error() -> None:
    for R in (1, 2, 5, 16, 64):
        assert error_of_tangents(square, R, -3, 3) == pytest.approx(6**2 / (4 * R**2), rel=1e-6)


@pytest.mark.parametrize(("f", "low", "high"), [(square, -1, 2), (F.softplus, -6, 6), (torch.exp, -2, 1)])
def test_the_error_of_tangents_falls_as_one_over_R_squared(f: Function, low: float, high: float) -> None:
    errors = torch.tensor([error_of_tangents(f, R, low, high) for R in (16, 32, 64, 128)])
    rates = -errors.log2().diff()
    assert ((rates > 1.85) & (rates < 2.15)).all(), rates


def test_tangents_in_several_dimensions() -> None:
    def f(x: Tensor) -> Tensor:
        return torch.logsumexp(x, dim=1)

    points, x = torch.randn(200, 3, dtype=F64), torch.randn(500, 3, dtype=F64)
    few, many = tangents(f, points[:20]), tangents(f, points)
    assert (many(x)[:, 0] <= f(x) + 1e-12).all()
    assert (f(x) - many(x)[:, 0]).max() < (f(x) - few(x)[:, 0]).max()


def test_tangents_of_what_is_not_convex_are_refused() -> None:
    with pytest.raises(InputError, match="f is not convex"):
        tangents(lambda x: torch.sin(x[:, 0]), torch.linspace(-3, 3, 7, dtype=F64))


# --- smooth activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("pieces", [4, 32])
def test_the_stated_error_bounds_the_error_on_the_whole_line(name: str, pieces: int) -> None:
    g = approximate(name, pieces=pieces)
    assert pieces - 2 < g.pieces <= pieces and g.interval == (-math.inf, math.inf)
    law_continuous(g)
    law_bound(SMOOTH[name].f, g, EVERYWHERE)
    assert SMOOTH[name].tails == ((g.slopes[0], g.offsets[0]), (g.slopes[-1], g.offsets[-1]))


def test_the_laws_see_a_wrong_spline() -> None:
    g = approximate("gelu", pieces=9)
    for wrong in (replace(g, error=0.99 * g.error), replace(g, offsets=g.offsets + 0.01 * g.error)):
        with pytest.raises(AssertionError):
            law_bound(F.gelu, wrong, EVERYWHERE)
    with pytest.raises(AssertionError):
        law_continuous(replace(g, knots=g.knots + 1e-6))


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("error", [3e-2, 1e-3])
def test_a_given_error_is_met_with_the_fewest_pieces(name: str, error: float) -> None:
    g = approximate(name, error=error)
    law_bound(SMOOTH[name].f, g, EVERYWHERE)
    assert g.error <= error
    assert approximate(name, pieces=g.pieces - 1).error > 0.995 * error


def test_the_optimum_on_the_square_is_reached() -> None:
    """n chords of x^2 on an interval of length L, lowered by half their gap: e = L^2 / (8 n^2), the least."""
    x = torch.linspace(-1, 3, 100_001, dtype=F64)
    for n in (1, 2, 5, 20):
        g = approximate(square, (-1, 3), pieces=n)
        assert g.pieces == n
        law_bound(square, g, x)
        assert g.error == pytest.approx(16 / (8 * n**2), rel=0.01)
        assert g.error >= 16 / (8 * n**2) * (1 - 1e-9)


def test_knots_equioscillate_on_a_convex_function() -> None:
    """Chebyshev: on every piece f - g goes -e, +e, -e."""
    g = approximate(torch.exp, (-1, 2), pieces=8)
    ends = torch.cat([torch.tensor([-1.0], dtype=F64), g.knots, torch.tensor([2.0], dtype=F64)])
    for low, high in pairwise(ends.tolist()):
        x = torch.linspace(low, high, 2001, dtype=F64)
        d = (torch.exp(x) - g(x)) / g.error
        assert d[0] > 0.96 and d[-1] > 0.96 and d.min() < -0.96


@pytest.mark.parametrize("name", SMOOTH)
def test_the_error_falls_as_one_over_R_squared_and_is_near_the_asymptotic_optimum(name: str) -> None:
    """The least error of n free knots is (integral of sqrt |f''|)^2 / (16 n^2) for large n."""
    bend = float(bends(SMOOTH[name])[1].sum())
    errors = {n: approximate(name, pieces=n).error for n in (8, 16, 32, 64)}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors[64] < 1.08 * bend**2 / (16 * 64**2)
    assert errors[64] < errors[8] / 40


def test_a_function_without_tails_and_with_many_inflections() -> None:
    x = torch.linspace(0, 20, 400_001, dtype=F64)
    g = approximate(torch.sin, (0, 20), pieces=30)
    assert g.interval == (0, 20) and g.pieces <= 30
    law_bound(torch.sin, g, x)
    law_continuous(g)


def test_a_kink_is_seen_by_the_bound() -> None:
    for pieces in (3, 8, 21):
        g = approximate(F.selu, (-6, 3), pieces=pieces)
        law_bound(F.selu, g, torch.linspace(-6, 3, 900_001, dtype=F64))


def test_a_spline_of_its_own_kind_is_found_again() -> None:
    g = approximate(F.relu, (-1, 1), pieces=2, tails=((0.0, 0.0), (1.0, 0.0)))
    assert g.error < 2e-4 and g.pieces == 2 and abs(g.knots.item()) < 1e-12
    assert approximate("softplus", pieces=2).error == pytest.approx(math.log(2), rel=1e-3)
    assert approximate(lambda x: 2 * x + 1, (-1, 1), pieces=3).error < 1e-12


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: approximate("swish", pieces=3), "'swish' is unknown"),
        (lambda: approximate("gelu"), "exactly one"),
        (lambda: approximate("gelu", pieces=3, error=0.1), "exactly one"),
        (lambda: approximate("gelu", pieces=0), "pieces=0"),
        (lambda: approximate("gelu", error=-1.0), "error=-1"),
        (lambda: approximate(torch.sigmoid, pieces=4), "interval=None"),
        (lambda: approximate(torch.exp, (0, 1e4), pieces=4), "not finite"),
        (lambda: approximate(torch.log, (-1, 1), pieces=3), "not finite"),
        (
            lambda: approximate(torch.sigmoid, (-9, 9), pieces=4, tails=((0.0, 0.0), (1.0, 0.0))),
            "does not approach",
        ),
        (
            lambda: approximate(F.softplus, (-25, 1), error=1e-3, tails=((0.0, 0.0), (1.0, 0.0))),
            "cannot be reached on the interval",
        ),
        (lambda: approximate("sigmoid", pieces=2), "2 pieces cannot join the tails"),
        (lambda: approximate(torch.sigmoid, (-2, 2), error=1e-3, tails=((0.0, 0.0), (0.0, 1.0))), "widen"),
    ],
)
def test_what_cannot_be_done_is_refused(call, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


BROKEN = {
    "simple pole": torch.reciprocal,
    "double pole": lambda x: x**-2,
    "poles of tan": lambda x: torch.tan(3 * x + math.pi / 2),
    "logarithm": lambda x: x.abs().log(),
    "root": lambda x: x.abs().sqrt(),
    "steps": torch.floor,
    "sign": torch.sign,
    "narrow slope": lambda x: torch.tanh(1e8 * (x - 0.1234567)),
}
WHOLE = {
    "kink": torch.abs,
    "kinks": lambda x: F.hardtanh(3 * x).relu(),
    "kink of the derivative": lambda x: x * x.abs(),
    "waves": lambda x: torch.sin(60 * x),
    "bell": lambda x: torch.exp(-100 * x * x),
    "cubic": lambda x: x**3,
    "steep": lambda x: torch.tanh(300 * x),
    "constant": lambda x: 0 * x + 3,
}
INTERVALS = [(-1.0, 2.0), (-0.7321, 1.2345), (-1.0, 1.0001), (-2.3, 0.9)]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("name", BROKEN)
def test_functions_with_jumps_and_poles_are_refused(name: str, interval: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"jumps, has a pole or bends too sharply near|not finite"):
        approximate(BROKEN[name], interval, pieces=8)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("name", WHOLE)
def test_functions_with_kinks_and_waves_are_not(name: str, interval: tuple[float, float]) -> None:
    g = approximate(WHOLE[name], interval, error=0.01)
    x = torch.linspace(*interval, 100_003, dtype=torch.float64)
    assert float((g(x) - WHOLE[name](x)).abs().max()) <= g.error <= 0.01
