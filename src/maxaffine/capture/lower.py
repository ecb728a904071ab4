"""A functional ATen program -> our Graph: sizes are polynomials of the batch, every node has one output."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from maxaffine.capture.example import Inputs
from maxaffine.capture.export import module_path, said_line
from maxaffine.capture.naming import qualified
from maxaffine.capture.whole import as_aten
from maxaffine.errors import CaptureError
from maxaffine.operators import registry
from maxaffine.program.graph import BaseDtype, Device, Graph, Node, Ref, Size

SKIPPED = ("aten._assert_tensor_metadata", "aten._assert_scalar", "aten._assert_async", "aten.sym_constrain")


SHAPE_ONLY = {
    f"aten.{prefix}{word}{suffix}.default": f"aten.{word}.default"
    for word in ("zeros", "ones", "full")
    for prefix, suffix in (("", "_like"), ("new_", ""))
}
"""Operations that read nothing but the shape of their operand, so that their result does not depend on it."""
EMPTY = frozenset(
    f"aten.{name}"
    for name in (
        *("empty.memory_format", "empty_like.default", "new_empty.default", "empty_permuted.default"),
        *("empty_strided.default", "new_empty_strided.default"),
    )
)
"""Memory to be written later. It starts as odd numbers, so that the checks find what the model never writes."""
UNWRITTEN = {True: 777216.5, False: 77}


@dataclass(frozen=True)
class Shared:
    """A parameter or buffer of the model, read anew at each run: train the model and the spline follows."""

    owner: nn.Module
    name: str

    def read(self) -> Tensor:
        """The tensor as it is now."""
        found = self.owner._parameters.get(self.name)
        found = self.owner._buffers.get(self.name) if found is None else found
        if found is None:
            raise CaptureError(f"the model no longer has {self.name!r}; capture it again")
        return found


@dataclass(frozen=True)
class Fixed:
    """A tensor of the spline's own."""

    value: Tensor

    def read(self) -> Tensor:
        """The tensor."""
        return self.value


Source = Shared | Fixed


@dataclass(frozen=True)
class Lowered:
    """A graph whose output is not chosen yet: outputs is the model's output structure with node references."""

    graph: Graph
    sources: tuple[Source, ...]
    outputs: Any
    calls: dict[str, list[int]]
    kinds: dict[str, str]


