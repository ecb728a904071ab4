"""The exact partition of a square near an image, through a trained ResNet-20: cells, wall-clock seconds, peak memory.

The network and the images are those of the folder in MAXAFFINE_ASSETS (resnet20-12fca82f.th, CIFAR-10's test images).
The square lies in the plane of three images, around the first; "share" is its width as a share of the square around
all three. "units" may switch in it by the bounds, of 188,416; "restrict s" is how long it takes to find that out.
"""

import time

import numpy as np
import torch
from common import Benchmark, assets, main, peak_growth, resnet20
from PIL import Image

import maxaffine as ma
from maxaffine.geometry.planes import reduced


def workload(share: float) -> tuple[ma.Spline, ma.Plane]:
    """The trained network and the square."""
    folder = assets()
    weights = torch.load(folder / "nets/cifar10/resnet20-12fca82f.th", map_location="cpu", weights_only=True)[
        "state_dict"
    ]
    model = resnet20().eval().requires_grad_(False)
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, weights.values(), strict=True)), strict=False)
    page = np.array(Image.open(folder / "data/cifar10/cifar10_batch_50.png"))
    photos = torch.tensor(page.reshape(1000, 32, 32, 3)[:3])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((photos / 255 - mean) / std).permute(0, 3, 1, 2).double()
    whole = ma.Plane.through(x[0], x[1], x[2])
    return ma.Spline(model.double(), x), ma.Plane.square(x[0], share * whole.u, share * whole.v)


def work(case: dict) -> dict:
    spline, plane = workload(case["share"] / (10 if case["quick"] else 1))
    ma.partition(spline, ma.Plane.square(plane.origin, plane.u / 100, plane.v / 100))  # the kernels are loaded
    start = time.perf_counter()
    net = reduced(spline, plane)
    restricted = time.perf_counter() - start
    start = time.perf_counter()
    found = ma.partition(spline, plane, workers=case["threads"])
    seconds = time.perf_counter() - start
    growth = peak_growth(lambda: ma.partition(spline, plane, workers=case["threads"]))
    return {"cells": len(found), "units": net.units, "restrict s": restricted, "seconds": seconds, "MB": growth / 1e6}


if __name__ == "__main__":
    claim = "seconds for the exact partition of a square through ResNet-20"
    cases = [{"share": share} for share in (0.0008, 0.0012, 0.004)]
    main(Benchmark("resnet_plane", claim, cases, work, allocators=("default",)))
