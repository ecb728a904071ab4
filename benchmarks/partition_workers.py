"""Two local workers beside one: the partition of a plane in memory, and streamed to Parquet files by each executor.

The network is the largest of planes.py (MAXAFFINE_ASSETS), its count is asserted. Wall-clock seconds, minimum of the
repeats, of finding the cells with their maps ("cells"), of ``ma.partition(workers=)``, which goes on to match them
("memory"), and of ``stream_partition`` into an empty folder, files written and checked. "start s" is the time of the
same call with two workers for a square with few cells: processes import torch and load the kernels in every call; Ray
is started before, as on a cluster, and its workers have done a first run.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import Benchmark, main
from planes import CELLS, workload

import maxaffine as ma
from maxaffine.distributed import stream_partition
from maxaffine.geometry.cells import Job, find_cells
from maxaffine.geometry.planes import ZEROS, reduced

NET = "a256_tr"
FEW = 0.02  # of the side of the square


def smaller(plane: ma.Plane) -> ma.Plane:
    return ma.Plane.square(plane.origin, FEW * plane.u, FEW * plane.v)


def once(spline: ma.Spline, plane: ma.Plane, executor: str, workers: int) -> int:
    """The number of cells."""
    if executor == "cells":
        return len(find_cells(Job(reduced(spline, plane), plane.corners, ZEROS[0]), workers, 1 << 40, None)[0].h)
    if executor == "memory":
        return len(ma.partition(spline, plane, workers=workers))
    with tempfile.TemporaryDirectory() as folder:
        return len(stream_partition(spline, plane, folder, executor=executor, workers=workers))


def seconds(method: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        method()
        times.append(time.perf_counter() - start)
    return min(times)


def work(case: dict) -> dict:
    (spline, plane), executor = workload(NET), case["executor"]
    few, repeats = smaller(plane), min(5, case["repeats"])
    plane = few if case["quick"] else plane
    found, best = {}, {}
    for workers in (1, 2):
        if executor == "ray":
            import ray

            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        found[workers] = once(spline, plane, executor, workers)
        best[workers] = seconds(lambda workers=workers: once(spline, plane, executor, workers), repeats)
        start = seconds(lambda workers=workers: once(spline, few, executor, workers), repeats)
        if executor == "ray":
            ray.shutdown()
    assert found[1] == found[2] and (case["quick"] or found[1] == CELLS[NET]), f"{found} cells"
    ratio = best[1] / best[2]
    return {"cells": found[1], "1 worker s": best[1], "2 workers s": best[2], "times faster": ratio, "start s": start}


if __name__ == "__main__":
    claim = "wall-clock seconds for the exact partition of a plane (min of 5), one and two local workers"
    cases = [{"executor": name} for name in ("cells", "memory", "threads", "processes", "ray")]
    main(Benchmark("partition_workers", claim, cases, work, allocators=("default",), threads=(1,)))
