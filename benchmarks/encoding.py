"""A job, ``maxaffine.encoding.encode``, against plain forward passes over the same batches of 256.

The job reads rows of bytes from a .npy file, scales them, runs the network for its code, packs the code and writes
Parquet files that it sees to the disk. The forward passes have their inputs in memory, and nothing is done with the
outputs. Both take the same rows; a ratio of speeds is the median over pairs of runs, one right after the other.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import Benchmark, main, network

import maxaffine as ma
from maxaffine.encoding import encode

BATCHES = {"mlp": 64, "cnn": 16, "resnet20": 4}


def scaled(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.float32)) / 255


def seconds(method) -> float:
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def work(case: dict) -> dict:
    model, example = network(case["net"], 2)
    count = 512 if case["quick"] else 256 * BATCHES[case["net"]]
    rows = np.random.default_rng(0).integers(0, 256, (count, *example.shape[1:]), dtype=np.uint8)
    inputs, spline, forward = scaled(rows), ma.Spline(model, example), torch.inference_mode()(model)
    with tempfile.TemporaryDirectory() as place:
        path, folders = Path(place) / "rows.npy", iter(range(1000))
        np.save(path, rows)

        def job() -> None:
            encode(spline, path, Path(place) / str(next(folders)), prepare=scaled, batch=256)

        def plain() -> None:
            for batch in inputs.split(256):
                forward(batch)

        plain(), job()
        pairs = [(seconds(plain), seconds(job)) for _ in range(case["repeats"])]
        size = sum(path.stat().st_size for path in (Path(place) / "0").iterdir())
    return {
        "rows": count,
        "forward rows/s": count / statistics.median(p for p, _ in pairs),
        "job rows/s": count / statistics.median(j for _, j in pairs),
        "speed of job / forward": statistics.median(p / j for p, j in pairs),
        "bytes a row": size / count,
    }


CASES = [{"net": net} for net in ("mlp", "cnn", "resnet20")]

if __name__ == "__main__":
    claim = "speed of an encoding job (read, scale, code, pack, Parquet) as a share of that of plain forward passes"
    main(Benchmark("encoding", claim, CASES, work, allocators=("default",)))
