"""The penalty on the templates themselves: exact, second order through A[x]."""

from math import ceil, prod
from typing import Any

import torch
from torch import Tensor

from maxaffine import arguments
from maxaffine.errors import InputError
from maxaffine.penalties.fixed_code import value_and_gradients
from maxaffine.penalties.rows import check_kind, energies
from maxaffine.program.links import channels_last
from maxaffine.program.local import Local
from maxaffine.spline import Spline


def template_orthogonality(
    spline: Spline,
    x: Tensor,
    kind: str = "mean",
    share: float = 1.0,
    generator: torch.Generator | None = None,
    memory: int | None = None,
) -> Tensor:
    """The orthogonality of the templates of each input, the rows of A[x]; 0-dim, differentiable in the parameters.

        mean over n of (1/C^2) sum_{c1 != c2} <A[x_n]_c1, A[x_n]_c2>^2        (kind "mean")

    The same as `orthogonality(spline.at(x, create_graph=True).A.flatten(2), kind)`, faster and in bounded memory. A[x]
    does not change with x inside a region, so there is no gradient in x. The gradients are computed together with the
    value (under torch.no_grad only the value is); a derivative of them is refused. Batch norm enters with its running
    statistics, as in eval mode: capture the spline from the model in eval mode (`Penalty` does).

    Args:
        spline: captured from the network that is trained; outputs of several axes count as prod(*out) classes.
        x: (N, *in).
        kind: "sum" | "mean" | "cosine" | "authors" | "norm_control", see `orthogonality`.
        share: the part of the batch whose templates are penalised: ceil(share N) rows drawn without replacement, so
            that the result is an unbiased estimate of the whole batch's ("sum" is scaled by N / drawn).
        generator: draws them; without it torch's global one.
        memory: bytes that the largest layer's activations may take for the templates that are done at once.

    Raises:
        InputError, NotPiecewiseAffineError.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> spline, x = Spline(net, torch.zeros(1, 4)), torch.randn(10, 4)
    >>> template_orthogonality(spline, x).backward()
    >>> net[0].weight.grad.shape
    torch.Size([8, 4])

    Source: the authors' OMASO code (mean over classes and inputs); Balestriero & Baraniuk 2018, arXiv 1805.06576.
    """
    check_kind(kind)
    arguments.require(spline, Spline, "spline", "a maxaffine.Spline of the network")
    x = arguments.rows(x, "x", spline.in_shape, spline.dtype, spline.device, "the spline")
    rows = _drawn(x.detach(), share, generator)
    weight = len(x) / len(rows) if kind == "sum" else 1 / len(rows)
    maps = spline.at(channels_last(rows), create_graph=True).maps  # pooling is faster so
    assert isinstance(maps, Local)
    tensors = _trained(maps.tensors) if torch.is_grad_enabled() else []
    outs = prod(spline.out_shape)
    basis = torch.eye(outs, dtype=spline.dtype, device=spline.device).reshape(outs, *spline.out_shape)
    with torch.autocast(spline.device.type, enabled=False):
        value, gradients = value_and_gradients(maps, basis, lambda A: energies(A, kind).sum() * weight, tensors, memory)
    return _Known.apply(value, gradients, *tensors) if tensors else value


class _Known(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients, ctx.tensors = gradients, tensors
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_Gradients.apply(upstream[0], ctx.gradients, *ctx.tensors)


class _Gradients(torch.autograd.Function):
    """These gradients: functions of the tensors whose derivative is not known."""

    @staticmethod
    def forward(ctx: Any, upstream: Tensor, gradients: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        return tuple(upstream * gradient for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        raise InputError(
            "the gradients of a penalty on templates have no derivative; where one is needed (create_graph=True), take "
            "orthogonality(spline.at(x, create_graph=True).A.flatten(2), kind)"
        )


def _trained(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor that requires a gradient, once."""
    return list({id(tensor): tensor for tensor in tensors if tensor.requires_grad}.values())


def _drawn(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    check_share(share)
    if generator is not None:
        arguments.require(generator, torch.Generator, "generator", "a torch.Generator or None")
    if share == 1:
        return x
    device = None if generator is None else generator.device
    order = torch.randperm(len(x), generator=generator, device=device)
    count = ceil(round(share * len(x), 9))  # 0.07 x 100 is 7.000000000000001 in binary
    return x[order[:count].sort().values.to(x.device)]


def check_share(share: float) -> None:
    """Raise InputError unless 0 < share <= 1."""
    if not (arguments.is_number(share) and 0 < share <= 1):
        raise InputError(f"share={arguments.told(share)}; a part of the batch, 0 < share <= 1, is needed")
