"""The core: a network as a composition of spline operators, and the affine map, code and region of each signal.

spline(x) = A[x] x + b[x]      with A, b constant on the region of x, which is named by the code of x
"""

from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maxaffine import arguments, capture
from maxaffine.affine import DEFAULT_MEMORY, AffineMap
from maxaffine.capture import Captured
from maxaffine.code import Code, Signature, Units, Weights
from maxaffine.errors import InputError
from maxaffine.operators.registry import Spline1
from maxaffine.polytope import Region
from maxaffine.program.frozen import Codes
from maxaffine.program.local import STREAMED_ROWS, Local
from maxaffine.program.plan import Plan, Step, operator_of
from maxaffine.program.record import layout_of, record
from maxaffine.program.walls import region_of
from maxaffine.table import Operator, composition_table
from maxaffine.types import Shape

ARITHMETIC = frozenset({"add", "sub", "rsub", "mul", "div"})


class Spline:
    """A trained network as what it is: a continuous piecewise-affine map, captured exactly or refused.

    example: a tensor, a tuple, or a dict of keyword inputs (a batch of one is enough). over: name or position of the
    input that varies, or the path of the module whose output is taken as the input (a token embedding); select: key
    or index of a structured output; until: path of the module at which the network is cut.
    Parameters are shared with the model: train it and the spline follows. Raises CaptureError.
    Source: Balestriero & Baraniuk 2018, arXiv 1805.06576.

    >>> import torch, maxaffine as ma
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> spline = ma.Spline(net, torch.zeros(1, 2))
    >>> [(o.name, o.op, o.pieces, o.units) for o in spline.operators]
    [('1', 'relu', 2, 3)]
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        *,
        over: int | str | None = None,
        select: Any = None,
        until: str | None = None,
    ) -> None:
        _adopt(self, capture.capture_module(model, example, over, select, until))

    _exact: Plan
    _signature: Signature
    _weights: Weights
    _row_bytes: int
    _plans: dict[tuple[int, tuple[int, ...], tuple[int, ...] | None], Plan]
    captured: Captured
    operators: tuple[Operator, ...]
    dtype: torch.dtype
    device: torch.device
    in_shape: Shape
    out_shape: Shape

    @classmethod
    def from_capture(cls, captured: Captured) -> "Spline":
        """A spline of an already captured graph."""
        spline = cls.__new__(cls)
        _adopt(spline, captured)
        return spline

    def to(self, target: torch.dtype | torch.device | str) -> "Spline":
        """A converted copy in another dtype or on another device; it shares nothing with the model.

        Raises InputError for another dtype than float32 and float64, and for a device that is not there.
        """
        return Spline.from_capture(self.captured.converted(target))

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file: the weights, and the graph as JSON in its metadata; nothing in it can execute."""
        from maxaffine.capture.saved import save

        current_tensors(self)
        save(self.captured, arguments.path_of(path))

    def __reduce__(self) -> tuple[Any, ...]:
        current_tensors(self)
        return Spline.from_capture, (self.captured.converted(self.dtype),)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, *in) -> (N, *out): the network itself; differentiable in x if x requires a gradient.

        Raises InputError for a wrong shape, dtype, device or NaN.
        """
        tensors, plan = _tensors(self, x), self._exact
        into, out = layout_of(plan, plan.start), layout_of(plan, plan.ends[0])
        parts = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            for rows in _chunks(self, x):
                env = plan.constants(tensors, len(rows), x.dtype, x.device)
                parts.append(out.to_rows(plan.run(env, into.from_rows(rows), x.dtype, len(rows))[plan.ends[0]]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def code(self, x: Tensor) -> Code:
        """The code of each row: which piece of every spline operator is active.

        Raises NotPiecewiseAffineError when an operator depends on an operation that is not piecewise affine.
        """
        nodes = [step.out for step in _spline_steps(self._exact)]
        plan = _plan(self, self.captured.graph.input, tuple(nodes), keep=())
        plan.require_piecewise_affine("the code")
        tensors = _tensors(self, x)
        pieces = _record(self, plan, x, tensors).pieces
        return Code(self._signature, tuple(pieces[i] for i in nodes), len(x), weights_of(self, tensors))

    def at(
        self,
        x: Tensor,
        *,
        input: str | None = None,
        output: str | tuple[str, int] | None = None,
        create_graph: bool = False,
        memory: int | None = None,
    ) -> AffineMap:
        """The affine map of each row's region, A[x] and b[x], not built until asked.

        output: name of an operator: the map ends at its operand, its pre-activation (("name", 0 or 1) for a maximum
        of two tensors). input: name of an operator: the map starts at that operator's output, everything that does
        not pass through it is held at its value at x. create_graph: keep the graph to train on A and b.
        memory: bytes that A may take. Raises NotPiecewiseAffineError, InputError.
        """
        graph, budget = self.captured.graph, arguments.budget(memory, DEFAULT_MEMORY)
        arguments.require(create_graph, bool, "create_graph", "True or False")
        end = graph.output if output is None else _operand(self, output)
        start = graph.input if input is None else _node(self, input)
        if not graph.live(start)[end]:
            raise InputError(f"output={output!r} does not depend on input={input!r}")
        local = _local(self, x, start, end, create_graph)
        return AffineMap(local, _row_shape(self, start), _row_shape(self, end), budget)

    def replay(self, code: Code, x: Tensor) -> Tensor:
        """The frozen map of each code at x: A[code] x + b[code]; a code of length 1 is used for all rows."""
        arguments.require(code, Code, "code", "what spline.code(x) returned")
        tensors, wanted = _tensors(self, x), self._signature
        if code.signature != wanted or len(code) not in (1, len(x)):
            raise InputError(
                f"a code of {len(code)} rows over {len(code.signature)} operators does not fit {len(x)} inputs of a "
                f"spline with {len(wanted)} operators"
            )
        plan = _plan(self, self.captured.graph.input, (self.captured.graph.output,))
        plan.require_piecewise_affine("a frozen map")
        steps = _spline_steps(self._exact)
        pieces = {step.out: v.expand(len(x), *v.shape[1:]) for step, v in zip(steps, code.values, strict=True)}
        return Local(plan, tensors, Codes(pieces, {}), len(x), x.dtype, x.device).value(x)

    def region(self, x: Tensor, memory: int | None = None) -> Region:
        """The region of one point x (*in), in the spline's dtype or in float64: {z : G z <= h}, in float64.

        A wall whose gradient is rounding alone (see maxaffine.margin) counts as constant and is left out.
        Raises MemoryBudgetError when G would not fit (use maxaffine.margin), NotPiecewiseAffineError, InputError.
        """
        point, budget = in_double(self, x), arguments.budget(memory, DEFAULT_MEMORY)
        if tuple(point.shape) != self.in_shape:
            raise InputError(f"a region is of one point of shape {self.in_shape}, got {tuple(x.shape)}")
        point = point.unsqueeze(0)
        local = walls_of(self if self.dtype == torch.float64 else self.to(torch.float64), point)
        return region_of(local, point, budget)

    def __str__(self) -> str:
        return composition_table(self.captured, self.operators, self.in_shape, self.out_shape)

    def __repr__(self) -> str:
        return f"Spline({self.in_shape} -> {self.out_shape}, {len(self.operators)} spline operators, {self.dtype})"


def in_double(spline: Spline, x: Tensor) -> Tensor:
    """Points in float64 for exact geometry, given in it or in the spline's own dtype; the model must still fit."""
    current_tensors(spline)
    found = arguments.values(x, "x", f"a tensor of inputs of shape {spline.in_shape}")
    if found.dtype not in (spline.dtype, torch.float64):
        raise InputError(f"x is {found.dtype}, the spline {spline.dtype}; use x.to({spline.dtype})")
    return found.to(torch.float64)


