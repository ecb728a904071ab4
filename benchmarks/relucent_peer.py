"""relucent 1.0.0 on two networks of planes.py: regions found in the square [-1, 1]^2, and the CPU seconds it took.

It needs an environment of its own (its licence is the AGPL; it brings Gurobi, whose free licence is enough here):

    python -m venv peer
    peer/bin/pip install relucent==1.0.0 torch==2.13.0
    MAXAFFINE_ASSETS=... peer/bin/python benchmarks/relucent_peer.py

A network that takes longer than --limit seconds is given up.
"""

import argparse
import os
import signal
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import nn

WIDTHS = {"a16": (2, 16, 16, 1), "a64": (2, 64, 64, 64, 1)}


def network(name: str) -> nn.Sequential:
    widths = WIDTHS[name]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    file = Path(os.environ["MAXAFFINE_ASSETS"]) / "bench" / f"{name}.pt"
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.double()


def work(name: str) -> None:
    from relucent import Complex

    os.setpgrp()  # its workers can be ended together with it
    found = Complex(network(name))
    before, start = os.times(), time.perf_counter()
    found.bfs(cube_mode="intersect", cube_radius=1.0, nworkers=1, verbose=0)
    wall, after = time.perf_counter() - start, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    print(f"{name}: {len(found)} regions, {cpu:.2f} CPU s, {wall:.2f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one network")
    limit = parser.parse_args().limit
    for name in WIDTHS:
        process = get_context("spawn").Process(target=work, args=(name,))
        process.start()
        process.join(limit)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            print(f"{name}: given up after {limit:g} s")
