"""One question for the rest of the library: what kind of operation is this? And how a user adds one.

The rule table is the only global state of the library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from maxaffine.arguments import told
from maxaffine.errors import InputError
from maxaffine.operators import affine, elementwise, maximum, other
from maxaffine.operators.affine import Affine
from maxaffine.operators.elementwise import Elementwise, cpwl
from maxaffine.operators.transpose import by_vjp
from maxaffine.types import Level, Scalar, Shape


class SplineOperator(Protocol):
    """What a spline operator answers about itself; Elementwise, Pair and Windows do, and so may a user's class.

    code(*operands) -> active piece of each unit; freeze(code, dtype) -> anything; piece(frozen, *operands, linear=) ->
    the frozen piece's value, affine in the operands; walls(code, *operands, linear) -> (W, *units), affine in the
    operands and all >= 0 exactly on that piece (+inf, or 0 when linear, where a wall is absent); transpose(frozen,
    cotangent, *operand_shapes) -> cotangents of the operands. `Custom` supplies freeze and transpose.
    """

    @property
    def name(self) -> str:
        """Kind of operator, for tables."""
        ...

    @property
    def pieces(self) -> int:
        """R."""
        ...

    @property
    def code(self) -> Callable[..., Tensor]:
        """(*operands): the operands are positional, each operator has its own number of them."""
        ...

    @property
    def piece(self) -> Callable[..., Tensor]:
        """(frozen, *operands, linear=False)."""
        ...

    @property
    def walls(self) -> Callable[..., Tensor]:
        """(code, *operands, linear=False)."""
        ...

    @property
    def transpose(self) -> Callable[..., Sequence[Tensor]]:
        """(frozen, cotangent, *operand_shapes)."""
        ...

    def freeze(self, code: Tensor, dtype: torch.dtype) -> Any:
        """What piece and transpose take."""
        ...


class Custom:
    """Base for a user's operator: define name, pieces, code, piece and walls; the frozen form is the code itself."""

    def freeze(self, code: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ARG002
        """The code, as piece takes it."""
        return code

    def transpose(self: Any, frozen: Any, cotangent: Tensor, *shapes: Shape) -> Sequence[Tensor]:
        """Adjoint of the linear part of piece, by differentiating piece."""
        operands = [cotangent.new_zeros(shape) for shape in shapes]
        return by_vjp(lambda *z: self.piece(frozen, *z, linear=True), cotangent, operands)


@dataclass(frozen=True)
class Spline1:
    """A rule: one live operand; build(operand shape, *constants) gives the spline operator."""

    build: Callable[..., Any]


@dataclass(frozen=True)
class Spline2:
    """A rule: two operands, at least one of them live."""

    operator: Any


@dataclass(frozen=True)
class Opaque:
    """A rule: runs, but has no piece; kind and verdict say why."""

    kind: str
    verdict: str = "not piecewise affine"


@dataclass(frozen=True)
class Refused:
    """A rule: cannot be captured at all; reason says why."""

    reason: str


Rule = Affine | Spline1 | Spline2 | Opaque | Refused

TABLE: dict[str, Rule] = {
    **{op: Spline1(rule) for op, rule in elementwise.RULES.items()},
    **{op: Spline1(rule) for op, rule in maximum.WINDOW_RULES.items()},
    **{op: Spline2(rule) for op, rule in maximum.PAIR_RULES.items()},
    **affine.RULES,
    **{op: Opaque("smooth") for op in other.SMOOTH},
    **{op: Opaque("discontinuous") for op in other.DISCONTINUOUS if op not in affine.RULES},
    **{op: Opaque("a function of token ids") for op in other.BOUNDARY},
    **{op: Opaque("piecewise affine", "but none of the spline operators that are known") for op in other.UNSUPPORTED},
    **{op: Refused(reason) for op, reason in other.RANDOM.items()},
}
BOUNDS = {
    "aten.clamp_min.Tensor": Spline2(maximum.Pair("clamp_min", 1)),
    "aten.clamp_max.Tensor": Spline2(maximum.Pair("clamp_max", -1)),
}
"""What a bound makes of these activations when it depends on the input as well: a maximum of two tensors."""
MODULES: dict[str, Elementwise] = {}


def rule_of(op: str) -> Rule | None:
    """The rule of an operation by its name, for example aten.relu.default or aten.max.dim#0; None when unknown."""
    return TABLE.get(op) or TABLE.get(op.split("#")[0] + "#*")


def declare(
    target: type[nn.Module] | str,
    knots: Sequence[Level],
    slopes: Sequence[Level],
    at: tuple[Scalar, Scalar] = (0.0, 0.0),
) -> Elementwise:
    """Declare an activation by its knots and slopes; at = (z0, sigma(z0)) fixes its height.

        sigma(z) = slopes[r] z + offset_r  for  knots[r-1] < z <= knots[r],  continuous.

    target: the nn.Module subclass that computes it (every call of such a module becomes one spline operator), or the
    name of a custom operator such as "mylib::act". The capture compares the declaration with the model and refuses a
    wrong one. Raises InputError when knots and slopes do not fit.

    >>> class Triangle(nn.Module):
    ...     def forward(self, z):
    ...         return torch.where(z > 0, z, -0.5 * z)
    >>> declare(Triangle, knots=[0], slopes=[-0.5, 1]).pieces
    2
    """
    if not isinstance(target, str) and not (isinstance(target, type) and issubclass(target, nn.Module)):
        raise InputError(f"target is {told(target)}; give a subclass of nn.Module or the name of an operator")
    if isinstance(target, str):
        operator = cpwl(target.split("::")[-1], knots, slopes, at)
        register(target, lambda _: operator)
    else:
        operator = cpwl(target.__name__.lower(), knots, slopes, at)
        MODULES[f"{target.__module__}.{target.__qualname__}"] = operator
        TABLE[module_op(target.__module__, target.__qualname__)] = Spline1(lambda _: operator)
    return operator


def register(op: str, build: Callable[..., SplineOperator]) -> None:
    """Register a custom operator "namespace::name" as a spline operator.

    build(operand_shape, *constant_arguments) -> an object with code, freeze, piece and walls (see SplineOperator);
    `maxaffine.testing.check_operator` proves its laws. Raises InputError when op is not "namespace::name".
    """
    namespace, _, name = op.partition("::")
    if not name:
        raise InputError(f"a custom operator is named 'namespace::name', got {op!r}")
    TABLE[f"{namespace}.{name if '.' in name else name + '.default'}"] = Spline1(build)


def module_op(module: str, qualname: str) -> str:
    """The operation name under which calls of a declared module class appear."""
    return f"module.{module}.{qualname}"


def shape_of(sizes: Sequence[Any]) -> Shape:
    """Sizes with the batch replaced by 1: what rules see of an operand's shape."""
    return tuple(s if type(s) is int else 1 for s in sizes)
