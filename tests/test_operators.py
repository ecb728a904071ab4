"""Every spline operator of the table is its definition, ties included, and obeys the laws; wrong ones do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import pytest
import torch
from operator_definitions import DEFINITIONS, ELEMENTWISE, Definition
from torch import Tensor
from torch.nn import functional as F

from maxaffine.errors import InputError, NotPiecewiseAffineError
from maxaffine.operators import Custom, Elementwise, Pair, SplineOperator, Windows, cpwl
from maxaffine.operators.registry import TABLE, Spline1, Spline2, rule_of
from maxaffine.program.plan import function_of
from maxaffine.testing import check_operator

CASES = [(definition, op) for definition in DEFINITIONS for op in definition.ops]
each_case = pytest.mark.parametrize(("definition", "op"), CASES, ids=[f"{d.name}-{op}" for d, op in CASES])


def built(definition: Definition, op: str) -> SplineOperator:
    """The operator that the table gives for the definition's shape and arguments."""
    rule = rule_of(op)
    if isinstance(rule, Spline2):
        return rule.operator
    assert isinstance(rule, Spline1)
    return rule.build((1, *definition.shape), *definition.args, **definition.options)


def native(definition: Definition, op: str) -> Callable[..., Tensor]:
    """What torch computes under that name."""
    return lambda *z: function_of(op)(*z, *definition.args, **definition.options)


def drawn(definition: Definition, tied: bool, rows: int = 3) -> list[Tensor]:
    """Operands: halves from -4 to 6 that hit knots, for maxima 0 and 1 that tie; or normal numbers."""
    generator = torch.Generator().manual_seed(3)
    shape = (rows, *definition.shape)
    if tied:
        orders = [torch.randperm(prod(shape), generator=generator) for _ in range(definition.operands)]
        halves = [(order % 21 - 8).reshape(shape).double() / 2 for order in orders]
        return halves if definition in ELEMENTWISE else [z.round() % 2 for z in halves]
    return [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(definition.operands)]


@each_case
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "generic"])
def test_value_and_code_are_the_definition(definition: Definition, op: str, tied: bool) -> None:
    z, operator = drawn(definition, tied), built(definition, op)
    value, code = definition.define(*z)
    found = operator.code(*z)
    assert found.dtype == (torch.uint8 if operator.pieces <= 256 else torch.int32)
    assert found.shape == code.shape and bool((found == code).all())
    torch.testing.assert_close(native(definition, op)(*z), value, rtol=0, atol=1e-12)
    torch.testing.assert_close(operator.piece(operator.freeze(found, z[0].dtype), *z), value, rtol=0, atol=1e-12)


@each_case
def test_laws(definition: Definition, op: str) -> None:
    for tied in (True, False):
        rows = 8 if definition.name == "max_pool2d[[17, 17], [1, 1]]" else 24
        check_operator(built(definition, op), drawn(definition, tied, rows), reference=native(definition, op))


def test_every_spline_rule_has_a_definition() -> None:
    rules = {op for op, rule in TABLE.items() if isinstance(rule, Spline1 | Spline2)}
    assert {op for op in rules if op.startswith(("aten.", "maxaffine."))} == {op for _, op in CASES}


def test_tied_draws_tie() -> None:
    """The tie rules are really tested: knots are hit, candidates are equal."""
    for definition, op in CASES:
        operator = built(definition, op)
        z = drawn(definition, True)
        assert bool((operator.walls(operator.code(*z), *z) == 0).any()), definition.name


