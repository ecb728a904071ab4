"""The names of spline operators, by which codes and reports know them."""

from dataclasses import replace
from typing import Any

from maxaffine.operators import registry
from maxaffine.program.graph import Graph, Node


def qualified(kind: Any) -> str:
    """A class as module.name."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def labelled(graph: Graph, names: dict[str, str], kinds: dict[str, str]) -> Graph:
    """Name the spline operators: the calling activation or pooling module, else <enclosing module>.<operation>.

    names: module path -> given name (ONNX outputs); kinds: module path -> qualified class.
    """
    live = graph.live(graph.input)
    seen: dict[str, int] = {}
    nodes = list(graph.nodes)
    for i, node in enumerate(nodes):
        if not live[i] or type(registry.rule_of(node.op)) not in (registry.Spline1, registry.Spline2):
            continue
        base = _base_name(node, names, kinds)
        seen[base] = seen.get(base, -1) + 1
        nodes[i] = replace(node, label=f"{base}@{seen[base]}" if seen[base] else base)
    return replace(graph, nodes=tuple(replace(n, module=names.get(n.module, n.module)) for n in nodes))


def _base_name(node: Node, names: dict[str, str], kinds: dict[str, str]) -> str:
    if node.module in names:
        return names[node.module]
    home = kinds.get(node.module, "")
    own = node.op.startswith("module.") or home.startswith(
        ("torch.nn.modules.activation.", "torch.nn.modules.pooling.")
    )
    if own and node.module:
        return node.module
    word = node.op.split("#")[0].split(".")[-1 if node.op.startswith("module.") else 1].strip("_")
    return f"{node.module}.{word}" if node.module else word
