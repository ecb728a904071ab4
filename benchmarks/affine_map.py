"""The affine maps of a batch, ``spline.at(x).A``, against every way torch has to the same Jacobians."""

import torch
from common import Benchmark, assert_same, fastest, main, network
from torch import Tensor, nn

import maxaffine as ma


def loop(model: nn.Module, x: Tensor) -> Tensor:
    """One backward pass a class."""
    x = x.detach().requires_grad_()
    y = model(x)
    rows = [torch.autograd.grad(y[:, c].sum(), x, retain_graph=True)[0] for c in range(y.shape[1])]
    return torch.stack(rows, 1)


def vmap_jacrev(model: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(lambda row: model(row[None])[0]))(x)


def jacobian_vectorized(model: nn.Module, x: Tensor) -> Tensor:
    """The rows are independent, so the Jacobian of the sum over the batch holds them all."""
    rows = torch.autograd.functional.jacobian(lambda z: model(z).sum(0), x, vectorize=True)
    return rows.transpose(0, 1)


def batched_grad(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    y = model(x)
    seeds = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[:, None].expand(-1, *y.shape)
    (rows,) = torch.autograd.grad(y, x, seeds, is_grads_batched=True)
    return rows.transpose(0, 1)


RIVALS = {
    "loop": loop,
    "vmap(jacrev)": vmap_jacrev,
    "jacobian": jacobian_vectorized,
    "batched grad": batched_grad,
}


def work(case: dict) -> dict:
    model, x = network(case["net"], quick=case["quick"])
    spline = ma.Spline(model, x[:1])
    methods = {"ours": lambda: spline.at(x).A}
    methods |= {name: lambda rival=rival: rival(model, x) for name, rival in RIVALS.items()}
    assert_same({name: method() for name, method in methods.items()})
    best = fastest(methods, case["repeats"])
    return best | {"faster": min(best[name] for name in RIVALS) / best["ours"]}


if __name__ == "__main__":
    claim = "seconds for the affine maps of a batch (min of 10), and how many times faster than the best rival"
    main(Benchmark("affine_map", claim, [{"net": net} for net in ("mlp", "cnn", "resnet20")], work))
