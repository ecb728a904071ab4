"""Affine maps, products with them and codes on a GPU, against torch's own ways there and against a forward pass.

The rivals are those of affine_map.py and jvp.py. Float32 (convolutions in float32, too, not in TF32), wall-clock
seconds with the device synchronised, minimum of the interleaved repeats. Without a CUDA device the same is measured on
the CPU, which the column "device" says.
"""

from collections.abc import Callable
from typing import Any

import affine_map
import jvp
import torch
from common import Benchmark, assert_same, fastest, main, network

import maxaffine as ma

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def awaited(method: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """The call that returns when the device has finished."""

    def call() -> Any:
        result = method(*args)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return result

    return call


def work(case: dict) -> dict:
    torch.backends.cudnn.allow_tf32 = False
    model, x = network(case["net"], case["batch"], case["quick"])
    model, x = model.to(DEVICE), x.to(DEVICE)
    spline, v = ma.Spline(model, x[:1]), torch.randn_like(x)
    f, forward = spline.at(x), torch.inference_mode()(model)
    maps = {"A": awaited(lambda: spline.at(x).A)}
    maps |= {name: awaited(rival, model, x) for name, rival in affine_map.RIVALS.items() if name != "vmap(jacrev)"}
    products = {"mv": awaited(f.mv, v), **{name: awaited(rival, model, x, v) for name, rival in jvp.RIVALS.items()}}
    codes = {"code": awaited(spline.code, x), "forward": awaited(forward, x)}
    for methods in (maps, products):
        assert_same({name: method() for name, method in methods.items()})
    best = fastest(maps, case["repeats"]) | fastest(products, case["repeats"]) | fastest(codes, case["repeats"])
    return {
        "device": torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else "cpu",
        **best,
        "A faster": min(best[name] for name in maps if name != "A") / best["A"],
        "mv faster": min(best[name] for name in products if name != "mv") / best["mv"],
        "code / forward": best["code"] / best["forward"],
    }


CASES = [
    {"net": net, "batch": n} for net, few in (("mlp", 256), ("cnn", 64), ("resnet20", 16)) for n in (few, 16 * few)
]

if __name__ == "__main__":
    claim = "seconds on a device for maps, products and codes of a batch, and how many times faster than the best rival"
    main(Benchmark("on_device", claim, CASES, work, allocators=("default",), threads=(1,)))
