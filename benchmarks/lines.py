"""Knots per second along a segment, ``ma.partition(spline, ma.Segment(x0, x1))``, against a walk from knot to knot.

The walker is what is usually written: dual numbers give every pre-activation z and its derivative dz along the
segment, the nearest zero -z / dz ahead is the next knot, and it steps just behind it. One forward pass a knot.
"""

import time
from typing import Any

import numpy as np
import torch
from common import Benchmark, main, network
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

import maxaffine as ma

STEP = 1e-11  # behind a knot, so that the walker sees the next piece
RECTIFIERS = (torch.relu, nn.functional.relu)


class NextKnot(TorchFunctionMode):
    """Watches every ReLU of a forward pass on dual numbers: how far is the nearest zero ahead?"""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = torch.inf

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in RECTIFIERS:
            z, dz = forward_ad.unpack_dual(args[0])
            times = -z / dz
            ahead = times[times > 0]
            self.ahead = min(self.ahead, float(ahead.min()) if ahead.numel() else torch.inf)
        return function(*args, **(kwargs or {}))


def walk(model: nn.Module, x0: Tensor, x1: Tensor, limit: int) -> list[float]:
    """The knots on the segment, at most `limit` of them."""
    knots, tau, direction = [], 0.0, (x1 - x0)[None]
    while len(knots) < limit:
        with forward_ad.dual_level(), NextKnot() as watch:
            model(forward_ad.make_dual((x0 + tau * (x1 - x0))[None], direction))
        if tau + watch.ahead >= 1:
            break
        knots.append(tau + watch.ahead)
        tau = knots[-1] + STEP
    return knots


def assert_same_knots(knots: np.ndarray, walked: list[float]) -> None:
    assert np.allclose(knots[: len(walked)], walked, rtol=0, atol=1e-9), "the walker found other knots"


def work(case: dict) -> dict:
    model, x = network(case["net"], batch=2)
    model, (x0, direction) = model.double(), x.double()
    segment = ma.Segment(x0, x0 + case["length"] / (100 if case["quick"] else 1) * direction)
    spline = ma.Spline(model, x0[None])
    start = time.perf_counter()
    line = ma.partition(spline, segment)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    walked = walk(model, segment.x0, segment.x1, limit=3 if case["quick"] else 200)
    naive = len(walked) / (time.perf_counter() - start)
    assert_same_knots(line.knots, walked)
    ours = len(line.knots) / seconds
    return {"knots": len(line.knots), "seconds": seconds, "knots/s": ours, "walker/s": naive, "faster": ours / naive}


CASES = [{"net": "mlp", "length": 1.0}, {"net": "cnn", "length": 0.3}, {"net": "resnet20", "length": 0.01}]

if __name__ == "__main__":
    claim = "knots per second on a segment between random inputs, and how many times faster than walking"
    main(Benchmark("lines", claim, CASES, work, allocators=("default",)))
