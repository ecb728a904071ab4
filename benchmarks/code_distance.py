"""All-pairs distances of codes (Eq. 15), ``ma.pairwise_distance``, against a product of float32 indicator matrices."""

import torch
from common import Benchmark, fastest, main

import maxaffine as ma
from maxaffine.code import Code, Signature, Units


def drawn(rows: int, units: int, pieces: int) -> Code:
    generator = torch.Generator().manual_seed(rows)
    values = torch.randint(0, pieces, (rows, units), generator=generator, dtype=torch.uint8)
    return Code(Signature((Units("units", "drawn", pieces, (units,)),), (1,)), (values,), rows)


def work(case: dict) -> dict:
    rows = 500 if case["quick"] else 10_000
    code = drawn(rows, case["units"], case["pieces"])
    signs = 2.0 * code.values[0].float() - 1
    methods = {"ours": lambda: ma.pairwise_distance(code, code)}
    if case["pieces"] == 2:
        methods["matrix product"] = lambda: ((signs.shape[1] - signs @ signs.T) / (2 * signs.shape[1])).double()
    return fastest(methods, case["repeats"])


CASES = [{"units": 1024, "pieces": 2}, {"units": 1024, "pieces": 4}]

if __name__ == "__main__":
    claim = "seconds for the distances of 10,000 x 10,000 codes of 1024 units (min of 10)"
    main(Benchmark("code_distance", claim, CASES, work))
