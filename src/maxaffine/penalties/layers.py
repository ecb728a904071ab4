"""The weights of a network: its linear and convolution layers as matrices of rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from maxaffine.arguments import require
from maxaffine.capture import Captured
from maxaffine.errors import InputError
from maxaffine.penalties.convolutions import Sizes
from maxaffine.penalties.evaluating import captured_in_eval
from maxaffine.program.graph import Graph, Node, Ref, substitute
from maxaffine.program.plan import Plan
from maxaffine.spline import Spline

CONVOLUTIONS = tuple(f"aten.conv{d}d.{form}" for d in (1, 2, 3) for form in ("default", "padding"))
TRANSPOSED = tuple(f"aten.conv_transpose{d}d.{form}" for d, form in ((1, "default"), (2, "input"), (3, "input")))
PRODUCTS = {"aten.linear.default": 1, "aten.addmm.default": 2, "aten.mm.default": 1, "aten.matmul.default": 1}
"""Matrix products -> the place of the weight."""

TURNED = ("aten.t.default", "aten.transpose.int", "aten.permute.default", "aten.numpy_T.default", "aten.mT.default")
"""Of a matrix: itself or its transpose."""


NO_LAYERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Modules whose parameters of several axes multiply no signal as a matrix."""


class Weight(Protocol):
    """Where a weight is read, anew at each use."""

    def read(self) -> Tensor:
        """The weight as it is now, differentiable."""
        ...

    def tensors(self) -> list[Tensor]:
        """What it is computed of."""
        ...


