"""Where the captured graph begins and ends: over= (a module's output as the variable), until= and select=."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from maxaffine import arguments
from maxaffine.capture.lower import Lowered
from maxaffine.errors import CaptureError
from maxaffine.program.graph import Graph, Ref


def begin(lowered: Lowered, over: int | str | None, is_input: bool, names: Mapping[str, str]) -> Graph:
    """The graph with its variable: the named input, or the output of the module path over.

    names: module path -> what messages call it (ONNX outputs).
    """
    if over is None or is_input:
        if not lowered.graph.nodes[lowered.graph.input].floating:
            raise CaptureError(
                "the input is of integers (token ids); take the spline over an embedding's output: "
                f"over={names.get(_embedding(lowered), _embedding(lowered))!r}"
            )
        return lowered.graph
    return replace(lowered.graph, input=_module_output(lowered, str(over), "over", names))


def _embedding(lowered: Lowered) -> str:
    paths = [n.module for n in lowered.graph.nodes if n.op.startswith("aten.embedding")]
    return paths[0] if paths else "<module path of the embedding>"


def end(lowered: Lowered, graph: Graph, select: Any, until: str | None, names: Mapping[str, str]) -> Graph:
    """The graph with its output: the selected leaf of the model's output, or the output of the module until."""
    index = _select(lowered.outputs, select) if until is None else _module_output(lowered, until, "until", names)
    if not graph.live(graph.input)[index]:
        raise CaptureError("the output does not depend on the input that varies")
    return replace(graph, output=index)


def _select(outputs: Any, select: Any) -> int:
    chosen = outputs
    for key in select if isinstance(select, tuple) else () if select is None else (select,):
        chosen = _item(chosen, key)
    leaves = [leaf for leaf in pytree.tree_leaves(chosen) if isinstance(leaf, Ref)]
    if len(leaves) == 1:
        return leaves[0].index
    if not leaves:
        raise CaptureError(f"select={select!r} picks no tensor that the model computes from its input")
    keys = list(outputs) if isinstance(outputs, Mapping) else list(range(len(outputs)))
    raise CaptureError(f"the model returns {len(leaves)} tensors; say which one: select= one of {keys}")


def _item(value: Any, key: Any) -> Any:
    number = isinstance(value, tuple | list) and isinstance(key, str) and key.isdecimal()
    place: Any = int(key) if number else key  # "1" of the command line
    try:
        return value[place]
    except (KeyError, IndexError, TypeError):
        keys = (
            list(value)
            if isinstance(value, Mapping)
            else f"0 to {len(value) - 1}"
            if isinstance(value, tuple | list)
            else None
        )
        raise CaptureError(f"select={key!r} is not in the model's output; it has {keys}") from None


def _module_output(lowered: Lowered, name: str, word: str, names: Mapping[str, str]) -> int:
    """The one value of the module's (last) call that the rest of the model reads; a module by its path or its name."""
    arguments.require(name, str, word, "the path of a module, as in model.named_modules()")
    path = {label: path for path, label in names.items()}.get(name, name)
    members = lowered.calls.get(path)
    if members is None:
        known = [names.get(p, p) for p in lowered.calls if p]
        close = difflib.get_close_matches(name, known, 3) or known[-5:]
        what = "the output of a node" if names else "the path of a module that was called"
        raise CaptureError(f"{word}={name!r} is {'no input, nor' if word == 'over' else 'not'} {what}; close: {close}")
    inside = set(members)
    users = lowered.graph.users()
    returned = {leaf.index for leaf in pytree.tree_leaves(lowered.outputs) if isinstance(leaf, Ref)}
    leaving = [i for i in members if i in returned or any(u not in inside for u in users[i])]
    if word == "until" and leaving and len(leaving) != 1:
        leaving = leaving[-1:] if lowered.graph.nodes[leaving[-1]].module == path else leaving
    if len(leaving) != 1:
        raise CaptureError(f"{word}={name!r}: {len(leaving)} tensors leave that module; name a module with one output")
    return leaving[0]


def dtype_of(leaves: list[Any], model: torch.nn.Module) -> torch.dtype:
    """The floating-point dtype of the network: that of its parameters, else of its buffers, else of the inputs."""
    tensors = [*model.parameters(), *model.buffers(), *(v for v in leaves if isinstance(v, torch.Tensor))]
    kinds = {t.dtype for t in model.parameters() if t.is_floating_point()}
    kinds = kinds or {t.dtype for t in tensors if t.is_floating_point()}
    if not kinds:
        given = sorted({str(t.dtype) for t in tensors})
        raise CaptureError(f"nothing of the model or the example is floating point ({', '.join(given)}); give floats")
    if len(kinds) != 1:
        raise CaptureError(
            f"the model mixes the dtypes {sorted(map(str, kinds))}; convert it with .to(torch.float64), say"
        )
    kind = kinds.pop()
    if kind.itemsize < 4:
        raise CaptureError(
            f"the model is {kind}; convert a copy with .to(torch.float32): codes of half precision are not exact"
        )
    return kind