def walls_of(spline: Spline, x: Tensor) -> Local:
    """The network up to its last spline operators, frozen at the codes of x: all that its walls depend on."""
    nodes = tuple(step.out for step in _spline_steps(spline._exact))
    plan = _plan(spline, spline.captured.graph.input, nodes, keep=())
    plan.require_piecewise_affine("a region")
    tensors = _tensors(spline, x)
    return Local(plan, tensors, _record(spline, plan, x, tensors), len(x), x.dtype, x.device)


def through(spline: Spline, x: Tensor, name: str, input: str | None = None) -> AffineMap:
    """The affine map of each row's region to an operator's output; at(output=...) ends at its operand."""
    graph, end = spline.captured.graph, _node(spline, name)
    start = graph.input if input is None else _node(spline, input)
    if start == end or not graph.live(start)[end]:
        raise InputError(f"the operator {name!r} does not depend on input={input!r}")
    return AffineMap(_local(spline, x, start, end, False), _row_shape(spline, start), _row_shape(spline, end))


def weights_of(spline: Spline, tensors: list[Tensor] | None = None) -> Weights:
    """The weights as they are now (tensors, if they were just read); the same object as long as they do not change."""
    tensors = current_tensors(spline) if tensors is None else tensors
    if not spline._weights.are(tensors):
        spline._weights = Weights(tensors, constants=_constants(spline._exact))
    return spline._weights


def _constants(plan: Plan) -> str:
    """The numbers of a network that are no tensors, to six digits: limits and slopes of its units, factors, offsets."""
    found = []
    for step in plan.steps:
        literals = [*step.node.args, *(value for _, value in step.node.kwargs)]
        counts = type(step.rule) is Spline1 or step.node.op.split(".")[1] in ARITHMETIC  # elsewhere integers are axes
        kinds = (int, float) if counts else (float,)
        numbers = [f"{value:.6g}" for value in literals if type(value) in kinds]
        found += [f"{step.node.op} {' '.join(numbers)}"] if numbers else []
    return "\n".join(found)


