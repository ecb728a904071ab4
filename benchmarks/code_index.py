"""Nearest codes, ``ma.CodeIndex.search``: CPU milliseconds a query, against faiss itself on the same bits.

The codes are drawn: 1000 centres, of which every row keeps 85 % of the units; each query is a row of the data with 2 %
of its units flipped. The answers of the exact kind are asserted to be those of faiss, by distance. Memory is that of an
index in memory, over the bytes of the codes: its arrays, and the peak while it is built.
"""

import ctypes
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from common import Benchmark, main, peak_growth, status

import maxaffine as ma
from maxaffine.code import Code, Signature, Units

UNITS, K, QUERIES, STEP = 1024, 10, 256, 50_000


def codes(values: np.ndarray) -> Code:
    return Code(Signature((Units("units", "drawn", 2, (UNITS,)),), (1,)), (torch.from_numpy(values),), len(values))


def drawn(rows: int) -> list[np.ndarray]:
    """The packed bits, block by block."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2, (1000, UNITS), dtype=np.uint8)
    return [
        np.packbits(centres[rng.integers(0, 1000, count)] ^ (rng.random((count, UNITS), np.float32) < 0.15), axis=1)
        for count in [STEP] * (rows // STEP) + ([rows % STEP] if rows % STEP else [])
    ]


def cpu_ms(methods: dict[str, Callable[[], Any]], repeats: int, count: int) -> dict[str, float]:
    """Minimum CPU milliseconds a query of each method over interleaved runs, after one warm-up of each."""
    for method in methods.values():
        method()
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(repeats):
        for name, method in methods.items():
            start = time.process_time()
            method()
            best[name] = min(best[name], 1000 * (time.process_time() - start) / count)
    return best


def built(kind: str, blocks: list[np.ndarray], place: str) -> tuple[ma.CodeIndex, float]:
    """An index of the blocks, in a folder, and the CPU seconds that building and the first search took."""
    start = time.process_time()
    index = ma.CodeIndex.create(place, codes(np.empty((0, UNITS), np.uint8)), kind=kind)
    for block in blocks:
        index.add(codes(np.unpackbits(block, axis=1)))
    index.search(codes(np.unpackbits(blocks[0][:1], axis=1)), 1)
    return index, time.process_time() - start


def work(case: dict) -> dict:
    blocks = drawn(2000 if case["quick"] else case["rows"])
    rows = np.concatenate(blocks)
    rng = np.random.default_rng(1)
    picked = np.unpackbits(rows[rng.integers(0, len(rows), QUERIES)], axis=1)
    query = codes(picked ^ (rng.random(picked.shape) < 0.02))
    packed = np.packbits(query["units"].numpy(), axis=1)
    with tempfile.TemporaryDirectory() as folder:
        index, build = built(case["kind"], blocks, folder + "/index")
        del index, blocks
        index = ma.CodeIndex.open(folder + "/index")
        index.search(query[:1], K)
        methods = {"ours": lambda: index.search(query, K)}
        if case["kind"] == "exact":
            flat = faiss.IndexBinaryFlat(UNITS)
            flat.add(rows)
            methods["faiss flat"] = lambda: flat.search(packed, K)
            assert np.array_equal(flat.search(packed, K)[0] / UNITS, index.search(query, K).distances.numpy())
        times = cpu_ms(methods, case["repeats"], QUERIES)
        one = cpu_ms({"one at a time": lambda: [index.search(query[i], K) for i in range(16)]}, 3, 16)
        found = {"recall": index.recall(query, K), "build, s": build}
    found |= in_memory(rows) if case["kind"] == "exact" else {}
    return {**times, **one, **found}


def in_memory(rows: np.ndarray) -> dict[str, float]:
    """Bytes that an index in memory takes, over those of the codes: what it adds at the peak of building, and after."""
    values = codes(np.unpackbits(rows, axis=1))
    ma.CodeIndex.build(values[:100])
    held = []
    trimmed()
    peak = peak_growth(lambda: held.append(ma.CodeIndex.build(values)))
    full = trimmed()
    held.clear()
    return {"peak memory": peak / rows.nbytes, "memory": (full - trimmed()) / rows.nbytes}


def trimmed() -> int:
    """Resident bytes, without what the allocator keeps of freed memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS")


CASES = [
    {"kind": "exact", "rows": 1_000_000},
    {"kind": "multihash", "rows": 1_000_000},
    {"kind": "multihash", "rows": 100_000},
    {"kind": "hnsw", "rows": 100_000},
]

if __name__ == "__main__":
    claim = "CPU milliseconds a query for the 10 nearest of codes of 1024 bits, 256 queries at a time (min of 10)"
    main(Benchmark("code_index", claim, CASES, work, allocators=("default",), threads=(1,)))
