"""Peak memory of the affine maps of a batch, beside the result, a forward pass and torch's own ways."""

import torch
from affine_map import RIVALS
from common import Benchmark, main, network, peak_growth

import maxaffine as ma


def work(case: dict) -> dict:
    model, x = network(case["net"], quick=case["quick"])
    spline = ma.Spline(model, x[:1])
    methods = {
        "forward": torch.inference_mode()(model),
        "forward, kept": lambda rows: model(rows.detach().requires_grad_()),
        "ours": lambda rows: spline.at(rows).A,
    } | {name: lambda rows, rival=rival: rival(model, rows) for name, rival in RIVALS.items()}
    megabytes = {"result": len(x) * x[0].numel() * 10 * 4 / 1e6}
    for name, method in methods.items():
        method(x[:2])  # loads kernels and plans
        megabytes[name] = peak_growth(lambda method=method: method(x)) / 1e6
    ratio = megabytes["ours"] / (megabytes["result"] + megabytes["forward"])
    return megabytes | {"ours / (result + forward)": ratio}


if __name__ == "__main__":
    claim = "MB by which the affine maps of a batch raise the resident memory at its peak"
    cases = [{"net": net} for net in ("mlp", "cnn", "resnet20")]
    main(Benchmark("memory", claim, cases, work, allocators=("default",), threads=(1,)))
