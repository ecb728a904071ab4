"""Affine slices of the input space: a segment x0 + tau (x1 - x0) and a convex polygon in a plane x0 + s u + t v."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from maxaffine.errors import InputError

Corners = Sequence[tuple[float, float]] | ArrayLike
PARALLEL = 1e-10  # two directions whose angle has a smaller sine span no plane


@dataclass(frozen=True, eq=False)
class Segment:
    """The points x(tau) = x0 + tau (x1 - x0), 0 <= tau <= 1, between two inputs of shape (*in).

    >>> Segment(torch.zeros(2), torch.ones(2)).embed(torch.tensor([0.5]))
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """

    x0: Tensor
    x1: Tensor

    def __post_init__(self) -> None:
        for name in ("x0", "x1"):
            object.__setattr__(self, name, _tensor(getattr(self, name), name))
        _same_shape(x0=self.x0, x1=self.x1)
        if bool((_exact(self.x0) == _exact(self.x1)).all()):
            raise InputError("the end points of the segment are equal; give two different inputs")

    @property
    def length(self) -> float:
        """Euclidean length in the input space."""
        return float((_exact(self.x1) - _exact(self.x0)).norm())

    def embed(self, tau: Tensor) -> Tensor:
        """(n,) -> inputs (n, *in), float64."""
        x0, x1 = _exact(self.x0), _exact(self.x1)
        tau = torch.as_tensor(tau, dtype=torch.float64, device="cpu")
        return x0 + tau.reshape(-1, *[1] * x0.dim()) * (x1 - x0)


@dataclass(frozen=True, eq=False)
class Plane:
    """The inputs origin + s u + t v for (s, t) in a convex polygon with the given corners, counter-clockwise.

    origin, u, v: (*in). corners: (n, 2) in (s, t). Use Plane.square, Plane.through or Plane.polygon.

    >>> plane = Plane.square(torch.zeros(3), torch.tensor([1.0, 0, 0]), torch.tensor([0, 2.0, 0]))
    >>> plane.area, plane.embed(torch.tensor([[1.0, 1.0]])).tolist()
    (4.0, [[1.0, 2.0, 0.0]])
    """

    origin: Tensor
    u: Tensor
    v: Tensor
    corners: NDArray[np.float64]

    @staticmethod
    def square(origin: Tensor, u: Tensor, v: Tensor) -> "Plane":
        """The parallelogram origin + s u + t v with (s, t) in [-1, 1]^2."""
        return Plane.polygon(origin, u, v, [(-1, -1), (1, -1), (1, 1), (-1, 1)])

    @staticmethod
    def through(a: Tensor, b: Tensor, c: Tensor, margin: float = 0.25) -> "Plane":
        """A square, seen without distortion, in the plane of three inputs; it holds them all.

        u and v are orthogonal and of equal length, the square's centre is that of the points' bounding box, and
        `margin` of the box's larger side is left around them on every side. `coordinates` says where a, b, c lie.
        Raises InputError when the points are collinear or equal.
        """
        _same_shape(a=a, b=b, c=c)
        start, p, q = _exact(a), _exact(b) - _exact(a), _exact(c) - _exact(a)
        _independent(p, q, "the three points are equal or lie on a line; they span no plane")
        first = p / p.norm()
        rest = q - (q * first).sum() * first
        second = rest / rest.norm()
        places = torch.stack([torch.stack([(d * first).sum(), (d * second).sum()]) for d in (p - p, p, q)])
        low, high = places.amin(0), places.amax(0)
        centre, half = (low + high) / 2, float((high - low).max()) * (0.5 + margin)
        return Plane.square(start + centre[0] * first + centre[1] * second, half * first, half * second)

    @staticmethod
    def polygon(origin: Tensor, u: Tensor, v: Tensor, corners: Corners) -> "Plane":
        """The convex polygon with these corners in (s, t), in either orientation.

        Raises InputError for fewer than three corners, a polygon that is not convex, crosses itself or has no area,
        directions that are parallel or zero, shapes that differ, and numbers that are not finite.
        """
        _same_shape(origin=origin, u=u, v=v)
        _independent(_exact(u), _exact(v), "u and v are parallel or zero; they span no plane")
        return Plane(_exact(origin), _exact(u), _exact(v), _convex(corners))

    @property
    def area(self) -> float:
        """Area of the polygon in (s, t)."""
        x, y = self.corners.T
        return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))

    def embed(self, st: Tensor | NDArray[np.float64]) -> Tensor:
        """(n, 2) -> inputs (n, *in), float64."""
        st = torch.as_tensor(st, dtype=torch.float64, device="cpu").reshape(-1, 2)
        s, t = (st[:, i].reshape(-1, *[1] * self.origin.dim()) for i in (0, 1))
        return self.origin + s * self.u + t * self.v

    def coordinates(self, x: Tensor) -> NDArray[np.float64]:
        """Inputs (n, *in) -> (n, 2): the (s, t) of the nearest point of the plane."""
        basis = torch.stack([self.u.flatten(), self.v.flatten()], 1)
        offset = (torch.as_tensor(x, dtype=torch.float64, device="cpu") - self.origin).reshape(len(x), -1)
        return torch.linalg.lstsq(basis, offset.T).solution.T.numpy()


def _tensor(x: Tensor, name: str) -> Tensor:
    try:
        found = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no tensor of numbers, but a {type(x).__name__}") from error
    if found.is_complex():
        raise InputError(f"{name} is complex; a slice needs real points")
    return found


def _exact(x: Tensor) -> Tensor:
    return torch.as_tensor(x).detach().to("cpu", torch.float64)


def _same_shape(**points: Tensor) -> None:
    shapes = {name: tuple(_tensor(p, name).shape) for name, p in points.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"a slice needs points of one shape, got {shapes}")
    for name, p in points.items():
        if not bool(torch.isfinite(_exact(p)).all()):
            raise InputError(f"{name} contains NaN or infinite values; a slice needs finite points")


def _independent(p: Tensor, q: Tensor, message: str) -> None:
    if not bool(p.any()) or not bool(q.any()):
        raise InputError(message)
    p, q = (d.flatten() / d.abs().max() for d in (p, q))  # no square of a huge or tiny number
    if float((p / p.norm() - q * ((p @ q) / (p.norm() * (q @ q)))).norm()) < PARALLEL:
        raise InputError(message)


def _convex(corners: Corners) -> NDArray[np.float64]:
    """Corners counter-clockwise, checked: every turn is to the left and the turns add up to one round."""
    try:
        points = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("corners are pairs of numbers (s, t), such as [(0, 0), (1, 0), (0, 1)]") from error
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 3:
        raise InputError(f"a polygon needs at least three corners (s, t), got an array of shape {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("a corner of the polygon is NaN or infinite")
    sides = np.roll(points, -1, 0) - points
    lengths = np.hypot(*sides.T)
    if not lengths.all():
        raise InputError("two neighbouring corners of the polygon are equal; leave one out")
    if _turns(sides).sum() < 0:
        points = np.ascontiguousarray(points[::-1])
        sides = np.roll(points, -1, 0) - points
    turns = _turns(sides)
    across = sides[lengths.argmax()] @ [[0, 1], [-1, 0]] / lengths.max()  # the unit normal of the longest side
    flat = np.ptp(points @ across) < PARALLEL * lengths.max()
    if flat or (turns <= 0).any() or abs(turns.sum() - 2 * np.pi) > 1e-6:
        raise InputError("the polygon has no area, is not convex, crosses itself or has a corner on a side")
    return points


def _turns(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    following = np.roll(sides, -1, 0)
    cross = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    return np.arctan2(cross, (sides * following).sum(1))
