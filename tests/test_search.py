"""The index of codes, against the definition of the distance: layouts, neighbours, duplicates, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import assets
import numpy as np
import pytest
import real_models
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine.code import Code, Signature, Units
from maxaffine.search import part as parts
from maxaffine.search import scan
from maxaffine.search.layout import layout_of, length, words
from maxaffine.search.part import fold


class Mixed(nn.Module):
    """Operators with 2, 3, 4, 9 and 20 pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.four = nn.Conv2d(1, 3, 3), nn.MaxPool2d(3, 2), nn.MaxPool2d(2)
        self.clip, self.out, self.wide = nn.Hardtanh(), nn.Linear(12, 4), nn.Linear(12, 20)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(self.four(x)))
        h = self.clip(self.pool(h).flatten(1))
        return torch.relu(self.out(h)) + self.wide(h).amax(1, keepdim=True)


OPERATORS = [None, "four", "clip", ["relu", "pool"], ["clip", "four"], ["relu@1", "amax", "pool"]]


@pytest.fixture(scope="module")
def spline() -> ma.Spline:
    torch.manual_seed(0)
    return ma.Spline(Mixed().double(), torch.zeros(1, 1, 14, 14, dtype=torch.float64))


def inputs(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def code(spline: ma.Spline) -> Code:
    return spline.code(inputs(40, 1))


@pytest.fixture(params=["faiss", "numba"])
def counter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to count bits."""
    if request.param == "numba":
        monkeypatch.setattr(scan, "faiss_or_none", lambda: None)
    else:
        pytest.importorskip("faiss")
    return request.param


def drawn(count: int, seed: int, units: int = 6, pieces: int = 2) -> Code:
    """Random codes of few units: many ties and many equal codes."""
    values = torch.randint(0, pieces, (count, units), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Code(Signature((Units("units", "any", pieces, (units,)),), (1,)), (values,), count)


def by_definition(query: Code, data: Code, ids: list[int], k: int, operators: object = None) -> tuple[list, list]:
    """The k lowest (distance, id) of each query."""
    distances = ma.pairwise_distance(query, data, operators).tolist()
    best = [sorted(zip(row, ids, strict=True))[:k] for row in distances]
    return [[d for d, _ in row] for row in best], [[i for _, i in row] for row in best]


@pytest.mark.parametrize("pieces", range(2, 20))
def test_words_are_equally_far_apart(pieces: int) -> None:
    for cost in (2, 4, 8, 16):
        table = words(pieces, cost)
        assert {int((a != b).sum()) for a, b in itertools.combinations(table, 2)} == {cost}
    assert words(4, 2).tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("operators", OPERATORS)
def test_hamming_distances_are_eq_15(code: Code, operators: object) -> None:
    layout = layout_of(code, operators)
    rows = layout.rows(code)
    hamming = np.bitwise_count(rows[:, None] ^ rows[None]).sum(2).astype(np.int64)
    assert (hamming % layout.cost == 0).all() and rows.shape == (40, layout.width)
    assert np.array_equal(layout.distances(hamming), ma.pairwise_distance(code, code, operators).numpy())


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5, 8, 9, 17, 31, 32, 33])
def test_lengths_are_those_of_the_words(pieces: int) -> None:
    assert all(length(pieces, cost) == words(pieces, cost).shape[1] for cost in (2, 4, 8, 16, 32))


def test_a_maximum_over_a_whole_map_takes_no_longer_words_than_needed() -> None:
    pieces = 4000  # tables of every cost tried would be 32 GB
    values = torch.tensor([[5], [3999], [5]], dtype=torch.int32)
    code = Code(Signature((Units("pool", "max", pieces, (1,)),), (1,)), (values,), 3)
    layout = layout_of(code)
    assert (layout.cost, layout.bits) == (2, pieces)
    assert ma.CodeIndex.build(code).search(code, 3).distances.tolist() == [[0, 0, 1], [0, 1, 1], [0, 0, 1]]


def test_binary_codes_are_not_widened(code: Code) -> None:
    layout = layout_of(drawn(3, 0, units=64))
    assert (layout.cost, layout.bits, layout.width) == (1, 64, 8)
    assert layout_of(code, "four").bits == 3 * 49  # simplex words of 3 bits


@pytest.mark.parametrize("operators", OPERATORS)
def test_neighbours_are_those_of_the_definition(code: Code, operators: object, counter: str) -> None:
    index = ma.CodeIndex.build(code, operators=operators)
    query = code[torch.arange(0, 40, 3)]
    distances, ids = index.search(query, 7)
    assert (distances.tolist(), ids.tolist()) == by_definition(query, code, list(range(40)), 7, operators)
    assert distances.dtype == torch.float64 and ids.dtype == torch.int64


def history(seed: int) -> Iterator[tuple[ma.CodeIndex, dict[int, int], Code]]:
    """An index through adding and removing, with the row of `data` that each id has."""
    data, g = drawn(400, seed, 7), np.random.default_rng(seed)
    index, held = ma.CodeIndex.build(data[:0]), {}
    for start in (0, 150, 160, 161, 250):
        rows = torch.arange(start, min(400, start + int(g.integers(1, 150))))
        ids = g.permutation(2000)[: len(rows)].tolist() if start < 200 else None
        ids = ids and [int(i) for i in ids if i not in held][: len(rows)]
        rows = rows if ids is None else rows[: len(ids)]
        given = index.add(data[rows], ids).tolist()
        assert ids is None or given == ids
        held |= dict(zip(given, rows.tolist(), strict=True))
        gone = g.permutation(sorted(held))[: len(held) // 3].tolist()
        index.remove(gone)
        held = {i: r for i, r in held.items() if i not in gone}
        yield index, held, data


@pytest.mark.parametrize("seed", range(4))
def test_adding_and_removing(seed: int, counter: str) -> None:
    query = drawn(30, 100 + seed, 7)
    for index, held, data in history(seed):
        ids, left = list(held), data[torch.tensor(list(held.values()))]
        assert len(index) == len(held) and index.ids.tolist() == sorted(held)
        for k in {1, min(5, len(held)), len(held)}:
            distances, found = index.search(query, k)
            assert (distances.tolist(), found.tolist()) == by_definition(query, left, ids, k)
        pairs = ma.pairwise_distance(query, left)
        for radius in (0.0, 1 / 7, 0.3, 1.0):
            for row, near in zip(pairs.tolist(), index.within(query, radius), strict=True):
                expected = sorted((d, i) for d, i in zip(row, ids, strict=True) if d <= radius)
                assert list(zip(near.distances.tolist(), near.ids.tolist(), strict=True)) == expected
        for row, same in zip(pairs.tolist(), index.lookup(query), strict=True):
            assert same.tolist() == sorted(i for d, i in zip(row, ids, strict=True) if d == 0)


@pytest.mark.parametrize("spare", [0, 16])
def test_removed_rows_do_not_hide_others(spare: int, counter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with few equal codes, many ties and nearly half of its rows removed, those first that come first."""
    monkeypatch.setattr(parts, "SPARE", spare)
    data, query = drawn(300, 8, 11), drawn(40, 9, 11)
    index = ma.CodeIndex.build(data)
    index.remove(torch.arange(140))
    assert index.state.parts[0].removed is not None and int((index.state.parts[0].counts == 0).sum()) > 80
    for k in (1, 10, 160):
        distances, ids = index.search(query, k)
        expected = by_definition(query, data[140:], list(range(140, 300)), k)
        assert (distances.tolist(), ids.tolist()) == expected


def test_a_radius_is_compared_as_distances_are() -> None:
    for units in (3, 10, 49, 100, 1345):
        layout = layout_of(drawn(1, 0, units))
        for most in range(units + 1):
            edge = most / units
            assert layout.radius(edge) == most
            assert layout.radius(np.nextafter(edge, 0)) == max(0, most - 1)


def test_both_counters_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    data, query = drawn(3000, 3, 100), drawn(70, 4, 100)
    monkeypatch.setattr(scan, "BLOCK", 700)
    monkeypatch.setattr(scan, "BYTES", 500 * 16)
    found = []
    for way in (scan.faiss_or_none, lambda: None):
        monkeypatch.setattr(scan, "faiss_or_none", way)
        index = ma.CodeIndex.build(data)
        near = index.within(query, 0.4)
        found.append(
            (index.search(query, 20), torch.cat([n.ids for n in near]), torch.cat([n.distances for n in near]))
        )
    (a, *rest), (b, *others) = found
    assert torch.equal(a.ids, b.ids) and torch.equal(a.distances, b.distances)
    assert all(torch.equal(p, q) for p, q in zip(rest, others, strict=True)) and len(rest[0]) > 1000


def test_very_long_rows_are_compared_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 does not hold all distances from 2^24 on."""
    values = torch.zeros(2, 2**24 + 64, dtype=torch.uint8)
    values[1, 1:] = 1
    code = Code(Signature((Units("units", "any", 2, (2**24 + 64,)),), (1,)), (values,), 2)
    near = ma.CodeIndex.build(code).within(code[0], 1.0)[0]
    assert near.distances.tolist() == [0.0, (2**24 + 63) / (2**24 + 64)] and near.ids.tolist() == [0, 1]


def test_equal_codes_are_kept_once() -> None:
    data = drawn(500, 5, 4)
    index = ma.CodeIndex.build(data[:250])
    index.add(data[250:])
    assert sum(len(part.rows) for part in index.state.parts) == len({tuple(v) for v in data["units"].tolist()}) == 16


def test_rows_with_the_same_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "hashes", lambda rows: np.zeros(len(rows), np.uint64))
    data = drawn(200, 6)
    index = ma.CodeIndex.build(data)
    assert sum(len(part.rows) for part in index.state.parts) == len({tuple(v) for v in data["units"].tolist()})
    same = ma.pairwise_distance(data, data) == 0
    assert [found.tolist() for found in index.lookup(data)] == [row.nonzero().flatten().tolist() for row in same]


def test_parts_stay_few() -> None:
    index = ma.CodeIndex.build(drawn(1, 0, 40))
    for seed in range(1, 60):
        index.add(drawn(3, seed, 40))
    assert len(index) == 178 and len(index.state.parts) <= 4


def test_a_fold_keeps_the_lowest_id_first() -> None:
    rows = np.array([[3] * 8, [1] * 8, [3] * 8, [2] * 8], np.uint8)
    part = fold(rows, np.array([9, 5, 2, 7]))
    assert part.rows[:, 0].tolist() == [3, 1, 2] and part.ids.tolist() == [2, 9, 5, 7]
    assert part.offsets.tolist() == [0, 2, 3, 4]


# ---- near-duplicates --------------------------------------------------------------------------------------


def pairs_by_definition(data: Code, ids: list[int], radius: float, operators: object = None) -> list:
    d = ma.pairwise_distance(data, data, operators).tolist()
    found = [(d[i][j], *sorted((ids[i], ids[j]))) for i in range(len(ids)) for j in range(i)]
    return sorted(p for p in found if p[0] <= radius)


def components(pairs: list) -> list[list[int]]:
    """Groups by merging sets."""
    sets: list[set[int]] = []
    for _, i, j in pairs:
        touched = [s for s in sets if i in s or j in s]
        sets = [s for s in sets if s not in touched] + [set().union({i, j}, *touched)]
    return sorted((sorted(s) for s in sets), key=lambda s: (-len(s), s[0]))


@pytest.mark.parametrize(("radius", "operators"), [(0.0, "relu@1"), (0.5, None), (0.65, ["clip", "four"]), (0.0, None)])
def test_near_duplicates_of_codes(code: Code, radius: float, operators: object, counter: str) -> None:
    ids = np.random.default_rng(0).permutation(900)[:40].tolist()
    found = ma.near_duplicates(code, radius, ids=ids, operators=operators)
    expected = pairs_by_definition(code, ids, radius, operators)
    triples = zip(found.distances.tolist(), *found.pairs.T.tolist(), strict=True)
    assert list(triples) == expected and (expected or radius == 0.0)
    groups = components(expected)
    assert [g.tolist() for g in found.groups] == groups
    assert found.redundant.tolist() == sorted(i for g in groups for i in g[1:])
    assert f"pairs {len(expected)}," in str(found) and f"of {40} rows" in str(found)


def test_near_duplicates_of_an_index(counter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maxaffine.search.duplicates.COMPARED", 100)
    monkeypatch.setattr("maxaffine.search.changes.PART", 1)  # parts are never merged
    for index, held, data in history(7):
        left = data[torch.tensor(list(held.values()))]
        found = ma.near_duplicates(index, 1 / 7)
        triples = zip(found.distances.tolist(), *found.pairs.T.tolist(), strict=True)
        assert list(triples) == pairs_by_definition(left, list(held), 1 / 7)
    assert len(index.state.parts) > 2


def test_removed_rows_join_no_groups() -> None:
    chain = Code(drawn(1, 0, 4).signature, (torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]).byte(),), 3)
    index = ma.CodeIndex.build(chain)
    assert [g.tolist() for g in ma.near_duplicates(index, 0.25).groups] == [[0, 1, 2]]
    index.remove([1])
    assert index.state.parts[0].removed is not None
    assert ma.near_duplicates(index, 0.25).groups == ()


def test_too_many_pairs_are_refused() -> None:
    data = drawn(300, 0, 3)
    for radius in (0.0, 1.0):
        with pytest.raises(ma.errors.MemoryBudgetError, match=r"more than 416 pairs .*lower the radius"):
            ma.near_duplicates(data, radius, memory=10_000)
    assert len(ma.near_duplicates(data, 1.0).pairs) == 300 * 299 // 2


# ---- approximate kinds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multihash", "hnsw"])
def test_approximate_kinds_find_planted_neighbours(kind: str) -> None:
    pytest.importorskip("faiss")
    data = drawn(3000, 1, 256)
    index = ma.CodeIndex.build(data[:2000], kind=kind)
    index.search(data[:1], 1)
    index.add(data[1000:], np.arange(5000, 7000))  # a thousand twice
    flips = torch.rand(100, 256, generator=torch.Generator().manual_seed(2)) < 0.01
    query = Code(data.signature, (data["units"][1000:3000:20] ^ flips,), 100)
    distances, ids = index.search(query, 2)
    exact, right = ma.CodeIndex.build(data[:1000]), ma.CodeIndex.build(data)
    assert (right.search(query, 1).distances >= distances[:, :1]).double().mean() > 0.9
    assert ids[:50].tolist() == [[1000 + 20 * i, 5000 + 20 * i] for i in range(50)]  # both ids of a code kept once
    assert 0.3 < index.recall(query, 2) <= 1.0 == exact.recall(query, 2)
    index.remove(ids[:50, 0])
    assert index.search(query[:50], 1).ids.flatten().tolist() == ids[:50, 1].tolist()
    far = index.search(drawn(1, 9, 256), 2900)
    assert bool((far.distances.isinf() == (far.ids == -1)).all())


@pytest.mark.parametrize("kind", ["multihash", "hnsw"])
def test_removed_rows_do_not_crowd_out_those_left(kind: str) -> None:
    pytest.importorskip("faiss")
    code = drawn(300, 0, units=64)
    index = ma.CodeIndex.build(code, kind=kind)  # type: ignore[arg-type]
    index.search(code[:1], 5)
    index.remove(range(0, 290))
    assert index.search(code[290:], 1).ids[:, 0].tolist() == list(range(290, 300))
    assert index.search(code[:1], 5).ids.min() >= (0 if kind == "hnsw" else -1)


def test_approximate_kinds_need_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "faiss_or_none", lambda: None)
    with pytest.raises(ma.errors.MissingExtraError, match=r"'hnsw' needs faiss.*maxaffine\[search\]"):
        ma.CodeIndex.build(drawn(3, 0), kind="hnsw")


# ---- real codes -------------------------------------------------------------------------------------------


def test_codes_of_a_trained_network() -> None:
    """LeNet-5 with its max-poolings on real digits, brightened copies among them."""
    x = assets.mnist_test_32()[0][:300]
    spline = ma.Spline(real_models.lenet5("nets/mnist/csinva_lenet.pth"), x[:1])
    code, bright = spline.code(x), spline.code((x[:40] * 1.05).clamp(max=1))
    distances, ids = ma.CodeIndex.build(code).search(bright, 3)
    assert (distances.tolist(), ids.tolist()) == by_definition(bright, code, list(range(300)), 3)
    assert ids[:, 0].tolist() == list(range(40))
    index = ma.CodeIndex.build(code)
    index.add(bright)
    assert {(i, 300 + i) for i in range(40)} <= {(i, j) for i, j in ma.near_duplicates(index, 0.07).pairs.tolist()}


# ---- bad input --------------------------------------------------------------------------------------------


def refusals(spline: ma.Spline) -> list:
    """What is refused, and words of the one line that says so."""
    data, index = drawn(9, 0), ma.CodeIndex.build(drawn(9, 0))
    gone = ma.CodeIndex.build(drawn(9, 0))
    gone.remove([3])
    other = spline.code(inputs(2, 0))
    trained = ma.CodeIndex.build(other)
    moved = ma.Spline(Mixed().double(), torch.zeros(1, 1, 14, 14, dtype=torch.float64)).code(inputs(2, 0))
    return [
        (lambda: index.search(other), "differ in structure"),
        (lambda: index.add(drawn(1, 0, 7)), "differ in structure"),
        (lambda: trained.search(moved, 1), "other weights"),
        (lambda: trained.add(moved), "other weights"),
        (lambda: index.search(data["units"], 1), "code is a torch.uint8 tensor"),
        (lambda: ma.CodeIndex.build(data[:0]).search(data, 1), "index is empty"),
        (lambda: ma.near_duplicates(data[:0], 0.1), "no codes to compare"),
        (lambda: index.search(data, 10), "k is 10; give a whole number from 1 to 9"),
        (lambda: index.search(data, 0), "k is 0; give a whole number from 1 to 9"),
        (lambda: index.search(data, 1.5), "k is 1.5"),
        (lambda: index.within(data, 1.5), "radius is 1.5"),
        (lambda: index.within(data, -0.1), "radius is -0.1"),
        (lambda: ma.near_duplicates(index, float("nan")), "radius is nan"),
        (lambda: ma.near_duplicates(index, 0.1, operators="units"), "those of the index"),
        (lambda: ma.near_duplicates(3, 0.1), "codes is 3"),
        (lambda: index.add(data, [1, 2]), "2 ids, 2 of them different, for 9 codes"),
        (lambda: index.add(data[:2], [11, 11]), "2 ids, 1 of them different, for 2 codes"),
        (lambda: index.add(data[:2], [8, 11]), r"ids \[8\] are in the index already"),
        (lambda: index.add(data[:1], [-1]), "ids hold -1"),
        (lambda: index.add(data[:1], [0.5]), "give whole numbers"),
        (lambda: index.add(data[:1], ["a"]), "give whole numbers"),
        (lambda: index.add(data[:1], [2**70]), "give whole numbers"),
        (lambda: index.remove([3, 99]), r"ids \[99\] are not in the index"),
        (lambda: gone.remove([3]), r"ids \[3\] are not in the index or were removed"),
        (lambda: index.remove(torch.tensor([True])), "give whole numbers"),
        (lambda: ma.CodeIndex.build(data, kind="fast"), "kind is 'fast'; give one of exact, multihash, hnsw"),
        (lambda: ma.CodeIndex.build(data, operators=["units", "units"]), "name each operator"),
        (lambda: ma.CodeIndex.build(data, operators=[]), "at least one"),
        (lambda: ma.CodeIndex.build(data, operators="none"), "no spline operator is called"),
        (lambda: ma.CodeIndex.build(3), "code is 3"),
    ]


def test_bad_input_is_refused_in_one_line(spline: ma.Spline) -> None:
    torch.manual_seed(9)
    for call, words_of_it in refusals(spline):
        with pytest.raises(ma.errors.InputError, match=words_of_it) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_a_refused_change_changes_nothing() -> None:
    index, data = ma.CodeIndex.build(drawn(9, 0)), drawn(9, 1)
    before = index.search(data, 9)
    for change in (lambda: index.add(data, range(8, 17)), lambda: index.remove([0, 44])):
        with pytest.raises(ma.errors.InputError):
            change()
    assert len(index) == 9 and torch.equal(index.search(data, 9).ids, before.ids)
    index.remove([2])
    index.add(data[:1], [2])  # an id may be given again
    assert index.lookup(data[:1])[0].tolist().count(2) == 1
    assert index.add(data[:2]).tolist() == [9, 10]
