"""Exact partitions of planes: CPU seconds for cells with maps, for the whole mesh, and peak memory.

The networks and the number of cells of each are those of the folder in MAXAFFINE_ASSETS (bench/README.md there); the
counts are asserted. "cells" restricts the network and finds all cells as polygons with codes and affine maps; "mesh" is
``ma.partition``: shared vertices, edges with their units and neighbours besides. CPU time of one thread, minimum of the
repeats. "memory" is the peak above what was resident before the call, over the bytes of the returned arrays.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from common import Benchmark, assets, main, peak_growth
from torch import nn

import maxaffine as ma
from maxaffine.geometry.cells import Job, find_cells
from maxaffine.geometry.planes import ZEROS, reduced

SPIRALS = {"a16": (16,) * 2, "a64": (64,) * 3, "a128": (128,) * 4, "a256": (256,) * 4}
SLICES = {"b_mlp": 5.0, "b_mlp_r1": 1.0, "b_cnn_r003": 0.03, "b_cnn": 0.1, "b_cnn_r025": 0.25}
CELLS = {
    **{"a16": 127, "a16_tr": 341, "a64": 6668, "a64_tr": 15276, "a128": 29584, "a128_tr": 101362, "a256": 125057},
    **{"a256_tr": 389377, "b_mlp": 77016, "b_mlp_r1": 3599, "b_cnn_r003": 1171, "b_cnn": 10215, "b_cnn_r025": 55757},
}


def mlp(*widths: int) -> nn.Sequential:
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    convolutions = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
    return nn.Sequential(*convolutions, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(6272, 10))


def workload(name: str) -> tuple[ma.Spline, ma.Plane]:
    """One network of the assets and its square."""
    folder = assets() / "bench"
    if name[0] == "a":
        model, file, shape = mlp(2, *SPIRALS[name.removesuffix("_tr")], 1), name, (2,)
        x0, radius, directions = torch.zeros(2), 1.0, torch.eye(2)
    else:
        conv = name.startswith("b_cnn")
        model, file, shape = (cnn(), "cnn", (1, 28, 28)) if conv else (mlp(784, 512, 512, 512, 10), "mlp784", (784,))
        generator, radius = torch.Generator().manual_seed(1), SLICES[name]
        x0 = torch.rand(784, generator=generator, dtype=torch.float64)
        directions = torch.linalg.qr(torch.randn(784, 2, generator=generator, dtype=torch.float64))[0]
    model.load_state_dict(torch.load(folder / f"{file}.pt", weights_only=True))
    spline = ma.Spline(model.double().eval(), x0.double().reshape(1, *shape))
    return spline, ma.Plane.square(x0.reshape(shape), *((radius * directions[:, i]).reshape(shape) for i in (0, 1)))


def cpu_seconds(method: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        method()
        times.append(time.process_time() - start)
    return min(times)


def array_bytes(plane: Any) -> int:
    lists = plane.edge_units
    arrays = [plane.vertices, plane.offsets, plane.indices, plane.edges, plane.neighbours, plane.A, plane.b]
    return sum(a.nbytes for a in [*arrays, plane.codes.bits, lists.offsets, lists.operators, lists.units])


def work(case: dict) -> dict:
    spline, plane = workload(case["net"])
    count, repeats = CELLS[case["net"]], 1 if case["quick"] else 5
    find = lambda: find_cells(Job(reduced(spline, plane), plane.corners, ZEROS[0]), 1, 1 << 40, None)  # noqa: E731
    start = time.perf_counter()
    found = ma.partition(spline, plane)
    first = time.perf_counter() - start
    assert len(found) == count, f"{case['net']}: {len(found)} cells, {count} expected"
    size = array_bytes(found)
    del found
    growth = peak_growth(lambda: ma.partition(spline, plane))
    cells, mesh = cpu_seconds(find, repeats), cpu_seconds(lambda: ma.partition(spline, plane), repeats)
    return {
        "cells": count,
        "cells s": cells,
        "mesh s": mesh,
        "cells/s": count / cells,
        "first call s": first,
        "MB": growth / 1e6,
        "MB / arrays": growth / size,
    }


if __name__ == "__main__":
    claim = "CPU seconds for the exact partition of a plane (min of 5), one thread"
    cases = [{"net": net} for net in CELLS]
    main(Benchmark("planes", claim, cases, work, allocators=("default",), threads=(1,)))
