"""The spline operators of a captured network as objects: which step runs them and what they are."""

from maxaffine.errors import InputError
from maxaffine.operators.registry import SplineOperator
from maxaffine.program.plan import Plan, Step, operator_of
from maxaffine.spline import Spline, current_tensors


def step_of(spline: Spline, plan: Plan, name: str) -> Step:
    """The step that runs a spline operator. Raises InputError listing the names."""
    for step in plan.steps:
        if step.operator >= 0 and step.node.label == name:
            return step
    known = [operator.name for operator in spline.operators]
    raise InputError(f"no spline operator is called {name!r}; the operators are {known}")


def built(spline: Spline, plan: Plan, step: Step) -> SplineOperator:
    """The spline operator of a step, with the network's present constants."""
    tensors = [tensor.detach() for tensor in current_tensors(spline)]
    env = plan.constants(tensors, 1, spline.dtype, spline.device)
    return operator_of(plan, step, step.arguments(env, 1, spline.dtype, spline.device))
