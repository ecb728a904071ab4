"""Statistics of the templates over 10,000 inputs, ``template_statistics``, against C backward passes of autograd.

The inputs are random, of the shape of MNIST's test images: neither speed nor memory sees what is in them.
"""

import torch
from common import Benchmark, assert_same, fastest, main, network, peak_growth
from torch import Tensor, nn

import maxaffine as ma
from maxaffine.templates import TemplateStatistics, template_statistics

INPUTS = 10_000
PART = 500  # inputs that autograd takes at a time, so that its memory is bounded as well


def means(found: TemplateStatistics) -> Tensor:
    return torch.tensor([found.correct.mean, found.incorrect.mean, found.angles.between.mean, found.angles.norms.mean])


def by_autograd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The same means; one backward pass a class."""
    total, wrong = torch.zeros(4), 0
    for part, labels in zip(x.split(PART), y.split(PART), strict=True):
        leaf = part.clone().requires_grad_()
        outputs = model(leaf)
        grads = [torch.autograd.grad(outputs[:, c].sum(), leaf, retain_graph=True)[0] for c in range(outputs.shape[1])]
        A = torch.stack(grads, 1)
        inner, own = torch.einsum("ncd,nd->nc", A, part), A[torch.arange(len(A)), labels]
        cosines = torch.cosine_similarity(A, own[:, None], dim=2)
        others = torch.arange(A.shape[1]) != labels[:, None]
        parts = (inner[~others], inner[others], cosines[others], A.norm(dim=2))
        total += torch.tensor([float(values.double().sum()) for values in parts])
        wrong += int(others.sum())
    return total / torch.tensor([len(x), wrong, wrong, wrong + len(x)])


def work(case: dict) -> dict:
    model, x = network("mlp", batch=INPUTS // 50 if case["quick"] else INPUTS)
    y = torch.randint(10, (len(x),))
    spline = ma.Spline(model, x[:2])
    peak = peak_growth(lambda: template_statistics(spline, x, y))  # first: what others leave allocated would hide it
    assert_same({"autograd": by_autograd(model, x, y), "templates": means(template_statistics(spline, x, y))})
    methods = {
        "seconds": lambda: template_statistics(spline, x, y),
        "no_angles": lambda: template_statistics(spline, x, y, angles=False),
        "autograd": lambda: by_autograd(model, x, y),
    }
    return {"inputs": len(x), **fastest(methods, min(case["repeats"], 3)), "peak_MB": peak / 1e6}


if __name__ == "__main__":
    claim = "10,000 inputs of a 784-512-512-512-10 MLP: statistics of all templates in <= 4 s on two cores, <= 1 GB"
    main(Benchmark("template_statistics", claim, [{"net": "mlp"}], work))