def _adopt(spline: Spline, captured: Captured) -> None:
    spline.captured = captured
    spline.dtype, spline.device = captured.dtype, captured.device
    spline._exact = Plan(captured.graph)
    spline._plans = {}
    spline.in_shape = _row_shape(spline, captured.graph.input)
    spline.out_shape = _row_shape(spline, captured.graph.output)
    spline.operators = _describe(spline)
    units = tuple(Units(o.name, o.op, o.pieces, o.shape) for o in spline.operators)
    spline._signature = Signature(units, spline.in_shape)
    spline._weights = Weights([source.read() for source in captured.sources], constants=_constants(spline._exact))
    largest = max([prod(step.node.sizes(1)) for step in spline._exact.steps], default=1)
    spline._row_bytes = max(1, largest) * spline.dtype.itemsize


def _describe(spline: Spline) -> tuple[Operator, ...]:
    plan = spline._exact
    tensors = [source.read().detach() for source in spline.captured.sources]
    env = plan.constants(tensors, 1, spline.dtype, spline.device)
    found = []
    for step in _spline_steps(plan):
        operator = operator_of(plan, step, step.arguments(env, 1, spline.dtype, spline.device))
        shape = _row_shape(spline, step.out)
        found.append(Operator(step.node.label, operator.name, operator.pieces, prod(shape), shape))
    return tuple(found)


def _spline_steps(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if step.operator >= 0]


def _row_shape(spline: Spline, node: int) -> Shape:
    layout = spline.captured.graph.layouts[node]
    assert layout is not None
    return layout.unit_shape(spline.captured.graph.nodes[node].shape)


def _plan(spline: Spline, start: int, ends: tuple[int, ...], keep: tuple[int, ...] | None = None) -> Plan:
    key = (start, ends, keep)
    if key not in spline._plans:
        spline._plans[key] = Plan(spline.captured.graph, ends, start, keep)
    return spline._plans[key]


def _node(spline: Spline, name: str) -> int:
    arguments.require(name, str, "the operator", "its name")
    for step in _spline_steps(spline._exact):
        if step.node.label == name:
            return step.out
    raise InputError(f"no spline operator is called {name!r}; the operators are {[o.name for o in spline.operators]}")


def _operand(spline: Spline, output: str | tuple[str, int]) -> int:
    name, place = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    node = spline.captured.graph.nodes[_node(spline, name)]
    live = spline.captured.graph.live(spline.captured.graph.input)
    operands = [(p[0], j) for p, j in node.operands() if live[j]]
    chosen = [j for p, j in operands if place is None or p == place]
    if len(chosen) != 1:
        raise InputError(
            f"output={output!r}: the operator has the live operands {[p for p, _ in operands]}; "
            f"ask for ({name!r}, 0) or ({name!r}, 1)"
        )
    return chosen[0]


def _local(spline: Spline, x: Tensor, start: int, end: int, create_graph: bool) -> Local:
    plan = _plan(spline, start, (end,))
    plan.require_piecewise_affine("an affine map")
    tensors = _tensors(spline, x)
    recorded = tuple(step.out for step in _spline_steps(plan)) + tuple(plan.held)
    codes = Codes({}, {})
    if recorded:
        whole = _plan(spline, spline.captured.graph.input, recorded, keep=tuple(plan.held))
        codes = _record(spline, whole, x, tensors)
    return Local(plan, tensors, codes, len(x), x.dtype, x.device, create_graph)


def _record(spline: Spline, plan: Plan, x: Tensor, tensors: list[Tensor]) -> Codes:
    into = layout_of(plan, plan.start)
    with torch.no_grad():
        parts = [record(plan, tensors, into.from_rows(rows)) for rows in _chunks(spline, x)]
    if len(parts) == 1:
        return parts[0]
    pieces = {i: torch.cat([p.pieces[i] for p in parts]) for i in parts[0].pieces}
    return Codes(pieces, {i: torch.cat([p.held[i] for p in parts]) for i in parts[0].held})


def _chunks(spline: Spline, x: Tensor) -> tuple[Tensor, ...]:
    step = max(1, STREAMED_ROWS // spline._row_bytes)
    return (x,) if len(x) <= step else x.split(step)


def _tensors(spline: Spline, x: Tensor) -> list[Tensor]:
    """The tensors as they are now, after checking that x and the model still fit the capture."""
    _check_input(spline, x)
    return current_tensors(spline)


def current_tensors(spline: Spline) -> list[Tensor]:
    """The tensors as they are now. Raises InputError when the model was moved or rebuilt after its capture."""
    spline.captured.require_parts()
    tensors = [source.read() for source in spline.captured.sources]
    for tensor, (kind, device, shape) in zip(tensors, spline.captured.source_kinds, strict=True):
        if tensor.shape != shape:
            raise InputError(f"a tensor of the model had shape {shape} and has {tuple(tensor.shape)}; capture it again")
        if tensor.device != device or tensor.dtype != kind:
            raise InputError(
                f"the model was moved after capture: a tensor is {tensor.dtype} on {tensor.device}, the spline "
                f"{spline.dtype} on {spline.device}; capture it again, or convert the spline with spline.to(...)"
            )
    return tensors


def _check_input(spline: Spline, x: Tensor) -> None:
    arguments.rows(x, "x", spline.in_shape, spline.dtype, spline.device, "the spline")
    if not isfinite(x.detach().sum()) and not bool(x.isfinite().all()):  # the sum alone may overflow
        raise InputError("x contains NaN or infinite values; remove or replace them")
