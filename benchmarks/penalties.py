"""What a penalty costs: a training step of smallCNN at batch 50 with it, over the step without it.

Steps with and without are interleaved and the ratio is taken between neighbours, so that a slow moment of the machine
weighs on both; the median of the ratios is reported. "double backward" is what is written without this library: one
backward pass a class through the model in eval mode, with a graph, and the penalty of what comes out.
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import Benchmark, assert_same, main
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.architectures import small_cnn
from maxaffine.penalties import Penalty, orthogonality

GAMMA = 0.1


def double_backward(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    z = x.clone().requires_grad_()
    scores = model(z)
    rows = [torch.autograd.grad(scores[:, c].sum(), z, create_graph=True)[0].flatten(1) for c in range(scores.shape[1])]
    model.train()
    return GAMMA * orthogonality(torch.stack(rows, 1), "mean")


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None and g.any()])


def paired(methods: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of the first method and of each other one, run right after it."""
    plain, *rest = methods
    pairs: dict[str, list[float]] = {name: [] for name in rest}
    for name in methods:
        methods[name]()
    for _ in range(repeats):
        for name in rest:
            times = []
            for method in (methods[plain], methods[name]):
                start = time.perf_counter()
                method()
                times.append(time.perf_counter() - start)
            pairs[name].append(times[1] / times[0])
    return pairs


def work(case: dict) -> dict:
    torch.manual_seed(0)
    model = small_cnn(version=case["net"]).train()
    batch = 10 if case["quick"] else 50
    x, y = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)
    penalties: dict[str, Callable[[Tensor], Tensor]] = {
        "last": Penalty(model, GAMMA, example=x),
        "all": Penalty(model, GAMMA, on="all"),
        "templates": Penalty(model, GAMMA, on="templates", example=x),
        "a fifth": Penalty(model, GAMMA, on="templates", example=x, share=0.2, generator=torch.Generator()),
        "double backward": lambda x: double_backward(model, x),
    }
    both = {name: gradients(model, penalties[name](x)) for name in ("templates", "double backward")}
    assert_same(both)

    def step(penalty: Callable[[Tensor], Tensor] | None = None) -> None:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y)
        (loss if penalty is None else loss + penalty(x)).backward()
        optimiser.step()

    methods = {"plain": step} | {name: lambda penalty=p: step(penalty) for name, p in penalties.items()}
    ratios = paired(methods, 1 if case["quick"] else 4 * case["repeats"])
    start = time.perf_counter()
    step()
    plain = time.perf_counter() - start
    return {"plain ms": 1e3 * plain} | {name: statistics.median(values) for name, values in ratios.items()}


if __name__ == "__main__":
    claim = "a training step of smallCNN at batch 50 with each penalty, over the step without (median of 40 pairs)"
    main(Benchmark("penalties", claim, [{"net": "february"}, {"net": "january"}], work))
