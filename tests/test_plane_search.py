"""How the cells of a plane are searched for: on several threads, with progress, up to a limit, until interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from threading import active_count
from typing import Any

import numpy as np
import plane_laws as laws
import pytest
import torch
from torch import nn

import maxaffine as ma
from maxaffine.errors import MemoryBudgetError
from maxaffine.geometry import cells as search
from maxaffine.geometry.planes import reduced

SQUARE = ma.Plane.square(*torch.tensor([[0.0, 0, 0], [2, 0, 1], [0, 2, -1]], dtype=torch.float64))


def spline(width: int = 40) -> ma.Spline:
    torch.manual_seed(0)
    layers = [nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)]
    return ma.Spline(nn.Sequential(*layers).double(), torch.zeros(1, 3, dtype=torch.float64))


def listed(plane: Any) -> list[tuple[float, ...]]:
    """Cells as numbers, in an order of their own."""
    rows = np.column_stack([plane.areas, plane.centres, plane.A.reshape(len(plane), -1), plane.b])
    return sorted(tuple(row) for row in rows.round(9).tolist())


class Steps:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.done: list[int] = []

    def __call__(self, steps: Iterable[int], text: str) -> Iterator[int]:
        self.texts.append(text)
        for step in steps:
            yield step
            self.done.append(step)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("shown", [False, True])
def test_any_number_of_threads_finds_the_same_cells(workers: int, shown: bool) -> None:
    net, steps = spline(), Steps()
    plane = ma.partition(net, SQUARE, workers=workers, track=steps if shown else None)
    laws.check_all(net, plane, points=2000, general=True)
    assert listed(plane) == listed(ma.partition(net, SQUARE))
    assert steps.texts == (["cells of the plane"] if shown else [])
    assert not shown or (len(steps.done) >= 16 * workers and steps.done == list(range(len(steps.done))))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shown", [False, True])
def test_a_search_stops_at_its_limit(workers: int, shown: bool) -> None:
    net, before = spline(), active_count()
    count = len(ma.partition(net, SQUARE))
    track = Steps() if shown else None
    assert len(ma.partition(net, SQUARE, limit=count, workers=workers, track=track)) == count
    for limit in (1, count // 2, count - 1):
        with pytest.raises(MemoryBudgetError, match=f"stopped after {limit} cells.*limit="):
            ma.partition(net, SQUARE, limit=limit, workers=workers, track=track)
    assert active_count() == before


def test_a_result_that_does_not_fit_into_the_memory_given_is_refused() -> None:
    with pytest.raises(MemoryBudgetError, match="memory="):
        ma.partition(spline(), SQUARE, memory=10_000)


def test_an_interrupted_progress_bar_ends_all_threads() -> None:
    before = active_count()

    def stubborn(steps: Iterable[int], text: str) -> Iterator[int]:
        for step in steps:
            if step == 3:
                raise KeyboardInterrupt
            yield step

    with pytest.raises(KeyboardInterrupt):
        ma.partition(spline(), SQUARE, workers=2, track=stubborn)
    assert active_count() == before


def test_an_interrupt_reaches_a_running_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled search is replaced by one that goes on until it is told to stop."""
    seen = []

    def endless(net: Any, level: int, store: Any, eps: Any, strict: Any, halt: Any, *rest: Any) -> Any:
        time.sleep(0.2)  # until the main thread waits
        os.kill(os.getpid(), signal.SIGINT)
        start = time.monotonic()
        while not halt[0] and time.monotonic() - start < 60:
            time.sleep(0.01)
        seen.append(bool(halt[0]))
        return None, None, -3

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of the test runner ignores it
    monkeypatch.setattr(search, "explore", endless)
    monkeypatch.setattr(search, "_compiling", lambda _: nullcontext())
    try:
        with pytest.raises(KeyboardInterrupt):
            ma.partition(spline(), SQUARE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [True]


def test_a_halted_search_returns_at_once() -> None:
    net = reduced(spline(), SQUARE)
    job = search.Job(net, SQUARE.corners, 1e-13)
    for halt, failure in ((0, -1), (1, -3)):
        flag = np.array([halt], np.uint8)
        found = search.explore(job.arrays(), 0, tuple(job.root()), job.eps, job.strict, flag, 1 << 40, 48, 16, 2.5)
        assert found[2] == failure


def test_regions_are_parts_of_the_plane() -> None:
    """Every cell is in one region, and no region's box is much longer than the cells in it need."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (1000, 2))
    corners = (centres[:, None] + 0.01 * np.array([[1, 0], [0, 1], [-1, -1]])).reshape(-1, 2)
    job = search.Job(reduced(spline(), SQUARE), SQUARE.corners, 1e-13)
    store = job.root()._replace(
        x=corners[:, 0], y=corners[:, 1], off=np.arange(0, 3001, 3), h=np.zeros(1000, np.uint64)
    )
    parts = search.regions(store, 16)
    assert sorted(np.concatenate(parts)) == list(range(1000)) and len(parts) == 16
    assert max(np.ptp(centres[p], axis=0).max() for p in parts) < 0.75  # a square of 1/16 has sides of 0.5
