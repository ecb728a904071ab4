"""The product ``A v`` by the frozen map, ``f.mv(v)``, against forward-mode differentiation of the network."""

import torch
from common import Benchmark, assert_same, fastest, main, network
from torch import Tensor, nn

import maxaffine as ma


def func_jvp(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    return torch.func.jvp(model, (x,), (v,))[1]


def func_jvp_no_grad(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.func.jvp(model, (x,), (v,))[1]


RIVALS = {"func.jvp": func_jvp, "func.jvp, no_grad": func_jvp_no_grad}


def work(case: dict) -> dict:
    model, x = network(case["net"], quick=case["quick"])
    v = torch.randn_like(x)
    spline = ma.Spline(model, x[:1])
    f = spline.at(x)
    methods = {"ours": lambda: f.mv(v), "ours with at": lambda: spline.at(x).mv(v)}
    methods |= {name: lambda rival=rival: rival(model, x, v) for name, rival in RIVALS.items()}
    assert_same({name: method() for name, method in methods.items()})
    best = fastest(methods, case["repeats"])
    return best | {"faster": min(best[name] for name in RIVALS) / best["ours"]}


if __name__ == "__main__":
    claim = "seconds for A v once the code is known (min of 10), and how many times faster than torch.func.jvp"
    main(Benchmark("jvp", claim, [{"net": net} for net in ("mlp", "cnn", "resnet20")], work))
