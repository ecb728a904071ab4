"""A graph compiled into a flat list of steps with liveness, and the loop that runs it.

Nodes that do not depend on the variable are evaluated first (`constants`); the live ones become steps. A handler sees
every spline operator; without one the operators run as they are, so the loop is the network itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from maxaffine.errors import CaptureError, NotPiecewiseAffineError
from maxaffine.operators import registry
from maxaffine.operators.affine import Affine
from maxaffine.operators.registry import Opaque, Refused, Spline1, Spline2, shape_of
from maxaffine.program.graph import Graph, Node, Ref, settle, substitute

Rule = Affine | Spline1 | Spline2 | Opaque
Handler = Callable[["Step", Sequence[Any]], Tensor]
SELECTORS = ("where", "index", "gather", "scatter", "masked", "embedding", "select")


def function_of(op: str) -> Callable[..., Any]:
    """The torch operation of that name."""
    name, _, place = op.partition("#")
    if name.startswith("module."):
        return _declared(registry.MODULES[name.removeprefix("module.")])
    if name in _OWN:
        return _OWN[name]
    target: Any = torch.ops
    for part in name.split("."):
        target = getattr(target, part)
    return (lambda *args, **kwargs: target(*args, **kwargs)[int(place)]) if place else target


def _declared(operator: registry.SplineOperator) -> Callable[..., Tensor]:
    return lambda z: operator.piece(operator.freeze(operator.code(z), z.dtype), z)


_OWN: dict[str, Callable[..., Any]] = {
    "aten.view.default": torch.reshape,  # a frozen map meets other strides than the model did
    "aten._unsafe_view.default": torch.reshape,
    "aten.hardsigmoid.default": lambda z: (z + 3).clamp(0, 6) / 6,  # torch's own takes 1/6 in float32 on a GPU
    "maxaffine.softshrink.default": torch.nn.functional.softshrink,
    "maxaffine.hardshrink.default": torch.nn.functional.hardshrink,
}


@dataclass(frozen=True)
class Step:
    """One live operation: slot written, function, arguments, which of them are live, and its rule."""

    out: int
    node: Node
    rule: Rule
    function: Callable[..., Any]
    live: tuple[tuple[tuple[int, ...], int], ...]
    dead: tuple[int, ...] = ()
    flat: tuple[tuple[int, int], ...] | None = None
    operator: int = -1
    kwargs: dict[str, Any] = field(default_factory=dict)

    def arguments(self, env: Sequence[Any], batch: int, dtype: torch.dtype, device: torch.device) -> Sequence[Any]:
        """The arguments with every reference replaced by its value."""
        if self.flat is not None:
            args = list(self.node.args)
            for place, slot in self.flat:
                args[place] = env[slot]
            return args
        args = substitute(self.node.args, lambda leaf: env[leaf.index] if type(leaf) is Ref else leaf)
        return settle(args, batch, dtype, device)

    def call(self, env: Sequence[Any], batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Run the operation itself."""
        args = self.arguments(env, batch, dtype, device)
        if not self.kwargs:
            return self.function(*args)
        kwargs = substitute(self.node.kwargs, lambda leaf: env[leaf.index] if type(leaf) is Ref else leaf)
        return self.function(*args, **dict(settle(kwargs, batch, dtype, device)))


