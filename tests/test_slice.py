"""Segments and convex polygons in a plane: what they embed, and one clear line for each bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.slice import Plane, Segment

BOX = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
ZERO, ONE, TWO = torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
NAN, INFINITE = torch.tensor([0.0, torch.nan, 0.0]), torch.tensor([torch.inf, 0.0, 0.0])


def regular(n: int, step: int = 1) -> list[tuple[float, float]]:
    """Every step-th corner of a regular n-gon in turn: a star when step > 1."""
    return [(math.cos(2 * math.pi * k * step / n), math.sin(2 * math.pi * k * step / n)) for k in range(n)]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- segments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 4)])
def test_a_segment_runs_from_its_first_to_its_second_point(shape: tuple[int, ...]) -> None:
    x0, x1 = drawn(*shape, seed=1), drawn(*shape, seed=2)
    segment = Segment(x0, x1)
    tau = torch.tensor([0.0, 0.25, 1.0])
    found = segment.embed(tau)
    assert found.dtype == torch.float64 and found.shape == (3, *shape)
    wanted = torch.stack([x0 * (1 - t) + x1 * t for t in (0.0, 0.25, 1.0)])
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
    assert segment.length == pytest.approx(math.dist(x0.flatten().tolist(), x1.flatten().tolist()))


def test_a_segment_of_float32_points_is_exact() -> None:
    x0, x1 = drawn(4, dtype=torch.float32), drawn(4, seed=1, dtype=torch.float32)
    assert torch.equal(Segment(x0, x1).embed(torch.tensor([0.0]))[0], x0.double())


def test_a_slice_of_points_that_need_a_gradient_has_none() -> None:
    x0, x1 = drawn(4).requires_grad_(), drawn(4, seed=1)
    assert not Segment(x0, x1).embed(torch.tensor([0.5])).requires_grad
    assert not Plane.square(x0, x1, drawn(4, seed=2)).embed(torch.zeros(1, 2)).requires_grad


# ---- planes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2,), (5,), (1, 4, 4)])
def test_a_plane_embeds_s_u_plus_t_v(shape: tuple[int, ...]) -> None:
    origin, u, v = (drawn(*shape, seed=k) for k in (1, 2, 3))
    plane = Plane.square(origin, u, v)
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, -0.25]])
    wanted = torch.stack([origin + s * u + t * v for s, t in places])
    for given_places in (places, torch.as_tensor(places)):
        torch.testing.assert_close(plane.embed(given_places), wanted, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(plane.coordinates(wanted), places, atol=1e-12)


def test_coordinates_are_of_the_nearest_point_of_the_plane() -> None:
    plane = Plane.square(ZERO, ONE, TWO)
    beside = torch.tensor([[0.5, 1.0, 7.0]], dtype=torch.float64)
    np.testing.assert_allclose(plane.coordinates(beside), [[0.5, 0.5]])


@pytest.mark.parametrize("n", [3, 4, 5, 12])
def test_either_orientation_gives_the_same_polygon_counter_clockwise(n: int) -> None:
    corners = regular(n)
    planes = [Plane.polygon(ZERO, ONE, TWO, c) for c in (corners, corners[::-1])]
    for plane in planes:
        assert plane.area == pytest.approx(n / 2 * math.sin(2 * math.pi / n))
    start = int(np.abs(planes[1].corners - planes[0].corners[0]).sum(1).argmin())
    np.testing.assert_array_equal(planes[0].corners, np.roll(planes[1].corners, -start, 0))


@given(st.integers(0, 10_000), st.floats(0.0, 0.5))
def test_a_plane_through_three_points_holds_them_undistorted(seed: int, margin: float) -> None:
    a, b, c = drawn(3, 2, 3, seed=seed)
    plane = Plane.through(a, b, c, margin=margin)
    assert float((plane.u * plane.v).sum()) == pytest.approx(0, abs=1e-12)
    assert float(plane.u.norm()) == pytest.approx(float(plane.v.norm()))
    points = torch.stack([a, b, c])
    places = plane.coordinates(points)
    torch.testing.assert_close(plane.embed(places), points, rtol=1e-9, atol=1e-9)
    widest = np.ptp(places, axis=0).max()  # of the square's side 2, what the margins on both sides leave
    assert widest == pytest.approx(2 / (1 + 2 * margin))
    np.testing.assert_allclose((places.max(0) + places.min(0)) / 2, 0, atol=1e-9)


def test_a_plane_through_three_points_is_not_spoiled_by_their_distance() -> None:
    """A thin triangle far from the origin is a plane, and its points are found again."""
    far = torch.full((4,), 1e3, dtype=torch.float64)
    points = far + torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0], [0.5, 1e-6, 0, 0]], dtype=torch.float64)
    plane = Plane.through(*points)
    torch.testing.assert_close(plane.embed(plane.coordinates(points)), points, rtol=0, atol=1e-9)


def test_the_corners_belong_to_the_plane_alone() -> None:
    corners = np.array(BOX)
    plane = Plane.polygon(ZERO, ONE, TWO, corners)
    corners[:] = 0
    assert plane.area == 4.0


# ---- bad input: one clear line each -------------------------------------------------------------------------


def polygon(corners: Any) -> Callable[[], Plane]:
    return lambda: Plane.polygon(ZERO, ONE, TWO, corners)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "segment, equal ends": (lambda: Segment(ONE, ONE.clone()), "end points .* are equal"),
    "segment, shapes": (lambda: Segment(ONE, torch.zeros(4)), "one shape"),
    "segment, NaN": (lambda: Segment(ONE, NAN), "x1 contains NaN"),
    "segment, infinite": (lambda: Segment(INFINITE, ONE), "x0 contains NaN or infinite"),
    "through, all equal": (lambda: Plane.through(ONE, ONE, ONE), "equal or lie on a line"),
    "through, two equal": (lambda: Plane.through(ONE, ONE, TWO), "equal or lie on a line"),
    "through, last two equal": (lambda: Plane.through(ONE, TWO, TWO), "equal or lie on a line"),
    "through, first and last equal": (lambda: Plane.through(TWO, ONE, TWO), "equal or lie on a line"),
    "through, collinear": (lambda: Plane.through(ZERO, ONE, 3 * ONE), "lie on a line"),
    "through, collinear but for rounding": (
        lambda: Plane.through(*(drawn(5) + k * drawn(5, seed=1) for k in (0.0, 0.1, 0.7))),
        "lie on a line",
    ),
    "through, shapes": (lambda: Plane.through(ONE, TWO, torch.zeros(2)), "one shape"),
    "through, infinite": (lambda: Plane.through(ONE, TWO, INFINITE), "c contains NaN or infinite"),
    "square, parallel": (lambda: Plane.square(ZERO, ONE, -2 * ONE), "parallel or zero"),
    "square, zero u": (lambda: Plane.square(ZERO, ZERO, ONE), "parallel or zero"),
    "square, zero v": (lambda: Plane.square(ZERO, ONE, ZERO), "parallel or zero"),
    "square, one dimension": (
        lambda: Plane.square(torch.zeros(1), torch.ones(1), 2 * torch.ones(1)),
        "parallel or zero",
    ),
    "square, shapes": (lambda: Plane.square(ZERO, ONE, torch.zeros(3, 1)), "one shape"),
    "square, NaN": (lambda: Plane.square(NAN, ONE, TWO), "origin contains NaN"),
    "square, infinite": (lambda: Plane.square(ZERO, ONE, INFINITE), "v contains NaN or infinite"),
    "two corners": (polygon(BOX[:2]), "at least three corners"),
    "no corners": (polygon([]), "at least three corners"),
    "corners with three numbers": (polygon([(0, 0, 0), (1, 0, 0), (0, 1, 0)]), "at least three corners"),
    "one corner as a vector": (polygon([0.0, 1.0, 2.0]), "at least three corners"),
    "NaN corner": (polygon([(0, 0), (1, 0), (0, math.nan)]), "NaN or infinite"),
    "infinite corner": (polygon([(0, 0), (math.inf, 0), (0, 1)]), "NaN or infinite"),
    "a corner twice": (polygon([(0, 0), (1, 0), (1, 0), (0, 1)]), "equal"),
    "first and last corner equal": (polygon([*BOX, BOX[0]]), "equal"),
    "all corners equal": (polygon([(1, 1)] * 4), "equal"),
    "zero size": (polygon([(0, 0), (1, 1), (2, 2)]), "no area"),
    "zero size, back and forth": (polygon([(0, 0), (1, 0), (2, 0), (1, 0)]), "no area"),
    "a sliver below rounding": (polygon([(0, 0), (1, 1), (2, 2 + 1e-15)]), "no area"),
    "ragged corners": (polygon([(0, 0), (1,), (0, 1)]), "pairs of numbers"),
    "words": (polygon("abc"), "pairs of numbers"),
    "nothing": (lambda: Segment(None, ONE), "x0 is no tensor"),  # pyright: ignore
    "complex": (lambda: Segment(1j * ONE, TWO), "complex"),
    "a corner on a side": (polygon([(0, 0), (0.5, 0), (1, 0), (0, 1)]), "corner on a side"),
    "a dent": (polygon([(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)]), "not convex"),
    "a bow tie": (polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "crosses itself"),
    "a star": (polygon(regular(5, 2)), "crosses itself"),
    "twice round": (polygon(regular(3) * 2), "crosses itself"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InputError, match=words) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_lists_of_numbers_are_points() -> None:
    assert torch.equal(Segment([0.0, 1.0], [2.0, 3.0]).embed(torch.tensor([0.5]))[0], torch.tensor([1.0, 2.0]).double())  # pyright: ignore


def test_a_small_or_thin_polygon_is_none_the_less_one() -> None:
    assert Plane.polygon(ZERO, ONE, TWO, np.array(BOX) * 1e-9).area == pytest.approx(4e-18)
    assert Plane.polygon(ZERO, ONE, TWO, [(0, 0), (1, 0), (0.5, 1e-9)]).area == pytest.approx(5e-10)
    assert Plane.square(ZERO, 1e-9 * ONE, 1e9 * TWO).area == 4.0
