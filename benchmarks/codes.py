"""The code of a batch, ``spline.code(x)``, against a plain forward pass of the model."""

import torch
from common import Benchmark, fastest, main, network

import maxaffine as ma


def work(case: dict) -> dict:
    model, x = network(case["net"], case["batch"], case["quick"])
    spline = ma.Spline(model, x[:1])
    forward = torch.inference_mode()(model)
    methods = {"forward": lambda: forward(x), "ours": lambda: spline.code(x), "spline(x)": lambda: spline(x)}
    best = fastest(methods, 5 * case["repeats"])
    return best | {"times forward": best["ours"] / best["forward"]}


CASES = [{"net": net, "batch": batch} for net in ("mlp", "cnn", "resnet20") for batch in (1, 64, 256)]

if __name__ == "__main__":
    claim = "seconds for the code of a batch (min of 50), as a multiple of a forward pass in inference_mode"
    main(Benchmark("codes", claim, CASES, work))
