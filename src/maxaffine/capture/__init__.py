"""From an nn.Module, an ONNX file, a saved spline or a .pt2 file to a graph: captured once, checked, never guessed.

>>> import torch
>>> from maxaffine.capture import capture_module
>>> captured = capture_module(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.zeros(1, 2))
>>> [node.op for node in captured.graph.nodes]
['tensor', 'tensor', 'input', 'aten.linear.default', 'aten.relu.default']
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from maxaffine import arguments
from maxaffine.capture import checks, cut
from maxaffine.capture.example import ROWS, Inputs, arrange
from maxaffine.capture.export import export, refuse_scripted
from maxaffine.capture.lower import Fixed, Lowered, Lowering, Source
from maxaffine.capture.naming import labelled
from maxaffine.errors import CaptureError, InputError
from maxaffine.program.graph import Graph, Ref
from maxaffine.program.plan import Plan
from maxaffine.types import Shape

Part = tuple[str, Mapping[str, nn.Module | None], str, nn.Module]
"""A module of the model: its path, the children of its parent (live), its name there, itself."""


@dataclass(frozen=True)
class Captured:
    """A checked graph, where its tensors are read, the dtype and device it was captured in, its example's range."""

    graph: Graph
    sources: tuple[Source, ...]
    dtype: torch.dtype
    device: torch.device
    source_kinds: tuple[tuple[torch.dtype, torch.device, Shape], ...] = ()
    span: tuple[float, float] = (0.0, 0.0)
    parts: tuple[Part, ...] = ()

    def require_parts(self) -> None:
        """Raise InputError when a module of the model is another one than at the capture."""
        for path, parent, name, child in self.parts:
            if parent.get(name) is not child:
                raise InputError(f"module {path!r} of the model was replaced after its capture; capture it again")

    def converted(self, target: torch.dtype | torch.device | str) -> "Captured":
        """A copy in another dtype or on another device, tensors included. Raises InputError for any other target."""
        if not isinstance(target, torch.dtype | torch.device | str):
            raise InputError(f"a spline is converted to a dtype or a device, not to {arguments.told(target)}")
        self.require_parts()
        try:
            dtype = target if isinstance(target, torch.dtype) else self.dtype
            asked = self.device if isinstance(target, torch.dtype) else torch.device(target)
            device = torch.empty(0, device=asked).device  # "cuda" is "cuda:0" once something lies there
            if dtype not in arguments.FLOATS or device.type == "meta":
                raise InputError(f"a spline cannot compute in {target}; use torch.float32 or torch.float64")
            kinds = (dtype if kind == self.dtype else kind for kind, _, _ in self.source_kinds)
            copies = tuple(
                Fixed(s.read().detach().to(device=device, dtype=kind, copy=True))
                for s, kind in zip(self.sources, kinds, strict=True)
            )
        except (RuntimeError, AssertionError) as error:  # torch's words for no such device, or not in this build
            raise InputError(f"cannot convert to {target!r}: {str(error).splitlines()[0]}") from None
        return captured(self.graph, copies, dtype, device, self.span)


def captured(
    graph: Graph, sources: tuple[Source, ...], dtype: torch.dtype, device: torch.device, span: tuple[float, float]
) -> Captured:
    """Remember dtype, device and shape of every source, so that a model moved or rebuilt later is noticed."""
    tensors = [source.read() for source in sources]
    return Captured(graph, sources, dtype, device, tuple((t.dtype, t.device, tuple(t.shape)) for t in tensors), span)


