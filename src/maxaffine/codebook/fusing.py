"""A ReLU and the max-pooling that reads it as one operator: the window's winner, or the symbol "all off"."""

from dataclasses import dataclass

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.code import Code, Signature, Units
from maxaffine.codebook.steps import built
from maxaffine.errors import InputError
from maxaffine.operators.maximum import Windows
from maxaffine.program.graph import Ref
from maxaffine.program.plan import Plan, Step
from maxaffine.program.record import layout_of
from maxaffine.spline import Spline

ALL_OFF = 0
"""The piece of a window none of whose candidates is above 0."""


@dataclass(frozen=True)
class Pooled:
    """A ReLU, by its place among the operators, and the pooling that alone reads its output."""

    relu: int
    pool: int
    step: Step
    operator: Windows


def fuse_pooling(spline: Spline, code: Code) -> Code:
    """The same codes with each ReLU that only a max-pooling reads, and that pooling, as one operator.

    R = 1 + |window|: piece 0 is "all off", every candidate at or below 0; piece 1 + r is candidate r, positive and
    largest.
    max_r relu(z_r) = max(0, z_1 ... z_R) is one MASO with these pieces. The pair of codes is finer (which of the losers
    are on) and, where all are off, ambiguous: the winner among equal zeros. The fused operator has the name
    "relu+pool" of both and as many units as the pooling.

    Raises InputError for a network without such a pair, or a code of another structure.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576, section 4 (the layer as one MASO).

    >>> import maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool1d(2))
    >>> x = torch.tensor([[[-1.0, -2.0, -3.0, 4.0]]])
    >>> spline = ma.Spline(net, x)
    >>> fused = fuse_pooling(spline, spline.code(x))
    >>> fused["0+1"].tolist(), fused.signature[0].pieces
    ([[[0, 2]]], 3)
    """
    arguments.require(spline, Spline, "spline", "maxaffine.Spline(model, example)")
    arguments.require(code, Code, "code", "what spline.code(x) returned")
    if code.signature != spline._signature:
        raise InputError("the code is not of this spline's structure; give what spline.code(x) returned")
    plan = Plan(spline.captured.graph)
    found = {pair.pool: pair for pair in pooled(spline, plan)}
    if not found:
        raise InputError("no ReLU of this network is read by a max-pooling alone; there is nothing to fuse")
    units, values = [], []
    for place, (unit, value) in enumerate(zip(code.signature, code.values, strict=True)):
        if place in found:
            relu = code.signature[found[place].relu].name
            unit = Units(f"{relu}+{unit.name}", f"relu+{unit.kind}", unit.pieces + 1, unit.shape)
            value = _fused(plan, found[place], code)
        if place not in {pair.relu for pair in found.values()}:
            units.append(unit)
            values.append(value)
    return Code(Signature(tuple(units), code.signature.in_shape), tuple(values), len(code), code.made_by)


def pooled(spline: Spline, plan: Plan) -> list[Pooled]:
    """The pairs of a network that can be fused."""
    graph, readers = plan.graph, plan.graph.users()
    steps = [step for step in plan.steps if step.operator >= 0]
    places = {step.out: i for i, step in enumerate(steps)}
    found = []
    for i, step in enumerate(steps):
        source = step.node.args[0] if step.node.args else None
        relu = places.get(source.index) if type(source) is Ref else None
        if relu is None or spline.operators[relu].op != "relu" or len(readers[steps[relu].out]) > 1:
            continue
        operator = built(spline, plan, step)
        if isinstance(operator, Windows) and operator.sign > 0 and steps[relu].out != graph.output:
            found.append(Pooled(relu, i, step, operator))
    return found


def _fused(plan: Plan, pair: Pooled, code: Code) -> Tensor:
    """1 + the winner where the winner is on, else 0."""
    reads, out = layout_of(plan, pair.step.live[0][1]), layout_of(plan, pair.step.out)
    on, winner = reads.from_rows(code.values[pair.relu]), out.from_rows(code.values[pair.pool])
    winners = pair.operator.piece(pair.operator.freeze(winner, torch.float32), on)
    kind = torch.uint8 if pair.operator.pieces < 256 else torch.int32
    return out.to_rows(torch.where(winners > 0, winner.to(kind) + 1, ALL_OFF).to(kind))
