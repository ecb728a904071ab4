"""What ``import maxaffine`` costs a program that imports torch anyway."""

import subprocess
import sys

from common import Benchmark, main

CLOCK = "import time, {first}; start = time.perf_counter(); import {then}; print(time.perf_counter() - start)"


def seconds(first: str, then: str) -> float:
    command = [sys.executable, "-c", CLOCK.format(first=first, then=then)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def work(case: dict) -> dict:
    pairs = {"torch": ("sys", "torch"), "maxaffine over torch": ("torch", "maxaffine")}
    runs = [{name: seconds(*pair) for name, pair in pairs.items()} for _ in range(case["repeats"])]
    return {name: min(run[name] for run in runs) for name in pairs}


if __name__ == "__main__":
    claim = "seconds of import torch, and of import maxaffine after it (min of 10)"
    main(Benchmark("import_time", claim, [{}], work, allocators=("default",), threads=(1,)))
