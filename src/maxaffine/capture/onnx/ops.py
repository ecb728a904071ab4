"""The table of ONNX operators: for each the function that runs it, and how its inputs and axes are read."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from . import ops_elementwise as elementwise
from . import ops_linear as linear
from . import ops_shape as shape
from . import ops_window as window

ALL = "all"  # an absent list of axes means all of them
REVERSED = "reversed"  # an order of all axes, when absent from the last to the first
NUMBERS = frozenset({"axis", "k", "max", "min", "ratio", "training_mode", "value"})  # constant inputs of one element


@dataclass(frozen=True)
class Rule:
    """How one ONNX operator runs: `run(*tensors, **constants, **attributes)`.

    The first `tensors` inputs are tensors (None: all); those after them, named in `static`, must be known
    when the file is read and arrive as Python numbers and lists.
    `axes`: the parameters that are axes of the first input, with the default to take when absent; they are
    counted from the right before `run` sees them. No axis may be the batch, unless the operator only `moves`.
    `made`: only from constants, never part of the running graph.
    `target`: the operator is a view; `target(sizes of the input, ...)` are the sizes that `run` gives it.
    `statistics`: the tensors that training does not change.
    `spread`: constant tensors do not broadcast over the batch by themselves.
    `ignored`: attributes and inputs without effect on the first output in inference.
    """

    run: Callable[..., Any]
    tensors: int | None = None
    static: tuple[str, ...] = ()
    axes: Mapping[str, Any] = field(default_factory=dict)
    moves: bool = False
    made: bool = False
    target: Callable[..., list[int]] | None = None
    statistics: tuple[int, ...] = ()
    spread: bool = False
    ignored: tuple[str, ...] = ()

    def unknown(self, attributes: Mapping[str, Any]) -> list[str]:
        """The attributes that the function does not take."""
        try:
            return sorted(set(attributes) - set(inspect.signature(self.target or self.run).parameters))
        except ValueError:  # a torch builtin: takes tensors only
            return sorted(attributes)


def _view(target: Callable[..., list[int]], *static: str, run: Callable[..., Any] = shape.view) -> Rule:
    return Rule(run, 1, static, target=target)


def _reduce(run: Callable[..., Any]) -> Rule:
    return Rule(run, 1, ("axes",), {"axes": ALL})


def _along(run: Callable[..., Any], axis: int, *static: str) -> Rule:
    return Rule(run, 1, static, {"axis": axis})


UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Neg": torch.neg, "Sqrt": torch.sqrt, "Reciprocal": torch.reciprocal, "Exp": torch.exp,
    "Log": torch.log, "Sign": torch.sign, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos,
    "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh,
    "Atanh": torch.atanh, "Erf": torch.erf, "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh,
    "Softplus": F.softplus, "Softsign": F.softsign, "HardSwish": F.hardswish, "Mish": F.mish,
    "IsNaN": torch.isnan, "IsInf": torch.isinf, "Not": torch.logical_not,
}  # fmt: skip
BINARY: dict[str, Callable[..., Any]] = {
    "Equal": torch.eq, "Less": torch.lt, "LessOrEqual": torch.le, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "Where": torch.where,
}  # fmt: skip
RULES: dict[str, Rule] = {
    # elementwise
    "Add": Rule(elementwise.add),
    "Sub": Rule(elementwise.sub),
    "Mul": Rule(elementwise.mul),
    "Div": Rule(elementwise.div),
    "Pow": Rule(elementwise.power),
    "Mod": Rule(elementwise.mod),
    "Sum": Rule(elementwise.total),
    "Mean": Rule(elementwise.mean),
    "Max": Rule(elementwise.maximum),
    "Min": Rule(elementwise.minimum),
    "Identity": Rule(elementwise.identity),
    "Dropout": Rule(elementwise.dropout, 1, ("ratio", "training_mode"), ignored=("ratio", "seed")),
    "CastLike": Rule(elementwise.cast_like),
    "Clip": Rule(elementwise.clip, 1, ("min", "max")),
    "LeakyRelu": Rule(elementwise.leaky_relu),
    "PRelu": Rule(elementwise.prelu),
    "ThresholdedRelu": Rule(elementwise.thresholded_relu),
    "HardSigmoid": Rule(elementwise.hard_sigmoid),
    "Shrink": Rule(elementwise.shrink),
    "Elu": Rule(elementwise.elu),
    "Selu": Rule(elementwise.selu),
    "Celu": Rule(elementwise.celu),
    "Gelu": Rule(elementwise.gelu),
    "Softmax": _along(elementwise.softmax, -1),
    "LogSoftmax": _along(elementwise.log_softmax, -1),
    # matrix products, convolutions, normalisations
    "Gemm": Rule(linear.gemm),
    "MatMul": Rule(linear.matmul),
    "Einsum": Rule(linear.einsum),
    "Conv": Rule(linear.conv, ignored=("kernel_shape",)),
    "ConvTranspose": Rule(linear.conv_transpose, ignored=("kernel_shape",)),
    "BatchNormalization": Rule(linear.batch_norm, statistics=(3, 4), ignored=("momentum",)),
    "LayerNormalization": Rule(linear.layer_norm, axes={"axis": -1}, ignored=("stash_type",)),
    "InstanceNormalization": Rule(linear.instance_norm),
    "GroupNormalization": Rule(linear.group_norm, ignored=("stash_type",)),
    "LRN": Rule(linear.local_response_norm),
    # windows
    "MaxPool": Rule(window.max_pool, ignored=("storage_order",)),
    "AveragePool": Rule(window.average_pool),
    "GlobalAveragePool": Rule(window.global_average_pool),
    "GlobalMaxPool": Rule(window.global_max_pool),
    "Upsample": Rule(window.upsample, 1, ("scales",)),
    "Resize": Rule(
        window.resize,
        1,
        ("roi", "scales", "sizes"),
        {"axes": None},
        ignored=("roi", "extrapolation_value"),
    ),
    # views
    "Reshape": _view(shape.reshape_target, "shape"),
    "Flatten": _view(shape.flatten_target),
    "Squeeze": _view(shape.squeeze_target, "axes"),
    "Unsqueeze": _view(shape.unsqueeze_target, "axes"),
    "Expand": _view(shape.expand_target, "shape", run=shape.expand),
    # moving and picking
    "Transpose": Rule(shape.transpose, axes={"perm": REVERSED}, moves=True),
    "Concat": Rule(shape.concat, axes={"axis": 1}, spread=True),
    "Slice": Rule(shape.slice_, 1, ("starts", "ends", "axes", "steps"), {"axes": ALL}, moves=True),
    "Split": Rule(shape.split, 1, ("split",), {"axis": 0}, moves=True),
    "Gather": Rule(shape.gather, 1, ("indices",), {"axis": 0}, moves=True),
    "Pad": Rule(shape.pad, 1, ("pads", "value", "axes"), {"axes": None}, moves=True),
    "Tile": Rule(shape.tile, 1, ("repeats",)),
    "Trilu": Rule(shape.trilu, 1, ("k",)),
    "DepthToSpace": Rule(shape.depth_to_space),
    "SpaceToDepth": Rule(shape.space_to_depth),
    # reducing
    "ReduceMean": _reduce(shape.reduce_mean),
    "ReduceSum": _reduce(shape.reduce_sum),
    "ReduceMax": _reduce(shape.reduce_max),
    "ReduceMin": _reduce(shape.reduce_min),
    "ReduceProd": _reduce(shape.reduce_prod),
    "ReduceL1": _reduce(shape.reduce_l1),
    "ReduceL2": _reduce(shape.reduce_l2),
    "ReduceSumSquare": _reduce(shape.reduce_sum_square),
    "ReduceLogSumExp": _reduce(shape.reduce_log_sum_exp),
    "ArgMax": _along(shape.arg_max, 0),
    "ArgMin": _along(shape.arg_min, 0),
    "CumSum": _along(shape.cum_sum, 0, "axis"),
    # making
    "Shape": Rule(shape.shape, made=True),
    "Size": Rule(shape.size, made=True),
    "Constant": Rule(shape.constant, made=True),
    "ConstantOfShape": Rule(shape.constant_of_shape, made=True),
    "Range": Rule(shape.arange, made=True),
    **{op: Rule(run) for op, run in (UNARY | BINARY).items()},
}
BEFORE: dict[str, tuple[int, Rule]] = {  # operators that meant something else before an opset
    "Softmax": (13, _along(elementwise.softmax_of_rest, 1)),
    "LogSoftmax": (13, _along(elementwise.log_softmax_of_rest, 1)),
    "Resize": (11, Rule(window.upsample, 1, ("scales",))),
}
LIVE: dict[str, Rule] = {  # where what is usually a constant depends on the input
    "Gather": Rule(shape.embedding),
}


def rule_of(op: str, opset: int) -> Rule | None:
    """The rule of an operator in an opset, None if there is none."""
    until, old = BEFORE.get(op, (0, None))
    return old if old is not None and opset < until else RULES.get(op)