class Lowering:
    """One pass over a program; every fx node becomes a value: a node number, a size, or a tuple of outputs."""

    def __init__(
        self, program: torch.export.ExportedProgram, model: nn.Module, inputs: Inputs, dtype: torch.dtype
    ) -> None:
        self.program, self.model, self.inputs, self.dtype = program, model, inputs, dtype
        self.nodes: list[Node] = []
        self.sources: list[Source] = []
        self.values: dict[str, Any] = {}
        self.calls: dict[str, list[int]] = {}
        self.kinds: dict[str, str] = {}
        self.declared = _declared_calls(program)
        self.symbol: Any = None
        self.variable = -1

    def run(self) -> Lowered:
        """Lower everything."""
        self._placeholders()
        for fx in self.program.graph.nodes:
            if fx.op == "call_function" and not str(fx.target).startswith(SKIPPED):
                self._call(fx)
        graph = Graph(tuple(self.nodes), self.variable, -1)
        return Lowered(graph, tuple(self.sources), self._outputs(), self.calls, self.kinds)

    def _placeholders(self) -> None:
        leaves, user = self.inputs.leaves, 0
        fx_by_name = {n.name: n for n in self.program.graph.nodes}
        for spec in self.program.graph_signature.input_specs:
            fx = fx_by_name.get(spec.arg.name)
            if spec.kind is InputKind.USER_INPUT:
                self._user_input(fx, leaves[user], user)
                user += 1
            elif fx is not None and spec.kind in (
                InputKind.PARAMETER,
                InputKind.BUFFER,
                InputKind.CONSTANT_TENSOR,
            ):
                source = self._source(str(spec.target))
                self._tensor(fx.name, source, str(spec.target))

    def _user_input(self, fx: torch.fx.Node | None, leaf: Any, place: int) -> None:
        if fx is None or not isinstance(leaf, Tensor):
            if fx is not None:
                self.values[fx.name] = leaf
            return
        if self.symbol is None and self.inputs.batched[place]:
            self.symbol = _batch_symbol(fx)
        if place == self.inputs.variable:
            self.variable = self._append(
                fx.name,
                Node("input", label="input", shape=self._sizes(fx), floating=leaf.is_floating_point()),
            )
        elif self.inputs.batched[place]:
            self.sources.append(Fixed(leaf[:1].clone()))
            self._append(
                fx.name,
                Node(
                    "rows",
                    (len(self.sources) - 1,),
                    label=fx.name,
                    shape=self._sizes(fx),
                    floating=leaf.is_floating_point(),
                ),
            )
        else:
            self._tensor(fx.name, Fixed(leaf), fx.name)

    def _source(self, target: str) -> Source:
        owner, _, name = target.rpartition(".")
        try:
            module = self.model.get_submodule(owner)
        except AttributeError:
            module = None
        if module is not None and (name in module._parameters or name in module._buffers):
            return Shared(module, name)
        constants: dict[str, Any] = {**self.program.state_dict, **self.program.constants}
        if not isinstance(constants.get(target), Tensor):
            raise CaptureError(f"forward uses an object that is no tensor ({target}: a random generator?); remove it")
        return Fixed(constants[target])

    def _tensor(self, name: str, source: Source, label: str) -> None:
        self.sources.append(source)
        value = source.read()
        shape = tuple(value.shape)
        self._append(
            name,
            Node(
                "tensor",
                (len(self.sources) - 1,),
                label=label,
                shape=shape,
                floating=value.is_floating_point(),
            ),
        )

    def _append(self, name: str, node: Node) -> int:
        self.nodes.append(node)
        self.values[name] = Ref(len(self.nodes) - 1)
        return len(self.nodes) - 1

    def _call(self, fx: torch.fx.Node) -> None:
        value = fx.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat | int | bool):
            self.values[fx.name] = self._size(value, fx)
            return
        if fx.target.__name__ == "getitem" and isinstance(fx.args[0], torch.fx.Node):  # type: ignore[union-attr]
            whole = self.values[fx.args[0].name]
            if isinstance(whole, torch.fx.Node):
                self._emit(fx, whole, f"#{fx.args[1]}")
                return
        if isinstance(value, tuple | list):
            self.values[fx.name] = fx  # emitted once for every output that is used
            return
        collapsed = self.declared.get(fx.name)
        if collapsed is not None:
            operand, op = collapsed
            if operand is not None:
                self._emit(fx, fx, "", op, (self.values[operand],))
            return
        self._emit(fx, fx, "")

    def _emit(
        self,
        fx: torch.fx.Node,
        call: torch.fx.Node,
        output: str,
        op: str | None = None,
        args: tuple[Any, ...] | None = None,
    ) -> None:
        args = self._arguments(call.args) if args is None else args
        kwargs = (
            ()
            if op
            else tuple((k, self._arguments(v)) for k, v in call.kwargs.items() if v is not None and k != "pin_memory")
        )
        value, path = fx.meta["val"], module_path(call)
        assert args is not None
        op, args = as_aten(op or f"{call.target}{output}", args)
        if op in EMPTY:
            fill = UNWRITTEN[value.dtype.is_floating_point]
            op, args, kwargs = "aten.full.default", (self._sizes(fx), fill), self._factory(fx)
        if op in SHAPE_ONLY:
            args, kwargs = (self._sizes(fx), *args[1 if "_like" in op else 2 :]), self._factory(fx)
            op = SHAPE_ONLY[op]
        node = Node(op, args, kwargs, path, call.name, self._sizes(fx), value.dtype.is_floating_point)
        index = self._append(fx.name, node)
        for key, kind in (call.meta.get("nn_module_stack") or {}).values():
            self.calls.setdefault(key, []).append(index)
            self.kinds[key] = qualified(kind)

    def _factory(self, fx: torch.fx.Node) -> tuple[tuple[str, Any], ...]:
        dtype = fx.meta["val"].dtype
        return (("dtype", BaseDtype() if dtype is self.dtype else dtype), ("device", Device()))

    def _arguments(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            if value.name not in self.values:
                raise CaptureError(
                    f"forward uses an object that is no tensor ({value.name}: a random generator?); remove it"
                )
            found = self.values[value.name]
            if isinstance(found, torch.fx.Node):
                raise CaptureError(f"{value.name} ({value.target}) is used as a whole tuple, which is not supported")
            return found
        if isinstance(value, tuple | list):
            return tuple(self._arguments(v) for v in value)
        if isinstance(value, torch.dtype):
            return BaseDtype() if value is self.dtype else value
        return Device() if isinstance(value, torch.device) else value

    def _sizes(self, fx: torch.fx.Node) -> tuple[int | Size, ...]:
        return tuple(self._size(d) for d in fx.meta["val"].shape)

    def _size(self, size: Any, fx: torch.fx.Node | None = None) -> Any:
        if isinstance(size, torch.SymInt):
            import sympy  # loaded by torch.export anyway, but not by import maxaffine

            expression = size.node.expr
            if expression.is_number:
                return int(expression)
            if expression.free_symbols != {self.symbol}:
                raise CaptureError(
                    "a size depends on the values of a tensor (a boolean mask?); index with integers instead"
                )
            try:
                coefficients = sympy.Poly(expression, self.symbol).all_coeffs()[::-1]
            except sympy.PolynomialError:
                coefficients = [sympy.Rational(1, 2)]
            if all(c.is_Integer for c in coefficients):
                return Size(tuple(int(c) for c in coefficients))
            raise CaptureError(
                f"a size of the model is {expression} of the batch size; only sums and products of it are supported"
            )
        if isinstance(size, torch.SymBool | torch.SymFloat):
            if not size.node.expr.free_symbols <= {self.symbol}:
                raise CaptureError(
                    f"a number depends on the data{_line_of(fx)} (.item(), .tolist(), float()); keep it a tensor"
                )
            raise CaptureError(
                "a number of the model is computed from the batch size, so its rows would depend on each other"
            )
        return size

    def _outputs(self) -> Any:
        specs = self.program.graph_signature.output_specs
        results = list(next(n for n in self.program.graph.nodes if n.op == "output").args[0])
        for spec in specs:
            if spec.kind is OutputKind.BUFFER_MUTATION:
                raise CaptureError(
                    f"the model writes to its buffer {spec.target!r} when it runs; call model.eval() or remove it"
                )
        kept = [self._result(r) for r, s in zip(results, specs, strict=True) if s.kind is OutputKind.USER_OUTPUT]
        assert self.program.call_spec.out_spec is not None
        return pytree.tree_unflatten(kept, self.program.call_spec.out_spec)

    def _result(self, result: Any) -> Any:
        return self.values[result.name] if isinstance(result, torch.fx.Node) else result


def _batch_symbol(fx: torch.fx.Node) -> Any:
    size = fx.meta["val"].shape[0]
    if isinstance(size, torch.SymInt):
        return size.node.expr
    raise CaptureError(
        f"the program has a fixed batch of {size}: its input {fx.name!r} has shape {tuple(fx.meta['val'].shape)}; "
        "export it with a free one: torch.export.export(..., dynamic_shapes=...), {0: torch.export.Dim('batch')}"
    )


def _line_of(fx: torch.fx.Node | None) -> str:
    """The user's line that made a node."""
    trace = "" if fx is None else fx.meta.get("stack_trace") or ""
    found = re.findall(r'File "([^"]+)", line (\d+), in .*\n(.+)', trace)
    return said_line(*found[-1]) if found else ""


def _declared_calls(program: torch.export.ExportedProgram) -> dict[str, tuple[str | None, str]]:
    """Fx node -> (operand, operation) at the result of a declared module's call, (None, ...) inside it."""
    groups: dict[str, tuple[str, list[torch.fx.Node]]] = {}
    for fx in program.graph.nodes:
        for key, (_, kind) in (fx.meta.get("nn_module_stack") or {}).items():
            name = qualified(kind)
            if fx.op == "call_function" and name in registry.MODULES:
                groups.setdefault(key, (name, []))[1].append(fx)
    found: dict[str, tuple[str | None, str]] = {}
    for name, members in groups.values():
        inside = set(members)
        outputs = [m for m in members if any(u not in inside for u in m.users)]
        sources = {a for m in members for a in m.all_input_nodes if a not in inside and not _constant(a)}
        if len(outputs) != 1 or len(sources) != 1:
            raise CaptureError(f"the declared activation {name} must map one tensor to one tensor")
        found |= {m.name: (None, "") for m in members}
        found[outputs[0].name] = (next(iter(sources)).name, f"module.{name}")
    return found


def _constant(fx: torch.fx.Node) -> bool:
    return fx.op == "placeholder" and fx.name.startswith(("p_", "b_", "c_"))
