"""Cells of a plane on a GPU: the level-synchronous search on tensors beside the compiled one on one core.

Networks, squares and counts are those of planes.py (MAXAFFINE_ASSETS). Both searches begin with the restricted network
in the memory of the host and end with the arrays of all cells there: polygons, codes, maps; the same cells, which is
asserted. Wall-clock seconds, minimum of the repeats, after one call of each that loads kernels. "GB" is the most that
was allocated on the GPU. Without a CUDA device the same code is measured on the CPU, which the column "device" says.
"""

import numpy as np
import torch
from common import Benchmark, fastest, main
from planes import CELLS, workload

import maxaffine as ma
from maxaffine.geometry.cells import Job, Soup, find_cells
from maxaffine.geometry.planes import ZEROS, reduced
from maxaffine.geometry.synchronous import find_cells_on, working_memory

QUICK = 0.1  # of the side of the square
ALL = 1 << 40
CUDA = torch.cuda.is_available()


def job_of(net: str, quick: bool) -> Job:
    spline, plane = workload(net)
    if quick:
        plane = ma.Plane.square(plane.origin, QUICK * plane.u, QUICK * plane.v)
    return Job(reduced(spline, plane), plane.corners, ZEROS[0])


def assert_same_cells(wanted: Soup, found: Soup) -> None:
    here, there = np.argsort(found.h), np.argsort(wanted.h)
    assert np.array_equal(found.h[here], wanted.h[there]), "not the same cells"
    assert np.allclose(found.maps[here], wanted.maps[there], rtol=0, atol=1e-9 * np.abs(wanted.maps).max())


def work(case: dict) -> dict:
    job, device = job_of(case["net"], case["quick"]), torch.device("cuda" if CUDA else "cpu")
    memory = working_memory(device)
    compiled, on_device = find_cells(job, 1, ALL, None)[0], find_cells_on(job, device, ALL, memory)[0]
    assert_same_cells(compiled, on_device)
    count = len(compiled.h)
    assert case["quick"] or count == CELLS[case["net"]], f"{count} cells, {CELLS[case['net']]} expected"
    methods = {
        "compiled s": lambda: find_cells(job, 1, ALL, None),
        "device s": lambda: find_cells_on(job, device, ALL, memory),
    }
    best = fastest(methods, case["repeats"])
    return {
        "device": torch.cuda.get_device_name(device) if CUDA else "cpu",
        "units": job.net.units,
        "cells": count,
        **best,
        "times faster": best["compiled s"] / best["device s"],
        "GB": torch.cuda.max_memory_allocated(device) / 1e9 if CUDA else None,
    }


if __name__ == "__main__":
    if not CUDA:
        print("torch sees no CUDA device: what runs on a GPU is measured on the CPU")
    claim = "seconds for the cells of a plane on a GPU (min of 10), beside the compiled search on one core"
    cases = [{"net": net} for net in CELLS]
    main(Benchmark("partition_device", claim, cases, work, allocators=("default",), threads=(1,)))