@pytest.mark.parametrize("op", ["aten.max_pool2d.default", "aten.adaptive_max_pool2d.default#0", "aten.amax.default"])
def test_ties_do_not_depend_on_the_memory_layout(op: str) -> None:
    z = torch.randint(0, 2, (2, 16, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    rule = rule_of(op)
    assert isinstance(rule, Spline1)
    operator = rule.build((1, 16, 6, 6), [2, 3])
    for other in (z.contiguous(memory_format=torch.channels_last), z.mT.contiguous().mT, z.double()):
        assert bool((operator.code(other) == operator.code(z)).all())


@pytest.mark.parametrize("constant", [torch.tensor(0.5), torch.tensor([-1.0, 0.0, 1.0, 2.0]), torch.ones(3, 1)])
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_a_pair_with_a_constant_that_broadcasts(name: str, constant: Tensor) -> None:
    definition = next(d for d in DEFINITIONS if d.name == name)
    operator = built(definition, definition.ops[0])
    for place in (0, 1):
        z, c = drawn(definition, True)[0], constant.double()
        both = (z, c) if place == 0 else (c, z)
        value, code = definition.define(*both)
        found = operator.code(*both)
        assert bool((found == code).all())
        frozen, zero = operator.freeze(found, z.dtype), torch.zeros((), dtype=torch.float64)
        assert torch.equal(operator.piece(frozen, *both), value)
        linear = operator.piece(frozen, *((z, zero) if place == 0 else (zero, z)), linear=True)
        assert torch.equal(linear, torch.where(code == place, z, 0.0))


def test_a_threshold_that_jumps_is_refused() -> None:
    rule = rule_of("aten.threshold.default")
    assert isinstance(rule, Spline1)
    with pytest.raises(NotPiecewiseAffineError, match=r"jumps from 0\.9 to 0\.2"):
        rule.build((1, 3), 0.2, 0.9)


def test_declared_knots_and_slopes() -> None:
    """cpwl: continuous, through the given point, whichever piece that is on; pieces by knots strictly below."""
    for at in ((0.0, 0.0), (-3.0, 2.0), (5.0, -1.0), (1.0, 4.0)):
        operator = cpwl("steps", [-1, 1, 2], [1, -2, 0.5, 3], at)
        check_operator(operator, shape=(5,))
        z = torch.tensor([-3.0, -1.0, 0.0, 1.0, 1.5, 2.0, 5.0], dtype=torch.float64)
        assert operator.code(z).tolist() == [0, 0, 1, 1, 2, 2, 3]
        point = torch.tensor([at[0]], dtype=torch.float64)
        assert operator.piece(operator.freeze(operator.code(point), point.dtype), point).item() == pytest.approx(at[1])
    with pytest.raises(InputError, match="2 knots need 3 slopes, 2 given"):
        cpwl("short", [0, 1], [0, 1])
    with pytest.raises(InputError, match="must increase"):
        cpwl("unsorted", [1, 0], [0, 1, 0])


# ---- every law fails on a wrong rule -------------------------------------------------------------------------------


def sides(code: Tensor, z: Tensor) -> Tensor:
    """The walls of relu."""
    return ((2.0 * code - 1) * z)[None]


@dataclass(frozen=True)
class Wrong(Custom):
    """Relu, each part of which may be replaced."""

    active: Callable[[Tensor], Tensor] = lambda z: (z > 0).to(torch.uint8)
    value: Callable[[Tensor, Tensor, bool], Tensor] = lambda code, z, _: code * z
    ends: Callable[[Tensor, Tensor, bool], Tensor] = lambda code, z, _: sides(code, z)
    adjoint: Callable[[Tensor, Tensor], Tensor] = lambda code, g: g * code
    name: str = "wrong"
    pieces: int = 2

    def code(self, z: Tensor) -> Tensor:
        return self.active(z)

    def piece(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:
        return self.value(code, z, linear)

    def walls(self, code: Tensor, z: Tensor, linear: bool = False) -> Tensor:
        return self.ends(code, z, linear)

    def transpose(self, frozen: Tensor, cotangent: Tensor, *_: Any) -> tuple[Tensor]:
        return (self.adjoint(frozen, cotangent),)


def pool(*args: Any) -> Windows:
    """The rule of max pooling."""
    rule = rule_of("aten.max_pool2d.default")
    assert isinstance(rule, Spline1)
    return rule.build((1, 2, 5, 6), *args)


WINDOWS, PADDED = pool([3, 3], [2, 2]), pool([3, 3], [2, 2], [1, 1])
WRONG: list[tuple[str, Any, Any, str]] = [
    ("slope", Elementwise("wrong", (0,), (0.1, 1), (0, 0)), F.relu, "is the reference"),
    ("offset", Elementwise("wrong", (0,), (0, 1), (0, 1)), None, "both sides of a wall agree"),
    ("knot", Elementwise("wrong", (0.1,), (0, 1), (0, 0)), None, "both sides of a wall agree"),
    ("knot of the code", Wrong(lambda z: (z > 0.1).to(torch.uint8)), None, "inside its walls|>= 0 at its own point"),
    ("order of pieces", Wrong(lambda z: (z <= 0).to(torch.uint8)), None, ">= 0 at its own point"),
    ("sign of a wall", Wrong(ends=lambda c, z, _: -sides(c, z)), None, ">= 0 at its own point"),
    ("missing wall", Wrong(ends=lambda _, z, li: torch.full_like(z, 0 if li else inf)[None]), None, "inside its walls"),
    ("extra wall", Wrong(ends=lambda c, z, _: torch.cat((sides(c, z), sides(c, z) / 2 - c))), None, ">= 0 at its own"),
    ("wall too far", Wrong(ends=lambda c, z, li: sides(c, z) + (0 if li else 0.1)), None, "inside its walls"),
    ("bent wall", Wrong(ends=lambda c, z, _: sides(c, z) ** 3), None, "a wall is affine"),
    ("linear wall", Wrong(ends=lambda c, z, li: sides(c, z) + (1 if li else 0)), None, "linear part of a wall"),
    ("shape of walls", Wrong(ends=lambda c, z, _: sides(c, z).flatten(2)), None, r"\(W, \*code shape\)"),
    ("fickle wall", Wrong(ends=lambda c, z, _: sides(c, z).where(z < 1, inf)), None, "everywhere or nowhere"),
    ("bent piece", Wrong(value=lambda c, z, _: c * z * z.abs()), None, "a piece is affine"),
    ("linear piece", Wrong(value=lambda c, z, _: c * z + 1), None, "linear part of a piece"),
    ("adjoint", Wrong(adjoint=lambda _, g: g), None, "transpose"),
    ("adjoint by a factor", Wrong(adjoint=lambda c, g: g * c * (1 + 1e-6)), None, "transpose"),
    ("type of code", Wrong(lambda z: (z > 0).long()), None, "torch.int64"),
    ("number of pieces", Wrong(pieces=1), None, "one of 1 pieces"),
    ("shape", Wrong(value=lambda c, z, _: (c * z).flatten(1)), None, "one shape"),
    ("rows of the code", Wrong(lambda z: (z > z.mean(0)).to(torch.uint8)), None, "code of a row"),
    ("rows of the value", Wrong(value=lambda c, z, _: c * z - z.mean(0)), None, "value of a row"),
    ("knot out of reach", cpwl("wrong", [1e6], [0, 1]), None, "no drawn line crosses"),
    ("window off by one", replace(WINDOWS, base=WINDOWS.base + 1), lambda z: F.max_pool2d(z, 3, 2), "is the reference"),
    ("winner", replace(WINDOWS, winner=lambda z: F.max_pool2d(-z, 3, 2, return_indices=True)), None, ">= 0 at its own"),
    ("minimum", replace(WINDOWS, sign=-1), None, ">= 0 at its own point"),
    ("padding", replace(PADDED, inside=torch.ones_like(PADDED.inside)), None, ">= 0 at its own point"),
    ("candidate", replace(WINDOWS, inside=WINDOWS.inside & (torch.arange(9) != 4)), None, "inside its walls"),
]


@pytest.mark.parametrize(("operator", "reference", "law"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_wrong_rule_is_caught(operator: SplineOperator, reference: Any, law: str) -> None:
    shape = (2, 5, 6) if isinstance(operator, Windows) else (3, 4)
    with pytest.raises(AssertionError, match=law) as error:
        check_operator(operator, shape=shape, reference=reference)
    assert "\n" not in str(error.value) and str(error.value).startswith(operator.name)


@pytest.mark.parametrize("wrong", [Pair("wrong", -1), Pair("wrong", 1)], ids=["sign", "reference"])
def test_a_wrong_pair_is_caught(wrong: Pair) -> None:
    operands = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    with pytest.raises(AssertionError, match="is the reference"):
        check_operator(wrong, operands, reference=torch.maximum if wrong.sign < 0 else torch.minimum)


def test_a_wrong_tie_is_legal_for_users_but_not_ours() -> None:
    other = Wrong(lambda z: (z >= 0).to(torch.uint8))
    check_operator(other, shape=(3, 4), reference=F.relu)
    relu = next(d for d in DEFINITIONS if d.name == "relu")
    z = drawn(relu, True)
    assert not bool((other.code(*z) == relu.define(*z)[1]).all())


def test_the_right_ones_pass() -> None:
    """What the wrong rules replace parts of is right."""
    check_operator(Wrong(), shape=(3, 4), reference=F.relu)
    check_operator(WINDOWS, shape=(2, 5, 6), reference=lambda z: F.max_pool2d(z, 3, 2))
    check_operator(PADDED, shape=(2, 5, 6), reference=lambda z: F.max_pool2d(z, 3, 2, 1))


def test_message_has_the_place_and_the_numbers() -> None:
    with pytest.raises(
        AssertionError, match=r"^wrong: piece.* not at entry \(\d+, \d+\): found -?\d.*, wanted \d"
    ) as error:
        check_operator(Elementwise("wrong", (0,), (0.1, 1), (0, 0)), shape=(4,), reference=F.relu)
    assert re.search(r"\(\d+, \d\)", str(error.value))


def test_operands_are_needed() -> None:
    with pytest.raises(InputError, match="shape="):
        check_operator(Wrong())
