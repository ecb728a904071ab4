"""Hard orthogonality: weights that are orthonormal at every step, by torch's own parametrization."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrizations, parametrize

from maxaffine.arguments import require
from maxaffine.errors import InputError
from maxaffine.penalties.evaluating import captured_in_eval
from maxaffine.penalties.head import last_layer
from maxaffine.penalties.layers import Layer, OfGraph, all_layers, other_matrix


class FilterRows(nn.Module):
    """Torch's orthogonal parametrization of the matrix whose rows are the filters of each group, flattened."""

    orthogonal: nn.Module

    def __init__(self, weight: Tensor, groups: int, transposed: bool) -> None:
        super().__init__()
        self.groups, self.transposed = groups, transposed
        self.kernel = weight.shape[2:]
        holder = nn.Module()
        holder.weight = nn.Parameter(self._rows(weight.detach()).contiguous())
        parametrizations.orthogonal(holder, "weight")
        self.orthogonal = _chain(holder)[0]

    def forward(self, free: Tensor) -> Tensor:
        """The weight of the free matrices."""
        rows: Tensor = self.orthogonal(free)
        inputs = rows.shape[-1] // self.kernel.numel()
        weight = rows.unflatten(-1, (inputs, *self.kernel))
        return (weight.transpose(1, 2) if self.transposed else weight).flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The free matrices of an orthogonal weight; another one is replaced by torch's projection of it."""
        inverse: Any = self.orthogonal.right_inverse
        return inverse(self._rows(weight))

    def _rows(self, weight: Tensor) -> Tensor:
        groups = weight.unflatten(0, (self.groups, -1))
        return (groups.transpose(1, 2) if self.transposed else groups).flatten(2)


def hard_orthogonality(model: nn.Module, on: Literal["last", "all"] = "last", example: Any = None) -> tuple[str, ...]:
    """Make weights orthonormal, exactly and for the whole training: W W^T = I for C <= D, else W^T W = I.

    torch.nn.utils.parametrizations.orthogonal on the last linear layer or on all linear and convolution layers (rows =
    flattened filters, group by group). The weight becomes a function of a free parameter, starts at torch's
    orthogonalisation of what it was, and the norms of its rows are held at 1: unlike the penalties it controls them
    too. The model is changed in place: build the optimiser afterwards, capture it afterwards.

    Returns:
        The paths of the changed modules; `remove_hard_orthogonality` undoes it and keeps the orthonormal weights.

    Raises:
        InputError: on="last" without an example or without a final linear layer, a weight that is already
            parametrized or shared by two modules; on="all" with matrices that belong to no nn.Linear or convolution.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> hard_orthogonality(net, "last", torch.zeros(1, 4))
    ('2',)
    >>> bool((net[2].weight @ net[2].weight.T - torch.eye(3)).abs().max() < 1e-5)
    True
    """
    require(model, nn.Module, "the model", "an nn.Module")
    if on not in ("last", "all"):
        raise InputError(f"on={on!r} is unknown; choose one of last, all")
    paths = [_path(model, last_layer(captured_in_eval(model, example)))] if on == "last" else _paths(model)
    for path in paths:
        module = model.get_submodule(path)
        if parametrize.is_parametrized(module, "weight"):
            raise InputError(f"hard_orthogonality: {path}.weight is parametrized already; remove that first")
    for path in paths:
        _make(model.get_submodule(path))
    return tuple(paths)


def remove_hard_orthogonality(model: nn.Module) -> tuple[str, ...]:
    """Make the weights plain parameters again, with the orthonormal values they have now; the paths of the modules.

    Parametrizations of other kinds stay. Build the optimiser anew: the free parameters are gone.

    >>> net = nn.Sequential(nn.Linear(4, 3))
    >>> hard_orthogonality(net, "all"), remove_hard_orthogonality(net)
    (('0',), ('0',))
    """
    require(model, nn.Module, "the model", "an nn.Module")
    paths = [path for path, module in model.named_modules() if _is_ours(module)]
    for path in paths:
        parametrize.remove_parametrizations(model.get_submodule(path), "weight", leave_parametrized=True)
    return tuple(paths)


def _is_ours(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module, "weight"):
        return False
    chain = _chain(module)
    return len(chain) == 1 and type(chain[0]) in (FilterRows, parametrizations._Orthogonal)


def _chain(module: nn.Module) -> nn.ModuleList:
    """What the module's weight is computed by."""
    chains = module.parametrizations
    assert isinstance(chains, nn.ModuleDict)
    chain = chains["weight"]
    assert isinstance(chain, nn.ModuleList)
    return chain


def _make(module: nn.Module) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if not isinstance(module, _ConvNd):
        parametrizations.orthogonal(module, "weight")
        return
    rows = FilterRows(weight, module.groups, isinstance(module, _ConvTransposeNd))
    with torch.no_grad():
        weight.copy_(rows(rows.right_inverse(weight.detach())))
    parametrize.register_parametrization(module, "weight", rows)


def _paths(model: nn.Module) -> list[str]:
    other = other_matrix(model)
    if other:
        raise InputError(f"hard_orthogonality: {other} is the weight of no nn.Linear or convolution; use on='last'")
    layers = all_layers(model)
    shared = [p for p, m in model.named_modules(remove_duplicate=True) if p not in {layer.path for layer in layers}]
    taken = {id(layer.source.read()) for layer in layers}
    for path in shared:
        weight = model.get_submodule(path)._parameters.get("weight")
        if weight is not None and id(weight) in taken:
            raise InputError(f"hard_orthogonality: {path}.weight is shared by two modules, it would be torn apart")
    return [layer.path for layer in layers]


def _path(model: nn.Module, layer: Layer) -> str:
    """Path of the module whose parameter `weight` the layer is."""
    assert isinstance(layer.source, OfGraph)
    weight = layer.source.read()
    owners = [path for path, module in model.named_modules() if module._parameters.get("weight") is weight]
    if len(owners) != 1 or layer.columns:
        what = "is shared by two modules" if len(owners) > 1 else "is no module's `weight`, but computed or functional"
        raise InputError(
            f"hard_orthogonality: the weight of the last layer ({layer.path or 'the model itself'}) {what}"
        )
    return owners[0]
