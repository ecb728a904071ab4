"""The exact distance to the nearest wall, ``ma.margin``: every unit of the network costs a row of walls."""

import time

from common import Benchmark, main, network, peak_growth

import maxaffine as ma


def work(case: dict) -> dict:
    model, x = network(case["net"], batch=1)
    spline = ma.Spline(model, x)
    units = sum(operator.units for operator in spline.operators)
    start = time.perf_counter()
    peak = peak_growth(lambda: ma.margin(spline, x))
    return {"units": units, "seconds": time.perf_counter() - start, "peak_MB": peak / 1e6}


CASES = [{"net": "mlp"}, {"net": "cnn"}, {"net": "resnet20"}]

if __name__ == "__main__":
    claim = "seconds and peak memory of the margin of one image"
    main(Benchmark("margin", claim, CASES, work, allocators=("default",)))