@dataclass(frozen=True)
class OfModule:
    """The attribute `weight` of a module; a parametrized one is computed."""

    module: nn.Module

    def read(self) -> Tensor:
        """The weight as it is now."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    def tensors(self) -> list[Tensor]:
        """The parameters of the module."""
        return list(self.module.parameters())


@dataclass(frozen=True)
class OfGraph:
    """A constant of a captured graph: a stored tensor, or what the graph computes of some."""

    captured: Captured
    plan: Plan
    node: int

    def read(self) -> Tensor:
        """The weight as it is now."""
        node = self.captured.graph.nodes[self.node]
        if node.op == "tensor":
            return self.captured.sources[node.args[0]].read()
        tensors = [source.read() for source in self.captured.sources]
        return self.plan.constants(tensors, 1, self.captured.dtype, self.captured.device)[self.node]

    def tensors(self) -> list[Tensor]:
        """The stored tensors."""
        nodes = self.captured.graph.nodes
        places = [nodes[i].args[0] for i in self.plan.fixed if nodes[i].op == "tensor"]
        return [self.captured.sources[place].read() for place in places]


@dataclass(frozen=True)
class Convolution:
    """What belongs to a convolution beside its filters."""

    stride: Sizes = 1
    dilation: Sizes = 1
    groups: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Layer:
    """A linear or convolution layer of a network: path of the module that calls it, and its live weight.

    columns: the weight is stored as (D, C), as in x @ W.
    """

    path: str
    source: Weight
    columns: bool = False
    convolution: Convolution | None = None

    @property
    def weight(self) -> Tensor:
        """(C, D), for a convolution (C_out, C_in / groups * kernel): one row an output, differentiable, read anew."""
        return self.rows.flatten(0, -2)

    @property
    def rows(self) -> Tensor:
        """(G, C / G, D): the rows of each group; filters of different groups see different inputs. Else (1, C, D)."""
        weight = self.source.read()
        if self.convolution is None:
            return (weight.mT if self.columns else weight).unsqueeze(0)
        groups = weight.unflatten(0, (self.convolution.groups, -1))
        return (groups.transpose(1, 2) if self.convolution.transposed else groups).flatten(2)


def all_layers(model: nn.Module | Spline, example: Any = None) -> tuple[Layer, ...]:
    """Every linear and convolution layer; weights that are tied are listed once.

    Of a model: its modules nn.Linear, nn.Conv1d to 3d and their transposed forms. Of a spline, of an ONNX file, and of
    a model that has other matrices: the operations of the captured graph, a product with a constant matrix included.
    Raises InputError when there is none, and when a model has other matrices (a parameter of its own, an attention)
    and there is no example to capture it around: some of them might be layers.
    """
    if isinstance(model, Spline):
        return _distinct(_of_spline(model))
    other = other_matrix(model)
    if other and example is None:
        raise InputError(
            f"{other} belongs to no nn.Linear or convolution, but may be a layer: give example=x, a batch of inputs, "
            "or a Spline, and the layers are read in the captured graph"
        )
    return all_layers(captured_in_eval(model, example)) if other else _distinct(_of_model(model))


def _distinct(layers: Iterable[tuple[Any, Layer]]) -> tuple[Layer, ...]:
    found: dict[Any, Layer] = {}
    for key, layer in layers:
        found.setdefault(key, layer)
    if not found:
        raise InputError("the network has no linear and no convolution layer, so there is nothing to penalise")
    return tuple(found.values())


def _of_model(model: nn.Module) -> Iterator[tuple[Any, Layer]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            layer = Layer(path, OfModule(module))
        elif isinstance(module, _ConvNd):
            turned = isinstance(module, _ConvTransposeNd)
            layer = Layer(path, OfModule(module), False, convolution_of(module, turned))
        else:
            continue
        plain = module._parameters.get("weight")
        if plain is not None and is_lazy(plain):
            raise InputError(f"the weight of layer {path!r} has no shape yet; run the model on a batch first")
        yield id(module if plain is None else plain), layer


def other_matrix(model: nn.Module) -> str:
    """The first parameter with two axes or more that no layer, embedding or normalisation owns; or nothing."""
    require(model, nn.Module, "the model", "an nn.Module or a maxaffine.Spline")
    owners = [module for module in model.modules() if isinstance(module, (nn.Linear, _ConvNd, *NO_LAYERS))]
    owned = {id(parameter) for owner in owners for parameter in owner.parameters()}
    for path, parameter in model.named_parameters():
        wide = not is_lazy(parameter) and sum(size > 1 for size in parameter.shape) > 1
        if wide and id(parameter) not in owned:
            return f"parameter {path!r} {tuple(parameter.shape)}"
    return ""


def convolution_of(module: _ConvNd, transposed: bool) -> Convolution:
    """The settings of a convolution module."""
    return Convolution(module.stride, module.dilation, module.groups, transposed)


def _of_spline(spline: Spline) -> Iterator[tuple[Any, Layer]]:
    captured = spline.captured
    live = captured.graph.live(captured.graph.input)
    for node in captured.graph.nodes:
        layer = layer_of(captured, node, live)
        if layer is not None:
            assert isinstance(layer.source, OfGraph)
            yield _computation(captured, layer.source.node), layer


def _computation(captured: Captured, at: int) -> tuple[Any, ...]:
    """How a constant is computed of the stored tensors: equal for tied weights, a transposed one included."""
    nodes = captured.graph.nodes
    node = nodes[at]
    if node.op == "tensor":
        return (id(captured.sources[node.args[0]].read()),)
    if node.op in TURNED and len(node.shape) == 2:
        return _computation(captured, node.args[0].index)
    arguments = substitute(node.args, lambda leaf: _computation(captured, leaf.index) if type(leaf) is Ref else leaf)
    return node.op, repr(arguments), repr(node.kwargs)


def layer_of(captured: Captured, node: Node, live: Sequence[bool]) -> Layer | None:
    """The layer that a node is: a live tensor times a weight that does not vary."""
    place = PRODUCTS.get(node.op, 1 if node.op in (*CONVOLUTIONS, *TRANSPOSED) else None)
    if place is None:
        return None
    x, weight = node.args[place - 1], node.args[place]
    constant = type(weight) is Ref and not live[weight.index] and type(x) is Ref and live[x.index]
    if not constant or (node.op in PRODUCTS and len(captured.graph.nodes[weight.index].shape) != 2):
        return None
    source = OfGraph(captured, _only(captured.graph, weight.index), weight.index)
    if node.op in PRODUCTS:
        return Layer(node.module, source, columns=node.op != "aten.linear.default")
    return Layer(node.module, source, False, _settings(node))


def _settings(node: Node) -> Convolution:
    turned = node.op in TRANSPOSED
    given = dict(enumerate(node.args))
    dilation, groups = (given.get(7, 1), given.get(6, 1)) if turned else (given.get(5, 1), given.get(6, 1))
    return Convolution(_list(given.get(3, 1)), _list(dilation), groups, turned)


def _list(value: Any) -> Sizes:
    return value if isinstance(value, int) else tuple(value)


def _only(graph: Graph, node: int) -> Plan:
    """What must be computed for one constant, and nothing else."""
    return Plan(graph, (node,))