def capture_module(
    model: nn.Module,
    example: Any,
    over: int | str | None = None,
    select: Any = None,
    until: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Captured:
    """Capture a model around an example; names: module path -> the name its operators get (ONNX outputs).

    Raises CaptureError when the model cannot be captured exactly.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"the model is a {type(model).__name__}; wrap it in an nn.Module whose forward calls it")
    refuse_scripted(model)
    inputs = arrange(example, over, model.forward)
    dtype, x = cut.dtype_of(inputs.leaves, model), inputs.leaves[inputs.variable]
    if x.is_floating_point() and x.dtype != dtype:
        raise CaptureError(f"the example is {x.dtype}, the model {dtype}; convert one of them with .to(...)")
    _same_place(model, inputs)
    return finish(export(model, inputs), model, inputs, over, select, until, dict(names or {}))


def finish(
    program: torch.export.ExportedProgram,
    model: nn.Module,
    inputs: Inputs,
    over: int | str | None,
    select: Any,
    until: str | None,
    names: dict[str, str],
) -> Captured:
    """From a functional program of the model to a checked graph, cut and named."""
    dtype = cut.dtype_of(inputs.leaves, model)
    lowered = Lowering(program, model, inputs, dtype).run()
    tensors = [source.read().detach() for source in lowered.sources]
    with torch.no_grad():
        _check_whole(lowered, tensors, model, inputs)
        graph = cut.begin(lowered, over, inputs.named, names)
        graph = cut.end(lowered, graph, select, until, names)
        graph = labelled(graph, names, lowered.kinds)
        start = _start_value(lowered, tensors, graph, inputs)
        graph = checks.with_layouts(graph, tensors, start)
        checks.check_rows(Plan(graph), tensors, start)
        checks.check_frozen(Plan(graph), tensors, start)
    found = captured(graph, lowered.sources, dtype, start.device, (float(start.min()), float(start.max())))
    return replace(found, parts=tuple(_parts(model)))


def _parts(model: nn.Module) -> Iterator[Part]:
    for path, parent in model.named_modules():
        for name, child in parent._modules.items():
            if child is not None:
                yield f"{path}.{name}".lstrip("."), parent._modules, name, child


def _same_place(model: nn.Module, inputs: Inputs) -> None:
    devices = {t.device for t in [*model.parameters(), *model.buffers()]}
    given = {t.device for t in inputs.leaves if isinstance(t, Tensor)}
    if len(devices | given) > 1:
        raise CaptureError(
            f"the model is on {sorted(map(str, devices))}, the example on {sorted(map(str, given))}; "
            "move one with .to(device)"
        )


def _check_whole(lowered: Lowered, tensors: list[Tensor], model: nn.Module, inputs: Inputs) -> None:
    """The captured graph gives what the model gives, on the example and on fresh values of the variable."""
    index = next((leaf.index for leaf in pytree.tree_leaves(lowered.outputs) if _is_ref(leaf)), None)
    if index is None:
        raise CaptureError("the model returns no tensor")
    plan = Plan(Graph(lowered.graph.nodes, lowered.graph.input, -1), _outputs(lowered), lenient=True)
    leaves = inputs.leaves
    x = leaves[inputs.variable]
    tries = [x, checks.fresh_like(x)] if x.is_floating_point() else [x]
    for value in tries:
        call = inputs.replaced([value.clone() if i == inputs.variable else v for i, v in enumerate(leaves)])
        wanted = pytree.tree_leaves(_fresh_call(model, call))
        env = plan.run(
            plan.constants(tensors, ROWS, x.dtype if x.is_floating_point() else torch.get_default_dtype(), x.device),
            value.clone(),
            value.dtype,
            ROWS,
        )
        found = [leaf if not _is_ref(leaf) else env[leaf.index] for leaf in pytree.tree_leaves(lowered.outputs)]
        for a, b in zip(found, wanted, strict=True):
            if isinstance(b, Tensor) and b.is_floating_point():
                checks.assert_same(a, b, "the captured network differs from the model")


def _fresh_call(model: nn.Module, call: Inputs) -> Any:
    copies = pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, (call.args, call.kwargs))
    try:
        return model(*copies[0], **copies[1])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CaptureError(f"the model does not run on the example: {str(error).splitlines()[0]}") from None


def _is_ref(leaf: Any) -> bool:
    return type(leaf) is Ref


def _outputs(lowered: Lowered) -> list[int]:
    return sorted({leaf.index for leaf in pytree.tree_leaves(lowered.outputs) if _is_ref(leaf)})


def _start_value(lowered: Lowered, tensors: list[Tensor], graph: Graph, inputs: Inputs) -> Tensor:
    """The variable at 3 rows: the example, or what the named module makes of it."""
    x = inputs.leaves[inputs.variable]
    if graph.input == lowered.graph.input:
        return x
    plan = Plan(Graph(lowered.graph.nodes, lowered.graph.input, -1), [graph.input])
    env = plan.constants(tensors, ROWS, torch.get_default_dtype(), x.device)
    return plan.run(env, x, torch.get_default_dtype(), ROWS)[graph.input]
