"""The structure of codes: cells, nearest inputs, clusters, crossings, comparison; each against a slow definition."""

import itertools
from math import comb

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet
from scipy.stats import rankdata
from torch import Tensor, nn

import maxaffine as ma
from maxaffine import codebook
from maxaffine.code import distance_chunks
from maxaffine.codebook import grouping, neighbours


class Mixed(nn.Module):
    """Convolution, ReLU, overlapping pooling, hardtanh: 2, 9 and 3 pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.clip = nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2), nn.Hardtanh(-0.2, 0.4)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.out(self.clip(self.pool(torch.relu(self.conv(x))).flatten(1))))


@pytest.fixture(scope="module")
def x() -> Tensor:
    near = torch.randn(90, 1, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.cat([near, near[:10], near[:5] + 1e-9])  # the last fifteen lie in the cells of the first ten


@pytest.fixture(scope="module")
def spline(x: Tensor) -> ma.Spline:
    torch.manual_seed(0)
    return ma.Spline(Mixed().double(), x[:1])


@pytest.fixture(scope="module")
def code(spline: ma.Spline, x: Tensor) -> ma.Code:
    return spline.code(x)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 3, 105)


def names(code: ma.Code) -> list[str]:
    return [units.name for units in code.signature]


def pieces(code: ma.Code, operators: list[str]) -> np.ndarray:
    return torch.cat([code[name].flatten(1).long() for name in operators], 1).numpy()


def eq15(code: ma.Code, operators: list[str]) -> np.ndarray:
    """The distance as the paper writes it."""
    rows = pieces(code, operators)
    return 1 - (rows[:, None] == rows[None]).mean(2)


def test_cells_are_classes_of_equal_codes(code: ma.Code) -> None:
    for operators in (None, "relu", ["pool", "clip"]):
        rows = pieces(code, names(code) if operators is None else [operators] if operators == "relu" else operators)
        numbers = codebook.cells(code, operators)
        equal = (rows[:, None] == rows[None]).all(2)
        assert np.array_equal(numbers[:, None] == numbers[None], equal)
        firsts = [numbers.tolist().index(k) for k in range(numbers.max() + 1)]
        assert firsts == sorted(firsts)
    ids = code.ids()
    assert len(set(ids)) == codebook.cells(code).max() + 1 == 90


def test_a_vocabulary_counts_batches_like_the_whole(code: ma.Code) -> None:
    words = codebook.Vocabulary()
    parts = [words.add(code[start : start + 30]) for start in range(0, 105, 30)]
    for depth in (*names(code), codebook.WHOLE):
        expected = codebook.cells(code, None if depth == codebook.WHOLE else depth)
        assert np.array_equal(np.concatenate([part[depth] for part in parts]), expected)
        assert words.total[depth] == expected.max() + 1


def test_one_cell_one_map(spline: ma.Spline, x: Tensor, code: ma.Code) -> None:
    """Row 31: the same code, the same A and b; two points of a cell see the network affine between them."""
    numbers, f = codebook.cells(code), spline.at(x)
    for first, again in ((0, 90), (3, 93), (4, 104)):
        assert numbers[first] == numbers[again]
        assert torch.equal(f.A[first], f.A[again]) and torch.equal(f.b[first], f.b[again])
    wide = torch.stack([x[0], x[100]]).mean(0, keepdim=True)
    assert bool(spline.code(wide) == code[0]) and torch.allclose(spline(wide), spline(x[[0, 100]]).mean(0), atol=1e-12)


def test_occupancy_counts_prefixes(code: ma.Code) -> None:
    found = codebook.occupancy(code, inputs=[1, 7, 50, 105])
    assert found.depths == (*names(code), "network") and found.inputs.tolist() == [1, 7, 50, 105]
    for depth, row in zip(found.depths, found.cells, strict=True):
        rows = pieces(code, names(code) if depth == "network" else [depth])
        assert row.tolist() == [len(np.unique(rows[:n], axis=0)) for n in found.inputs]
    assert found.total["network"] == 90
    assert codebook.occupancy(code).inputs[[0, -1]].tolist() == [1, 105]
    assert codebook.occupancy(code, "pool").depths == ("pool", "network")


def test_neighbours_are_those_of_a_stable_sort(
    code: ma.Code, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "MEMORY", 8 * 105 * 10)  # chunks of ten queries
    own, rows = np.arange(105), torch.arange(20, 60)
    for operators in names(code):
        table = eq15(code, [operators])
        for k in (1, 2, 7, 104):
            for chosen, queries, mine in ((own, code, own), (rows.numpy(), code[rows], rows.numpy())):
                d = table[chosen].copy()
                d[np.arange(len(d)), mine] = np.inf
                order = d.argsort(1, kind="stable")[:, :k]
                found = codebook.nearest(queries, code, k, operators, own=mine)
                assert np.array_equal(found.rows, order)
                assert np.allclose(found.distances, np.take_along_axis(d, order, 1), rtol=0, atol=1e-15)
    itself = codebook.nearest(code[:90], code, 1)
    assert (itself.distances == 0).all() and np.array_equal(itself.rows[:, 0], np.arange(90))


def test_chunks_are_the_rows_of_all_pairs(code: ma.Code) -> None:
    weights = {"relu": 2.0, "pool": 0.5}
    whole = ma.pairwise_distance(code, code[:40], list(weights), weights)
    parts = list(distance_chunks(code, code[:40], list(weights), weights, 16))
    assert [rows.start for rows, _ in parts] == list(range(0, 105, 16))
    assert torch.equal(torch.cat([part for _, part in parts]), whole)


def test_class_agreement_by_loops(code: ma.Code, labels: np.ndarray) -> None:
    found = codebook.class_agreement(code, labels, k=(5, 1, 20))
    assert found.k == (1, 5, 20) and found.depths == tuple(names(code)) and found.queries == 105
    chance = np.mean([(labels[np.arange(105) != i] == labels[i]).mean() for i in range(105)])
    assert abs(found.chance - chance) < 1e-12
    for place, depth in enumerate(found.depths):
        d = eq15(code, [depth])
        for j, k in enumerate(found.k):
            shares, votes = [], []
            for i in range(105):
                near = sorted((n for n in range(105) if n != i), key=lambda n: (d[i, n], n))[:k]
                theirs = [labels[n] for n in near]
                shares.append(np.mean([t == labels[i] for t in theirs]))
                most = max(theirs.count(t) for t in theirs)
                votes.append(next(t for t in theirs if theirs.count(t) == most) == labels[i])
            assert abs(found.shares[place, j] - np.mean(shares)) < 1e-12
            assert abs(found.votes[place, j] - np.mean(votes)) < 1e-12
    some = codebook.class_agreement(code, [str(v) for v in labels], (1,), "pool", queries=range(30))
    expected = codebook.nearest(code[:30], code, 1, "pool", own=range(30)).rows[:, 0]
    assert some.shares[0, 0] == (labels[expected] == labels[:30]).mean() and some.queries == 30


def trained(x: Tensor, y: Tensor, steps: int) -> nn.Sequential:
    torch.manual_seed(4)
    net = nn.Sequential(
        *(nn.Linear(64, 60), nn.ReLU()), *(nn.Linear(60, 60), nn.ReLU()), *(nn.Linear(60, 60), nn.ReLU())
    )
    net.append(nn.Linear(60, 10))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval()


def test_agreement_rises_with_depth_where_classes_were_learned() -> None:
    """Row 35 on scikit-learn's digits: images not trained on; trained, at initialisation, and on random labels."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
    train, test = slice(0, 1000), slice(1000, 1797)
    rows = {}
    shuffled = y[train][torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    for name, classes, steps in (("trained", y[train], 120), ("untrained", y[train], 0), ("random", shuffled, 250)):
        code = ma.Spline(trained(x[train], classes, steps), x[:1]).code(x[test])
        rows[name] = codebook.class_agreement(code, y[test], (20,)).shares[:, 0]
    assert rows["trained"][-1] > rows["trained"][0] + 0.1
    assert rows["untrained"][-1] < rows["untrained"][0] and rows["random"][-1] < rows["random"][0]


def test_average_linkage_is_that_of_the_distance(code: ma.Code) -> None:
    some = code[:30]
    tree = codebook.average_linkage(some, "relu")
    d = eq15(some, ["relu"])
    groups = {i: [i] for i in range(30)}
    for step in range(29):  # the definition: merge the pair of groups whose mean distance is least
        means = {pair: d[np.ix_(groups[pair[0]], groups[pair[1]])].mean() for pair in itertools.combinations(groups, 2)}
        assert abs(tree[step, 2] - min(means.values())) < 1e-12
        a, b = (int(n) for n in tree[step, :2])
        assert abs(means[min(a, b), max(a, b)] - tree[step, 2]) < 1e-12
        groups[30 + step] = groups.pop(a) + groups.pop(b)
    at = codebook.clusters(some, operators="relu", height=0.2)
    heights = cophenet(tree)
    assert all((at[i] == at[j]) == (heights[n] <= 0.2) for n, (i, j) in enumerate(itertools.combinations(range(30), 2)))
    assert codebook.clusters(some, 4, "relu").max() == 3
    whole = codebook.clusters(code, height=0.0)
    assert np.array_equal(whole, codebook.cells(code))


@pytest.mark.parametrize("method", ["tsne", "mds"])
def test_embeddings_keep_groups_apart(method: str) -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.randn(25, 6) + 4, torch.randn(25, 6) - 4])
    code = ma.Spline(nn.Sequential(nn.Linear(6, 80), nn.ReLU()), x).code(x)
    places = codebook.embedding(code, method)
    assert places.shape == (50, 2) and places.dtype == np.float64
    assert np.array_equal(places, codebook.embedding(code, method))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(50)
    assert (apart.argmin(1) // 25 == np.arange(50) // 25).all()


def test_correlations_with_the_euclidean_distance(code: ma.Code, x: Tensor) -> None:
    found = codebook.against_euclidean(code, x)
    i, j = found.pairs.T
    assert len(found.pairs) == comb(105, 2) and (i < j).all()
    assert np.allclose(found.euclidean, (x[i] - x[j]).flatten(1).norm(dim=1).numpy())
    for place, depth in enumerate(found.depths):
        d = eq15(code, [depth])[i, j]
        assert np.allclose(found.codes[place], d, rtol=0, atol=1e-15)
        assert abs(found.correlations[place] - np.corrcoef(rankdata(d), rankdata(found.euclidean))[0, 1]) < 1e-9
    some = codebook.against_euclidean(code, x, "relu", pairs=200, seed=3)
    drawn = {tuple(pair) for pair in some.pairs.tolist()}
    assert len(drawn) == 200 and all(0 <= a < b < 105 for a, b in drawn)
    constant = codebook.against_euclidean(code[[0, 90, 0, 90]], x[:4], "relu")
    assert np.isnan(constant.correlations).all()


def test_drawn_pairs_reach_every_pair() -> None:
    from maxaffine.codebook.pairs import pairs_of

    seen = {tuple(p) for seed in range(60) for p in pairs_of(7, 10, seed).tolist()}
    assert seen == set(itertools.combinations(range(7), 2))


def test_arrangement_bound_and_its_cells() -> None:
    """Row 32: seven lines in general position cut the plane into 29 cells; no grid finds more, a plane finds all."""
    assert codebook.arrangement_bound(7, 2) == 29
    assert all(
        codebook.arrangement_bound(n, d) == sum(comb(n, i) for i in range(d + 1)) for n in range(9) for d in range(9)
    )
    generator = torch.Generator().manual_seed(7)
    net = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(7, 2, generator=generator))
        net[0].bias.copy_(torch.randn(7, generator=generator))
    spline = ma.Spline(net, torch.zeros(1, 2, dtype=torch.float64))
    axis = torch.linspace(-40, 40, 300, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    occupied = codebook.occupancy(spline.code(grid)).total["1"]
    plane = ma.partition(spline, ma.Plane.square(torch.zeros(2).double(), *(400 * torch.eye(2).double())))
    assert occupied <= len(plane) == 29


def test_crossings_by_sampling(spline: ma.Spline, x: Tensor, code: ma.Code) -> None:
    found = codebook.crossings(spline, x[:6], x[6:12])
    steps = torch.linspace(0, 1, 40_001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    for row in range(6):
        along = spline.code(x[row] + steps * (x[row + 6] - x[row]))
        for place, name in enumerate(found.operators):
            changes = int((along[name][1:] != along[name][:-1]).sum())
            assert found.counts[row, place] == changes
            differ = int((code[name][row] != code[name][row + 6]).sum())
            assert found.counts[row, place] >= differ
            if code.signature[place].pieces == 2:
                assert (found.counts[row, place] - differ) % 2 == 0
        assert found.cells[row] == int((~(along[1:] == along[:-1])).sum()) + 1


def scaled_and_permuted(net: nn.Sequential) -> nn.Sequential:
    """The same function: hidden units in another order, each layer's incoming weights times c > 0, outgoing over c."""
    order, factors = torch.randperm(12), torch.rand(12, dtype=torch.float64) + 0.5
    twin = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    with torch.no_grad():
        twin.load_state_dict(net.state_dict())
        twin[0].weight.copy_((factors[:, None] * net[0].weight)[order])
        twin[0].bias.copy_((factors * net[0].bias)[order])
        twin[2].weight.copy_((net[2].weight / factors)[:, order])
    return twin


def test_comparison_sees_through_permuted_and_scaled_units() -> None:
    torch.manual_seed(5)
    x = torch.randn(150, 4, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    other = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    twin = scaled_and_permuted(net)
    assert torch.allclose(net(x), twin(x)) and not torch.allclose(net[0](x), twin[0](x))
    p, q, r = (ma.Spline(one, x[:1]).code(x) for one in (net, twin, other))
    assert not bool((p == q).all())
    same, against = codebook.compare(p, q), codebook.compare(p, p)
    for score in ("rand", "information", "correlation"):
        one, two = getattr(same, score), getattr(against, score)
        assert np.allclose(one, two) and np.allclose(one.diagonal(), 1)
    apart = codebook.compare(p, r)
    assert apart.rand.shape == (2, 1) and (apart.rand < 0.5).all() and (apart.correlation < 0.99).all()
    assert codebook.compare(p, r, (["3"], None), clusters=5).groups[0].tolist() == [5]


def test_comparison_by_counting_pairs() -> None:
    """The adjusted Rand index from its definition over all pairs, and mutual information from its sum."""
    torch.manual_seed(6)
    x = torch.randn(80, 2, dtype=torch.float64)
    p, q = (ma.Spline(nn.Sequential(nn.Linear(2, 4), nn.ReLU()).double(), x).code(x) for _ in range(2))
    found = codebook.compare(p, q)
    a, b = codebook.cells(p), codebook.cells(q)
    i, j = np.triu_indices(80, 1)
    both, first, second = (a[i] == a[j]) & (b[i] == b[j]), a[i] == a[j], b[i] == b[j]
    expected = first.sum() * second.sum() / len(i)
    assert abs(found.rand[0, 0] - (both.sum() - expected) / ((first.sum() + second.sum()) / 2 - expected)) < 1e-12
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / 80)
    rows, columns = joint.sum(1), joint.sum(0)
    information = np.nansum(joint * np.log(np.where(joint > 0, joint / np.outer(rows, columns), 1)))
    entropies = [-(m * np.log(m)).sum() for m in (rows, columns)]
    assert abs(found.information[0, 0] - information / np.mean(entropies)) < 1e-12
    assert [g.tolist() for g in found.groups] == [[a.max() + 1], [b.max() + 1]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c, _: codebook.nearest(c, c, 106), "k is 106.*from 1 to 105"),
        (lambda c, _: codebook.nearest(c, c, 105, own=range(105)), "from 1 to 104"),
        (lambda c, _: codebook.nearest(c, c, 0), "k is 0"),
        (lambda c, _: codebook.nearest(c, c, 1, own=[1, 2]), "2 rows for 105"),
        (lambda c, _: codebook.class_agreement(c, [1, 2]), "one for each of the 105"),
        (lambda c, _: codebook.class_agreement(c, np.full(105, np.nan)), "labels contain NaN"),
        (lambda c, _: codebook.class_agreement(c, range(105), k=()), "k is a tuple; give at least one"),
        (lambda c, _: codebook.class_agreement(c, range(105), k=5), "k is 5; give at least one"),
        (lambda c, _: codebook.occupancy(c, inputs=3), "inputs is 3; give at least one"),
        (lambda c, _: codebook.compare(c, c, "1"), "give a pair"),
        (lambda c, _: codebook.compare(c, 5), "q is 5"),
        (lambda *_: codebook.cells(5), "code is 5"),
        (lambda c, _: codebook.nearest(5, c), "p is 5"),
        (lambda c, _: codebook.cells(c, "nothing"), "nothing.*relu"),
        (lambda c, _: codebook.cells(c, []), "operators is empty"),
        (lambda c, _: codebook.occupancy(c, inputs=[106]), "106"),
        (lambda c, _: codebook.occupancy(c[:0]), "at least one"),
        (lambda c, _: codebook.clusters(c), "one of both"),
        (lambda c, _: codebook.clusters(c, 2, height=0.1), "one of both"),
        (lambda c, _: codebook.clusters(c, 200), "from 1 to 105"),
        (lambda c, _: codebook.average_linkage(c[:1]), "at least two"),
        (lambda c, _: codebook.embedding(c, "pca"), "'tsne', 'mds', 'umap'"),
        (lambda c, _: codebook.embedding(c[:3]), "at least four"),
        (lambda c, x: codebook.against_euclidean(c, x[:5]), "5 inputs.*105 codes"),
        (lambda c, _: codebook.compare(c, c[:5]), "105 and 5"),
        (lambda *_: codebook.arrangement_bound(-1, 2), "units is -1"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(code: ma.Code, x: Tensor, call, said: str) -> None:
    with pytest.raises(ma.errors.InputError, match=said) as error:
        call(code, x)
    assert "\n" not in str(error.value)


def test_limits_and_missing_libraries(code: ma.Code, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ma.errors.MemoryBudgetError, match="105 inputs"):
        codebook.average_linkage(code, memory=1000)
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ma.errors.MissingExtraError, match="umap-learn"):
        codebook.embedding(code, "umap")
    monkeypatch.setitem(__import__("sys").modules, "sklearn.metrics", None)
    with pytest.raises(ma.errors.MissingExtraError, match=r"scikit-learn.*maxaffine\[report\]"):
        codebook.compare(code, code)
    assert tuple(grouping.EMBED) == grouping.METHODS
