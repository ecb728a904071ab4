"""From the ONNX file to the module: constants are folded, the batch the file was written for is set free.

The file is run once at its own batch b (`full`), node by node, and beside it at batch 1 (`one`, the first row
alone); what it hard-wires for b is rewritten for 1 on the way, and both must agree. Every node becomes a
step over a free batch of rows, in the simplest layout that gives for random rows what each gives alone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from maxaffine.errors import CaptureError

from . import binding
from .binding import Operands, Value, bind
from .module import FORMS, Layout, OnnxModule, Step, same
from .ops import LIVE, Rule, rule_of
from .reader import File, Input, Node

FREE_BATCH = 3  # at which a file with a free batch is run: no size that could be meant for all batches
EXPECTED = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    NotImplementedError,
    ArithmeticError,
    MemoryError,
)


class RowsDependError(CaptureError):
    """The file runs at its batch, but not row by row."""


def build(file: File) -> tuple[OnnxModule, tuple[Tensor, ...]]:
    """The module of a file and an example of batch 1.

    Raises:
        CaptureError: an operator that is not supported, or that moves, mixes or drops the batch.
    """
    batches = {value.sizes[0] for value in file.inputs}
    if len(batches) != 1:
        shown = ", ".join(f"{value.name} {list(value.sizes)}" for value in file.inputs)
        raise CaptureError(f"the inputs do not share one batch as their first axis: {shown or 'there is none'}")
    batch = batches.pop()
    with torch.no_grad():
        if batch is not None:
            return _Probe(file, batch).build()
        try:
            return _Probe(file, FREE_BATCH).build()
        except RowsDependError:
            raise
        except CaptureError as error:
            return _wired(file, error)


def _wired(file: File, refused: CaptureError) -> tuple[OnnxModule, tuple[Tensor, ...]]:
    """A file with a free input but a batch of 1 wired in further down; one that runs at another was refused rightly."""
    module, example = _Probe(file, 1).build()
    probe = _Probe(file, FREE_BATCH)
    try:
        wanted = probe.run()
    except CaptureError:  # the file itself knows no batch but 1
        return module, example
    found = module(*probe.inputs)
    found = found if isinstance(found, tuple) else (found,)
    if any(y.shape != w.shape or not same(y, w) for y, w in zip(found, wanted, strict=True)):
        raise refused
    return module, example


@contextmanager
def _at(node: Node) -> Iterator[None]:
    """Any failure inside becomes one line that names the node."""
    try:
        yield
    except EXPECTED as error:
        kind = type(error) if isinstance(error, CaptureError) else CaptureError
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise kind(f"{node.label}: {line}") from None


class _Probe:
    """One run of the file at a batch; holds every value and the steps so far."""

    def __init__(self, file: File, batch: int) -> None:
        self.file, self.batch = file, batch
        self.random = torch.Generator().manual_seed(0)
        self.inputs = [self._draw(value, batch) for value in file.inputs]
        self.values = {name: Value(tensor, tensor, False) for name, tensor in file.constants.items()}
        for value, x in zip(file.inputs, self.inputs, strict=True):
            self.values[value.name] = Value(x[:1], x, True)
        self.weights = {id(c): nn.Parameter(c) for c in file.constants.values() if c.is_floating_point() and c.dim()}
        self.steps: list[Step] = []

    def build(self) -> tuple[OnnxModule, tuple[Tensor, ...]]:
        """Run all nodes, then hold the module against the file."""
        for node in self.file.nodes:
            with _at(node):
                self._run(node)
        for name in self.file.outputs:
            if not _known(self.file, self.values, name).live:
                raise CaptureError(f"the output '{name}' does not depend on any input")
        module = OnnxModule(tuple(v.name for v in self.file.inputs), self.file.outputs, self.steps).eval()
        self._check(module)
        return module, tuple(x[:1].clone() for x in self.inputs)

    def run(self) -> list[Tensor]:
        """The file's outputs as it gives them, whatever becomes of the rows."""
        for value, x in zip(self.file.inputs, self.inputs, strict=True):
            self.values[value.name] = Value(x, x, False)
        for node in self.file.nodes:
            with _at(node):
                self._run(node)
        return [_known(self.file, self.values, name).full for name in self.file.outputs]

    def _draw(self, value: Input, batch: int) -> Tensor:
        sizes = [batch, *(size for size in value.sizes[1:] if size is not None)]
        if value.dtype.is_floating_point:
            return torch.rand(sizes, generator=self.random, dtype=torch.float64).to(value.dtype)
        return torch.randint(0, 2, sizes, generator=self.random).to(value.dtype)

    def _check(self, module: OnnxModule) -> None:
        """The module must give, for all rows at once, what the file gives at its own batch."""
        results = module(*self.inputs)
        for name, y in zip(self.file.outputs, results if isinstance(results, tuple) else (results,), strict=True):
            value = self.values[name]
            gone = self.batch == 1 and value.hidden and 1 not in value.one.shape  # squeezed away, not moved
            expected = value.full.unsqueeze(0) if gone else value.full
            maker = next((node.label for node in self.file.nodes if name in node.outputs), f"the input '{name}'")
            if y.shape != expected.shape:
                raise CaptureError(f"{maker}: the batch is not the first axis of the output {tuple(value.full.shape)}")
            if not same(y, expected):
                raise RowsDependError(f"{maker}: the rows of the output depend on each other or on the batch size")

    # ---- one node -------------------------------------------------------------------------------
    def _run(self, node: Node) -> None:
        operands: Operands = [_known(self.file, self.values, name) if name else None for name in node.inputs]
        rule = rule_of(node.op, self.file.opset)
        if rule is None:
            raise CaptureError(f"the ONNX operator {node.op} (opset {self.file.opset}) is not supported")
        if rule.tensors is not None and any(v is not None and v.live for v in operands[rule.tensors :]):
            rule = LIVE.get(node.op, rule)
        live = any(value is not None and value.live for value in operands)
        make = self._fold if not live or rule.made else self._view if rule.target else self._step
        for name, value in zip(node.outputs, make(rule, node, operands), strict=False):
            self.values[name] = value

    def _fold(self, rule: Rule, node: Node, operands: Operands) -> list[Value]:
        """A value that is known now; only the sizes of a live tensor are."""
        if rule.made and node.op not in ("Shape", "Size") and any(v is not None and v.live for v in operands):
            raise CaptureError("its operands depend on the input of the network: it has no fixed size")
        results = []
        for pick in (binding.one, binding.full):
            run = bind(rule, node, operands, pick)
            if rule.target and operands[0] is not None:
                x = pick(operands[0])
                run = partial(rule.run, rank=x.dim(), shape=run(list(x.shape)))
            results.append(_tuple(run(*(None if v is None else pick(v) for v in operands[: rule.tensors]))))
            if all(v is None or v.one is v.full for v in operands):
                results.append(results[0])
                break
        return [Value(one, full, False) for one, full in zip(*results, strict=True)]

    def _view(self, rule: Rule, node: Node, operands: Operands) -> list[Value]:
        """A view: its sizes are taken at the file's own batch, and from there for one row."""
        x = operands[0]
        assert x is not None
        rank, sizes = x.one.dim(), bind(rule, node, operands, binding.full)(list(x.full.shape))
        full = rule.run(x.full, rank=rank, shape=sizes)
        if node.op == "Expand":
            kept = [1] * (full.dim() - rank) + list(x.full.shape)
            sizes = [-1 if new == old else new for new, old in zip(full.shape, kept, strict=True)]
        else:
            sizes = list(full.shape) if self.batch == 1 else _row_sizes(full, x.one, self.batch)
            if rank and sizes and x.one.shape[0] == sizes[0] == 1:
                rank, sizes = rank - 1, sizes[1:]
        run = partial(rule.run, rank=rank, shape=sizes)
        return self._live(rule, node, run, [x], (full,))

    def _step(self, rule: Rule, node: Node, operands: Operands) -> list[Value]:
        """Any other operator that depends on the input."""
        tensors = operands[: rule.tensors]
        full = bind(rule, node, operands, binding.full)(*(None if v is None else v.full for v in tensors))
        own = [self._own(value, tensors) for value in tensors]
        return self._live(rule, node, bind(rule, node, operands, binding.one), own, _tuple(full))

    def _own(self, value: Value | None, operands: Operands) -> Value | None:
        """A constant that has a copy for each row of the file's batch is the same constant for one row."""
        if value is None or value.live or self.batch == 1:
            return value
        row = value.one
        for x in operands:
            if x is not None and x.live and x.one.dim() == row.dim():
                for axis in range(row.dim()):
                    if x.one.shape[axis] == 1 and x.full.shape[axis] == row.shape[axis] == self.batch:
                        if not same(row, row.narrow(axis, 0, 1).expand_as(row)):
                            raise CaptureError("a constant operand differs between the rows of the batch")
                        row = row.narrow(axis, 0, 1)
        return Value(row, value.full, False)

    def _live(
        self, rule: Rule, node: Node, run: Callable[..., Any], operands: Operands, full: tuple[Tensor, ...]
    ) -> list[Value]:
        """Append the step and return its results."""
        ones = _tuple(run(*(None if value is None else value.one for value in operands)))
        for one, whole in zip(ones, full, strict=True):
            self._compare(one, whole)
        self.steps.append(self._lay_out(rule, node, run, operands))
        return [Value(one, whole, True) for one, whole in zip(ones, full, strict=True)]

    def _compare(self, one: Tensor, full: Tensor) -> None:
        """The file at its own batch and at batch 1 must tell the same of the first row."""
        if full.numel() != self.batch * one.numel():
            shapes = f"{tuple(full.shape)} at batch {self.batch}, {tuple(one.shape)} at batch 1"
            raise RowsDependError(f"it moves or folds the batch: {shapes}")
        in_front = one.dim() and one.shape[0] == 1 and full.shape == (self.batch, *one.shape[1:])
        if in_front and not same(full[:1], one):
            raise RowsDependError("its rows depend on each other or on the batch size")

    def _lay_out(self, rule: Rule, node: Node, run: Callable[..., Any], operands: Operands) -> Step:
        """The step in the first layout that is right on random rows."""
        live = [value for value in operands if value is not None and value.live]
        constants = [None if v is None else v if v.live else v.one for v in operands]
        rows = [[self._like(value.one) for value in live] for _ in range(3)]
        expected = [_tuple(run(*_filled(constants, row))) for row in rows]
        leads = tuple(y.shape[0] if y.dim() else None for y in expected[0])
        wanted = [_stacked([row[i] for row in expected]) for i in range(len(leads))]
        inputs = [_stacked([row[i] for row in rows]) for i in range(len(live))]
        names = [name for name, value in zip(node.inputs, operands, strict=False) if value is not None and value.live]
        hidden, rank = tuple(v.hidden for v in live), max(v.one.dim() for v in operands if v is not None)
        slots = _filled([None if v is None else self._constant(rule, v, i) for i, v in enumerate(operands)], names)
        for form in FORMS:
            if form == "rows" and any(hidden):
                continue
            step = Step(run, slots, node.outputs, Layout(form, hidden, rank, leads), spread=rule.spread)
            try:
                results = step(*inputs)
            except EXPECTED:
                continue
            if all(same(y, z) for y, z in zip(results, wanted, strict=True)):
                return step
        raise CaptureError("it moves or folds the batch in a way that has no free batch")

    def _constant(self, rule: Rule, value: Value, index: int) -> Any:
        """What a step holds of a value: itself if live, its weight (shared by all readers), or a buffer."""
        if value.live:
            return value
        return value.one if index in rule.statistics else self.weights.get(id(value.one), value.one)

    def _like(self, x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.rand(x.shape, generator=self.random, dtype=torch.float64).to(x.dtype)
        return torch.rand(x.shape, generator=self.random) < 0.5 if x.dtype == torch.bool else x


def _known(file: File, values: Mapping[str, Value], name: str) -> Value:
    """A value by its name; the reader saw that a node writes it, but maybe not as an output that we compute."""
    if name not in values:
        node = next(node for node in file.nodes if name in node.outputs)
        place = node.outputs.index(name) + 1
        raise CaptureError(f"'{name}' is output {place} of {node.label}, which is not supported")
    return values[name]


def _filled(operands: list[Any], live: list[Any]) -> list[Any]:
    """The operands, with the live values replaced by others in turn."""
    rest = iter(live)
    return [next(rest) if isinstance(operand, Value) else operand for operand in operands]


def _stacked(rows: list[Tensor]) -> Tensor:
    """Values of the file at batch 1, held as the module holds a batch of them."""
    in_front = rows[0].dim() and rows[0].shape[0] == 1
    return torch.cat(rows) if in_front else torch.stack(rows)


def _tuple(results: Any) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _row_sizes(full: Tensor, one: Tensor, batch: int) -> list[int]:
    """The sizes of a view at batch 1, from the view of all rows: the axis with the batch is divided by it.

    The batch may have been merged with what is before or after it, a size (outer * batch * inner); the right
    place is the one at which the first row is picked out. An axis that is the batch alone is tried first.
    """
    places = sorted(range(full.dim()), key=lambda axis: full.shape[axis] != batch)
    for axis in (axis for axis in places if full.shape[axis] % batch == 0):
        merged = full.shape[axis] // batch
        for outer in (d for d in range(1, merged + 1) if merged % d == 0):
            row = full.unflatten(axis, (outer, batch, merged // outer)).select(axis + 1, 0).flatten(axis, axis + 1)
            if row.numel() == one.numel() and same(row.flatten(), one.flatten()):
                return list(row.shape)
    raise CaptureError(f"it moves or folds the batch of {batch}: the sizes {tuple(full.shape)} have no axis for it")
