"""A program: encodes in children that it kills at random moments, goes on with each, and says what came of it.

One JSON line a round: shards that were whole when the child was killed, and the digest of the folder in the end. The
first line is that of a child that was let alone. Children are forked, so that the libraries are imported once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

import maxaffine as ma
from maxaffine.encoding import encode


def given() -> tuple[ma.Spline, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    return ma.Spline(net, torch.zeros(1, 16)), torch.randn(2000, 16)


def digest(folder: Path) -> str:
    """Of all names and bytes."""
    files = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    return hashlib.sha256(repr(files).encode()).hexdigest()


def main(place: Path, rounds: int, seed: int) -> None:
    spline, x = given()

    def child(folder: Path) -> int:
        process = os.fork()
        if process == 0:
            encode(spline, x, folder, batch=20, shard=80)
            os._exit(0)
        return process

    encode(spline, x, place / "first", batch=20, shard=80)  # imports what is imported late
    start = time.monotonic()
    assert os.waitpid(child(place / "whole"), 0)[1] == 0
    seconds = time.monotonic() - start
    print(json.dumps({"digest": digest(place / "whole"), "shards": 25}), flush=True)
    moments = random.Random(seed)
    for number in range(rounds):
        folder = place / str(number)
        process = child(folder)
        wanted = moments.randrange(16)  # by what is done, not by the clock: the machine may have other work
        while len(list(folder.glob("*.parquet"))) < wanted:
            time.sleep(1e-3)
        time.sleep(seconds / 25 * moments.random())
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        shards = len(list(folder.glob("*.parquet")))
        assert os.waitpid(child(folder), 0)[1] == 0
        print(json.dumps({"digest": digest(folder), "shards": shards}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
