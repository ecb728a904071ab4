"""A small synthetic network of the test lists, and how to build, feed and capture it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class Of(nn.Module):
    """A module that runs `function(self, x)` over the layers given by name."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class OfTwo(Of):
    """As Of, of two inputs: x and a context."""

    def forward(self, x: Tensor, context: Tensor) -> Any:
        return self.function(self, x, context)


class OfAny(Of):
    """As Of, with a forward that takes whatever it is given."""

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        return self.function(self, *inputs, **named)


class SixthSigmoid(nn.Module):
    """Hardsigmoid by its formula: torch's own backward rounds 1/6 to float32."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3).clamp(0, 6) / 6


def differentiable(model: nn.Module) -> nn.Module:
    """The model made exactly differentiable: no ReLU in place, hardsigmoid by its formula. Changes it."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, nn.Hardsigmoid):
                parent._modules[name] = SixthSigmoid()
            elif isinstance(child, nn.ReLU):
                child.inplace = False
    return model


@dataclass(frozen=True)
class Net:
    """A network by name: a builder, the shape (*in) of one input, and how a spline is taken of it."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    others: tuple[tuple[int, ...], ...] = ()  # shapes (1, ...) of constant inputs that follow x
    keyword: str | None = None  # x is passed under this name
    options: Mapping[str, Any] = field(default_factory=dict)  # over, select, until of the spline
    tokens: int = 0  # > 0: the model reads ids (n, *shape) below `tokens`; x is the embedding's output
    ties: bool = False  # random inputs may lie on a wall (equal candidates, dead units)


def model_of(net: Net, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """The network in eval mode with reproducible weights, batch-norm statistics included."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = net.build()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.to(dtype).eval()


def constants_of(net: Net, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The constant inputs that follow x."""
    generator = torch.Generator().manual_seed(99)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in net.others)


def ids_of(net: Net, n: int, seed: int = 1) -> Tensor:
    """n rows of token ids."""
    return torch.randint(net.tokens, (n, *net.shape), generator=torch.Generator().manual_seed(seed))


def inputs_of(net: Net, n: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """n random inputs of the spline (n, *in), standard normal."""
    if net.tokens:
        embedding = model_of(net, dtype).get_submodule(net.options["over"])
        return embedding(ids_of(net, n, seed)).detach()
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *net.shape, generator=generator, dtype=torch.float64).to(dtype)


def example_of(net: Net, dtype: torch.dtype = torch.float64) -> Any:
    """What ma.Spline is given as its example: one row."""
    if net.tokens:
        return ids_of(net, 1)
    x = inputs_of(net, 1, dtype, seed=0)
    if net.keyword:
        return {net.keyword: x}
    return (x, *constants_of(net, dtype)) if net.others else x


def output_of(net: Net, model: nn.Module, x: Tensor) -> Tensor:
    """The original model at inputs x of the spline, one item selected or cut where the spline is cut."""
    seen: list[Tensor] = []
    hooks = []
    if "until" in net.options:
        hooks.append((net.options["until"], lambda _module, _inputs, output: seen.append(output)))
    if net.tokens:
        hooks.append((net.options["over"], lambda _module, _inputs, _output: x))
    handles = [model.get_submodule(path).register_forward_hook(hook) for path, hook in hooks]
    try:
        y = called(net, model, x)
    finally:
        for handle in handles:
            handle.remove()
    y = seen[-1] if seen else y
    return y[net.options["select"]] if "select" in net.options else y


def called(net: Net, model: nn.Module, x: Tensor) -> Any:
    """The model called as its users call it; constant inputs are repeated for each row."""
    if net.tokens:
        return model(torch.zeros(x.shape[: 1 + len(net.shape)], dtype=torch.long))
    if net.keyword:
        return model(**{net.keyword: x})
    return model(x, *(c.expand(len(x), *c.shape[1:]) for c in constants_of(net, x.dtype)))
