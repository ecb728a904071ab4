"""Running the network while every spline operator writes down which piece is active."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from maxaffine.operators.maximum import Windows
from maxaffine.program.frozen import Codes
from maxaffine.program.graph import Layout
from maxaffine.program.plan import Plan, Step, operand_count, operator_of


def record(plan: Plan, tensors: Sequence[Tensor], x: Tensor) -> Codes:
    """The codes of all spline operators of the plan at the rows of x, and the values of its kept nodes."""
    graph = plan.graph
    pieces: dict[int, Tensor] = {}

    def handler(step: Step, arguments: Sequence[Any]) -> Tensor:
        operator = operator_of(plan, step, arguments)
        if isinstance(operator, Windows):
            value, code = operator.value_and_code(arguments[0])
        else:
            code = operator.code(*arguments[: operand_count(step)])
            value = arguments[0] if step.out in plan.unread else step.function(*arguments, **step.kwargs)
        pieces[step.out] = layout_of(plan, step.out).to_rows(code)
        return value

    rows = layout_of(plan, graph.input).to_rows(x).shape[0]
    env = plan.run(plan.constants(tensors, rows, x.dtype, x.device), x, x.dtype, rows, handler)
    return Codes(pieces, {j: layout_of(plan, j).to_rows(env[j]) for j in plan.kept})


def layout_of(plan: Plan, node: int) -> Layout:
    """Where the rows of that node are."""
    layout = plan.graph.layouts[node]
    assert layout is not None
    return layout
