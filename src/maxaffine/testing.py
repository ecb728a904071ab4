"""The laws of a spline operator, proved on drawn operands: run them on your own operator before you register it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from maxaffine.errors import InputError
from maxaffine.operators.registry import SplineOperator
from maxaffine.types import Shape

TOLERANCE = 1e-9  # relative to the largest entry: far above the rounding of float64
STEP = 1e-6  # how far before and behind a wall, relative to the way there
ROUNDS = 8  # walls that every row crosses, one after the other
FAR = 30.0  # walls farther than this are not walked to; in units of the operands

Operands = tuple[Tensor, ...]


def check_operator(
    operator: SplineOperator,
    operands: Tensor | Sequence[Tensor] | None = None,
    *,
    shape: Shape | None = None,
    reference: Callable[..., Tensor] | None = None,
    samples: int = 64,
    seed: int = 0,
) -> None:
    """Prove that an operator is a continuous piecewise-affine spline, at operands z and at others drawn around them.

        codes   one piece number for each output entry, 0 <= code < pieces, uint8 (int32 when pieces > 256)
        value   piece(code(z))(z) = reference(z), where a reference is given
        rows    row i of code and value depends on row i of the operands alone
        pieces  affine in the operands; linear=True is the linear part, transpose its adjoint
        walls   affine in the operands, linear=True their linear part, >= 0 at z; elsewhere the code is that of z where
                all walls(code(z)) > 0 and another one where a wall is < 0, down to a millionth beside the wall
        joints  the pieces on both sides of a wall agree on it

    operands: a tensor (N, ...), or one for each operand, taken in float64; or shape: that of one row, `samples` times.
    Raises AssertionError with one line saying which law fails where; InputError without operands and shape.

    >>> from maxaffine.operators import Custom
    >>> class Hinge(Custom):
    ...     name, pieces = "hinge", 2
    ...     def code(self, z):
    ...         return (z[:, 0] > z[:, 1]).to(torch.uint8)
    ...     def piece(self, code, z, linear=False):
    ...         return code * (z[:, 0] - z[:, 1])
    ...     def walls(self, code, z, linear=False):
    ...         return (2.0 * code - 1) * (z[:, 0] - z[:, 1])[None]
    >>> check_operator(Hinge(), shape=(2, 5), reference=lambda z: (z[:, 0] - z[:, 1]).relu())
    """
    random = torch.Generator().manual_seed(seed)
    operands = _drawn(shape, samples, random) if operands is None else operands
    given = tuple(z.detach().double() for z in ([operands] if isinstance(operands, Tensor) else operands))
    crossed = 0
    for z in (given, _plus(given, _noise(given, random))):
        here, elsewhere = _At(operator, z), _plus(z, _noise(z, random))
        _codes(here)
        _value(here, reference)
        _pieces(here, elsewhere)
        _adjoint(here, elsewhere, random)
        _walls(here, elsewhere)
        _sides(here, elsewhere)
        crossed += _walk(here, random)
    if crossed == 0 and operator.pieces > 1:
        raise AssertionError(f"{operator.name}: no drawn line crosses a wall; are there walls, and operands near them?")


@dataclass(frozen=True)
class _At:
    """An operator at operands z, frozen at the code of z."""

    operator: SplineOperator
    z: Operands

    @cached_property
    def code(self) -> Tensor:
        return self.operator.code(*self.z)

    def piece(self, z: Operands, linear: bool = False) -> Tensor:
        return self.operator.piece(self.operator.freeze(self.code, torch.float64), *z, linear=linear)

    def walls(self, z: Operands, linear: bool = False) -> Tensor:
        return self.operator.walls(self.code, *z, linear=linear)

    def require(self, law: str, wrong: Tensor, **seen: Tensor) -> None:
        if bool(wrong.any()):
            i = tuple(wrong.nonzero()[0].tolist())
            values = ", ".join(f"{name} {value[i].item():.10g}" for name, value in seen.items())
            raise AssertionError(f"{self.operator.name}: {law}, but not at entry {i}: {values}")

    def agree(self, law: str, found: Tensor, wanted: Tensor) -> None:
        if found.shape != wanted.shape:
            raise AssertionError(f"{self.operator.name}: {law}, but {tuple(found.shape)} is not {tuple(wanted.shape)}")
        wrong = ~((found - wanted).abs() <= _rounding(wanted)) & (found != wanted)
        self.require(law, wrong, found=found, wanted=wanted)


def _codes(here: _At) -> None:
    code, pieces = here.code, here.operator.pieces
    kind = torch.uint8 if pieces <= 256 else torch.int32
    if code.dtype != kind:
        raise AssertionError(f"{here.operator.name}: the code of {pieces} pieces is {kind}, but not {code.dtype}")
    here.require(f"the code is one of {pieces} pieces", (code < 0) | (code >= pieces), code=code)


def _value(here: _At, reference: Callable[..., Tensor] | None) -> None:
    value, alone = here.piece(here.z), _At(here.operator, tuple(z[:1] for z in here.z))
    here.agree("code and value have one shape", torch.zeros(value.shape), torch.zeros(here.code.shape))
    here.agree("the code of a row depends on that row alone", alone.code.double(), here.code[:1].double())
    here.agree("the value of a row depends on that row alone", alone.piece(alone.z), value[:1])
    if reference is not None:
        here.agree("piece(code(z))(z) is the reference", value, reference(*here.z))


def _pieces(here: _At, elsewhere: Operands) -> None:
    start, end, change = here.piece(here.z), here.piece(elsewhere), _plus(elsewhere, here.z, -1)
    for t in (0.3, -1.7):
        here.agree("a piece is affine", here.piece(_plus(here.z, change, t)), start + t * (end - start))
    here.agree("linear=True is the linear part of a piece", here.piece(change, linear=True), end - start)


def _adjoint(here: _At, elsewhere: Operands, random: torch.Generator) -> None:
    u = torch.randn(here.code.shape, generator=random, dtype=torch.float64)
    back = here.operator.transpose(here.operator.freeze(here.code, u.dtype), u, *(z.shape for z in here.z))
    for i, (g, v) in enumerate(zip(back, elsewhere, strict=True)):
        alone = tuple(v if j == i else torch.zeros_like(z) for j, z in enumerate(elsewhere))
        forth = (here.piece(alone, linear=True) * u).reshape(len(u), -1).sum(1)
        here.agree(f"<L v, u> = <v, transpose(u)> for operand {i}", (v * g).reshape(len(u), -1).sum(1), forth)


def _walls(here: _At, elsewhere: Operands) -> None:
    start, end, change = here.walls(here.z), here.walls(elsewhere), _plus(elsewhere, here.z, -1)
    here.agree("walls are (W, *code shape)", torch.zeros(start.shape[1:]), torch.zeros(here.code.shape))
    here.require("the walls of a code are >= 0 at its own point", ~(start >= -_rounding(end)), wall=start)
    absent = start == inf
    here.agree("a wall is absent (+inf) everywhere or nowhere", (end == inf).double(), absent.double())
    slope = (end - start).where(~absent, 0)
    for t in (0.3, -1.7):
        here.agree("a wall is affine", here.walls(_plus(here.z, change, t)), (start + t * slope))
    here.agree("linear=True is the linear part of a wall, 0 where absent", here.walls(change, linear=True), slope)


def _sides(here: _At, there: Operands) -> Tensor:
    """Whether each entry of the code is another one there, which it is exactly if a wall lies between."""
    walls, code = here.walls(there).amin(0), here.operator.code(*there)
    changed, doubt = code != here.code, _rounding(torch.cat([z.flatten() for z in there]))
    here.require("inside its walls the code is the same", changed & (walls > doubt), wall=walls, code=code)
    here.require("behind a wall the code is another one", ~changed & (walls < -doubt), wall=walls, code=code)
    return changed


def _walk(here: _At, random: torch.Generator) -> int:
    """Cross one wall of one unit in every row, again and again; how many were crossed."""
    crossed, home = 0, here.z
    for along in (_noise(home, random) for _ in range(ROUNDS)):
        way, unit = _exit(here, along, random)
        before, on, behind = (_plus(here.z, along, way * f) for f in (1 - STEP, 1, 1 + STEP))
        _sides(here, before)
        changed = _sides(here, behind) & unit
        other, crossed = _At(here.operator, behind), crossed + int(changed.sum())
        here.agree("the pieces on both sides of a wall agree on it", here.piece(on)[changed], other.piece(on)[changed])
        here = _At(here.operator, _plus(here.z, along, 1.5 * way))
    return crossed


def _exit(here: _At, along: Operands, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """How far (N,) a drawn unit of every row is from its first wall along a direction, and which unit it is, if any."""
    walls, speed = here.walls(here.z), here.walls(along, linear=True)
    ways = torch.where(speed < 0, walls.clamp(min=0) / -speed, inf).amin(0).reshape(len(here.code), -1)
    chosen = torch.randint(ways.shape[1], (len(ways), 1), generator=random)
    way = ways.gather(1, chosen)
    ahead = (way > 0) & (way < FAR)
    unit = torch.zeros_like(ways, dtype=torch.bool).scatter(1, chosen, ahead).reshape(here.code.shape)
    return torch.where(ahead, way, 1.0)[:, 0], unit


def _drawn(shape: Shape | None, samples: int, random: torch.Generator) -> Tensor:
    if shape is None:
        raise InputError("check_operator needs operands (N, ...), or the shape of one row: shape=(3, 4), say")
    return torch.randn(samples, *shape, generator=random, dtype=torch.float64)


def _noise(z: Operands, random: torch.Generator) -> Operands:
    """Normal numbers as large as the operands, at least 1."""
    size = [max(1.0, float(t.abs().mean())) for t in z]
    return tuple(s * torch.randn(t.shape, generator=random, dtype=torch.float64) for s, t in zip(size, z, strict=True))


def _plus(z: Operands, v: Operands, t: float | Tensor = 1.0) -> Operands:
    """The point z + t v; t may be one number a row."""
    rows = torch.as_tensor(t, dtype=torch.float64)
    return tuple(a + rows.reshape(-1, *[1] * (a.dim() - 1)) * b for a, b in zip(z, v, strict=True))


def _rounding(values: Tensor) -> float:
    """What counts as rounding beside these values."""
    finite = values[values.isfinite()].abs()
    return TOLERANCE * max(1.0, float(finite.max()) if finite.numel() else 0.0)