class Plan:
    """The steps from node `start` to the nodes `ends`, and the constants they need."""

    def __init__(
        self,
        graph: Graph,
        ends: Sequence[int] | None = None,
        start: int | None = None,
        keep: Sequence[int] | None = None,
        lenient: bool = False,
    ) -> None:
        """lenient: operations on no table are run as they are, which suffices to compare values."""
        self.graph = graph
        self.operators: dict[int, registry.SplineOperator] = {}
        self.start = graph.input if start is None else start
        self.ends = tuple([graph.output] if ends is None else ends)
        live, needed = graph.live(self.start), graph.needed(list(self.ends), self.start)
        varying = graph.live(graph.input)
        used = [i for i in range(len(graph.nodes)) if needed[i]]
        self.held = [i for i in used if varying[i] and not live[i] and self._feeds(i, live, needed)]
        fixed = graph.needed([j for j in used if live[j] or j in self.held], None) if self.held else needed
        self.fixed = [i for i in range(len(graph.nodes)) if needed[i] and fixed[i] and not varying[i]]
        self.static = self._static(graph)
        steps = [_step(graph, i, live, lenient) for i in used if live[i] and i != self.start]
        self.kept = self.ends if keep is None else tuple(keep)
        self.steps = _liveness(steps, {*self.kept, *self.fixed, *self.held})
        read = {j for step in self.steps for _, j in step.live}
        self.unread = {step.out for step in self.steps} - read - set(self.kept)
        self.functions = {i: function_of(graph.nodes[i].op) for i in self.fixed if "." in graph.nodes[i].op}

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.graph, self.ends, self.start, self.kept)

    def _feeds(self, i: int, live: list[bool], needed: list[bool]) -> bool:
        return i in self.ends or any(live[j] and needed[j] for j in self.graph.users()[i])

    def _static(self, graph: Graph) -> set[int]:
        static: set[int] = set()
        for i in self.fixed:
            node = graph.nodes[i]
            if node.op != "rows" and not node.sized and all(j in static for _, j in node.operands()):
                static.add(i)
        return static

    def constants(
        self,
        tensors: Sequence[Tensor],
        batch: int,
        dtype: torch.dtype,
        device: torch.device,
        known: list[Any] | None = None,
    ) -> list[Any]:
        """Values of the nodes that do not vary, as a list indexed by node; `known` carries the static ones over."""
        env: list[Any] = [None] * len(self.graph.nodes)
        for i in self.fixed:
            env[i] = (
                known[i]
                if known is not None and i in self.static
                else self.constant(i, env, tensors, batch, dtype, device)
            )
        return env

    def constant(
        self,
        i: int,
        env: list[Any],
        tensors: Sequence[Tensor],
        batch: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Any:
        """The value of one node that does not vary, given those it reads."""
        node = self.graph.nodes[i]
        if node.op == "tensor":
            return tensors[node.args[0]]
        if node.op == "rows":
            return tensors[node.args[0]].expand(batch, *node.shape[1:])
        fill = lambda leaf: env[leaf.index] if type(leaf) is Ref else leaf  # noqa: E731
        args = settle(substitute(node.args, fill), batch, dtype, device)
        kwargs = settle(substitute(node.kwargs, fill), batch, dtype, device)
        return self.functions[i](*args, **dict(kwargs))

    def run(
        self,
        env: list[Any],
        x: Tensor,
        dtype: torch.dtype,
        batch: int | None = None,
        handler: Handler | None = None,
    ) -> list[Any]:
        """Run all steps on x; env holds the constants on entry and the values of the ends on return."""
        env[self.start] = x
        batch = x.shape[0] if batch is None else batch
        for step in self.steps:
            if step.operator < 0 or handler is None:
                env[step.out] = step.call(env, batch, dtype, x.device)
            else:
                env[step.out] = handler(step, step.arguments(env, batch, dtype, x.device))
            for slot in step.dead:
                env[slot] = None
        return env

    def require_piecewise_affine(self, asked: str) -> None:
        """Raise NotPiecewiseAffineError when a step on the way is smooth or discontinuous."""
        for step in self.steps:
            if type(step.rule) is Opaque:
                raise NotPiecewiseAffineError(_not_affine(asked, step, self))


def _not_affine(asked: str, step: Step, plan: Plan) -> str:
    rule = step.rule
    assert type(rule) is Opaque
    before = [s.node.module for s in plan.steps if s.out < step.out and s.node.module]
    inside = f"{step.node.module}."  # modules around the step end behind it
    modules = [m for m in before if not inside.startswith(f"{m}.")]
    hint = (
        f"cut the network before it with until={modules[-1]!r}"
        if modules
        else "no piecewise-affine module stands before it"
    )
    return f"{asked} is not defined: {said(step.node)} is {rule.kind}, {rule.verdict}; {hint}"


def said(node: Node) -> str:
    """A node as messages name it."""
    where = f"in module {node.module!r}" if node.module else "in the model's own forward"
    return f"{node.label} ({node.op}) {where}"


def classify(graph: Graph, node: Node, live: Sequence[tuple[tuple[int, ...], int]]) -> Rule | Refused | None:
    """The rule of a live node, given which operands are live; None when the operation is on no table."""
    rule = registry.rule_of(node.op)
    if type(rule) is Affine:
        positions = {place[0] for place, _ in live}
        lowered = [v for k, v in node.kwargs if k == "dtype" and type(v) is torch.dtype]
        if any(not v.is_floating_point or v.itemsize < 8 for v in lowered) or not node.floating:
            return Opaque("discontinuous (it rounds)")  # a dtype that is not the network's own, and not float64
        lists = [place for place, _ in live if len(place) == 2]
        if any(positions <= set(allowed) for allowed in rule.live) and not (rule.one_of_list and len(lists) > 1):
            return rule
        chooses = any(word in node.op for word in SELECTORS)
        return Opaque(
            "discontinuous (what it selects depends on the input)" if chooses else "a product of two live tensors"
        )
    if type(rule) is not Spline1:
        return rule
    if {place for place, _ in live} != {(0,)}:
        if node.op in registry.BOUNDS:
            return registry.BOUNDS[node.op]
        return Opaque("an activation whose parameters depend on the input", "which is not supported")
    try:  # some are continuous for some numbers only; a learned parameter is always allowed
        if len(list(node.operands())) == 1:
            rule.build(shape_of(graph.nodes[live[0][1]].shape), *node.args[1:], **dict(node.kwargs))
    except NotPiecewiseAffineError as jump:
        return Opaque(str(jump))
    return rule


UNKNOWN = (
    "is on no table; say what it computes with maxaffine.declare (the activation around it) or maxaffine.register (a "
    "custom operator), or cut the network before it with until="
)


def _step(graph: Graph, i: int, live: list[bool], lenient: bool) -> Step:
    node = graph.nodes[i]
    operands = tuple((place, j) for place, j in node.operands() if live[j])
    rule = classify(graph, node, operands)
    if rule is None and lenient:
        rule = Opaque("on no table")
    if rule is None or type(rule) is Refused:
        raise CaptureError(f"{said(node)} {UNKNOWN if rule is None else f'is {rule.reason}'}")
    everything = list(node.operands())
    simple = not node.marked and all(len(p) == 1 and p[0] < len(node.args) for p, _ in everything)
    flat = tuple((p[0], j) for p, j in everything) if simple else None
    assert not isinstance(rule, Refused)
    return Step(i, node, rule, function_of(node.op), operands, (), flat, -1, dict(node.kwargs))


def _liveness(steps: list[Step], kept: set[int]) -> list[Step]:
    """Give every step the slots that nobody reads after it, and number the spline operators."""
    last: dict[int, int] = {}
    for n, step in enumerate(steps):
        last[step.out] = n
        for _, j in step.live:
            last[j] = n
    count = 0
    finished: list[Step] = []
    for n, step in enumerate(steps):
        dead = tuple(j for j, end in last.items() if end == n and j not in kept)
        spline = type(step.rule) in (Spline1, Spline2)
        finished.append(
            Step(
                step.out,
                step.node,
                step.rule,
                step.function,
                step.live,
                dead,
                step.flat,
                count if spline else -1,
                step.kwargs,
            )
        )
        count += spline
    return finished


def operator_of(plan: Plan, step: Step, arguments: Sequence[Any]) -> registry.SplineOperator:
    """The spline operator of a step, built for its operand's shape and constants (once if these are numbers)."""
    if step.out in plan.operators:
        return plan.operators[step.out]
    operand = next(j for _, j in step.node.operands())
    if type(step.rule) is Spline2:
        operator = step.rule.operator
    else:
        assert type(step.rule) is Spline1
        operator = step.rule.build(shape_of(plan.graph.nodes[operand].shape), *arguments[1:], **step.kwargs)
    if type(step.rule) is Spline2 or len(list(step.node.operands())) == 1:
        plan.operators[step.out] = operator
    return operator


def operand_count(step: Step) -> int:
    """How many operands a spline step has."""
    return 2 if type(step.rule) is Spline2 else 1
