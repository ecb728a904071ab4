"""nn.Module -> ATen graph by torch.export (non-strict, free batch), made functional; failures become one clear line."""

import contextlib
import copy
import io
import logging
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from maxaffine.capture.decompositions import decompositions
from maxaffine.capture.example import ROWS, Inputs
from maxaffine.capture.whole import SHRINKS, WholeBatchNorms
from maxaffine.errors import CaptureError

Arguments = Sequence[Any]
DROPS = "drops units at random (training mode)"
DROPOUTS = ("dropout", "dropout_", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
RRELU, RECURRENT = ("rrelu", "rrelu_"), ("lstm", "gru", "rnn_relu", "rnn_tanh")
TRAINING: dict[str, tuple[Callable[[Arguments], bool], str]] = {
    "aten.batch_norm.default": (
        lambda a: bool(a[5]),
        "uses the statistics of the batch (training mode, or no running statistics)",
    ),
    "aten.instance_norm.default": (
        lambda a: bool(a[5]) and a[3] is not None,
        "changes its running statistics (training mode)",
    ),
    **{f"aten.{name}.default": (lambda a: bool(a[2]) and a[1] != 0, DROPS) for name in DROPOUTS},
    **{f"aten.{name}.default": (lambda a: bool(a[3]), "draws random slopes (training mode)") for name in RRELU},
    **{f"aten.{name}.input": (lambda a: a[4] > 1 and a[5] > 0 and bool(a[6]), DROPS) for name in RECURRENT},
    "aten.scaled_dot_product_attention.default": (lambda a: a[4] != 0, "drops attention at random (training mode)"),
}
"""Operator -> whether its arguments, in the order of its schema, say training; and what it does then."""


SAME = {"clip.default": "clamp.default", "clip.Tensor": "clamp.Tensor", "absolute.default": "abs.default"}
SAME |= {"fix.default": "trunc.default", "instance_norm.default": "batch_norm.default"}
"""Other names of an operation; an instance norm with the statistics of the training data is a batch norm."""


def export(model: nn.Module, inputs: Inputs) -> torch.export.ExportedProgram:
    """The functional ATen program of the model, with linear, convolutions, pools and activations kept whole.

    Raises CaptureError naming the line of the model's forward that cannot be captured.
    """
    shapes = inputs.dynamic_shapes(model.forward)
    with quiet():
        try:
            with WholeBatchNorms():
                program = torch.export.export(model, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export raises dozens of unrelated types
            given = [f"{v.dtype} {tuple(v.shape[1:])}" for v in inputs.leaves if isinstance(v, torch.Tensor)]
            where = _user_line(error) or _line_for_another_batch(model, inputs)
            raise CaptureError(f"{_reason(error, where)}; inputs a row: {', '.join(given)}") from None
        return functional(program)


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Without in-place operations; softshrink and hardshrink whole, little else decomposed: see decompositions."""
    _refuse_training(program)
    aten = torch.ops.aten
    for node in program.graph.nodes:
        for name in SHRINKS:
            if node.op == "call_function" and node.target is getattr(aten, name).default:
                node.target = getattr(torch.ops.maxaffine, name).default
        other = SAME.get(str(node.target).removeprefix("aten."), "")
        if other and (not other.startswith("batch_norm") or not _arguments(node)[5]):
            node.target = getattr(getattr(aten, other.split(".")[0]), other.split(".")[1])
    with quiet():
        return program.run_decompositions(decompositions())


def refuse_scripted(model: nn.Module) -> None:
    """Raise CaptureError when a module is TorchScript."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CaptureError(
                f"module {path or type(model).__name__!r} is TorchScript and hides its operations; pass the nn.Module"
            )


def _refuse_training(program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        trains, does = TRAINING.get(str(node.target), (None, ""))
        if trains is not None and trains(_arguments(node)):
            raise CaptureError(f"module {module_path(node)!r} ({node.target}) {does}; call model.eval() first")


def _arguments(node: torch.fx.Node) -> list[Any]:
    """All arguments of an ATen node in the order of its schema."""
    schema = node.target._schema.arguments  # pyright: ignore
    given = zip(schema, [*node.args, *[node] * len(schema)], strict=False)
    return [node.kwargs.get(a.name, a.default_value) if value is node else value for a, value in given]


def module_path(node: torch.fx.Node) -> str:
    """Path of the innermost module that called the node, '' for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch.export logs, warns and prints when it fails; our error says it once."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


_CAUSES = (
    (
        r"GuardOnDataDependent|data-dependent|Could not guard|Dynamic control flow|unbacked",
        "a branch or number (if, .item(), int()) depends on the data; keep it a tensor (clamp, maximum, relu)",
    ),
    (
        r"in output, which is not a known type",
        "forward returns what torch.export cannot look into; return tensors, or tuples, lists or dicts of them",
    ),
    (r"not supported for tensor subclasses", "the values leave torch (.numpy()); use torch's operations"),
    (
        r"Constraints violated|not all values of batch|specializ|ConstraintViolation|L\['",
        "the batch size is hard-wired; write -1 or x.shape[0] for the batch",
    ),
    (
        r"is invalid for input of size|cannot be reshaped|size mismatch|must match the size|shape",
        "the shapes do not fit a batch of 3 rows (a hard-wired batch, or a wrong example shape)",
    ),
)


def _reason(error: Exception, where: str) -> str:
    text = f"{type(error).__name__}: {error}"
    cause = next((why for pattern, why in _CAUSES if re.search(pattern, text)), None)
    first = re.sub(r"\s+", " ", str(error).strip().split("\n")[0])
    first = first if len(first) <= 200 else first[:200].rsplit(". ", 1)[0]
    detail = cause or f"{type(error).__name__}: {first}"
    extra = f" ({first})" if cause and first and not first.startswith("Constraints") else ""
    return f"the model cannot be captured{where}: {detail}{extra}"


def _user_line(error: Exception) -> str:
    """The deepest line of the traceback that is neither torch's nor ours."""
    torch_home, own_home = os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__))
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith((torch_home, own_home, "<")) and frame.line:
            found = said_line(frame.filename, frame.lineno, frame.line)
    return found


def said_line(file: str, number: int | None, code: str) -> str:
    """A line of the user's as messages name it."""
    code = code.strip()
    return f" at {os.path.basename(file)}:{number} `{code if len(code) <= 100 else code[:97] + '...'}`"


def _line_for_another_batch(model: nn.Module, inputs: Inputs) -> str:
    """Where a copy of the model fails on one row more; '' if it does not."""
    try:
        twin = copy.deepcopy(model)
        args, kwargs = inputs.with_rows(ROWS + 1)
        with quiet(), torch.no_grad():
            twin(*args, **kwargs)
    except Exception as error:  # whatever the user's code raises
        return _user_line(error)
    return ""
