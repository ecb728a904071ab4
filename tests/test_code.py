"""Codes as values: indexing, packing, identity, distance (Eq. 15), and the budgets of dense results."""

import copy
import itertools
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine.code import Signature, Units, concatenate, files
from maxaffine.code.hamming import _agreements
from maxaffine.types import flat


class Mixed(nn.Module):
    """Operators with 2, 3, 9 and 300 pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 3, 3), nn.MaxPool2d(3, 2)
        self.clip, self.out, self.wide = nn.Hardtanh(), nn.Linear(27, 4), nn.Linear(27, 300)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x))
        h = self.clip(self.pool(h).flatten(1))
        return torch.relu(self.out(h)) + self.wide(h).amax(1, keepdim=True)


@pytest.fixture(scope="module")
def spline() -> ma.Spline:
    torch.manual_seed(0)
    return ma.Spline(Mixed().double(), torch.zeros(1, 1, 9, 9, dtype=torch.float64))


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(12, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_pieces_names_and_dtypes(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(x)
    assert [(o.name, o.pieces, o.units) for o in spline.operators] == [
        ("relu", 2, 147), ("pool", 9, 27), ("clip", 3, 27), ("relu@1", 2, 4), ("amax", 300, 1),
    ]  # fmt: skip
    assert code["pool"].shape == (12, 3, 3, 3) and code["pool"].dtype == torch.uint8
    assert code["amax"].dtype == torch.int32 and code["relu"].dtype == torch.uint8
    with pytest.raises(ma.errors.InputError, match=r"nothing.*relu"):
        code["nothing"]


def test_indexing(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(x)
    assert len(code) == 12 and len(code[2:5]) == 3 and len(code[-1]) == 1
    assert bool((code[2] == code[2:3]).all()) and torch.equal(code[-1]["pool"], code["pool"][11:])
    rows = torch.tensor([3, 1])
    assert torch.equal(code[rows]["clip"], code["clip"][rows])
    with pytest.raises(IndexError):
        code[12]
    assert (code == code[4]).tolist() == [i == 4 for i in range(12)]
    with pytest.raises(ma.errors.InputError, match="3 and 2"):
        _ = code[:3] == code[:2]


def test_packing_is_bit_by_bit(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(x)
    packed = code.packed()
    widths = [math.ceil(math.log2(o.pieces)) for o in spline.operators]
    sizes = [math.ceil(o.units * w / 8) for o, w in zip(spline.operators, widths, strict=True)]
    assert packed.dtype == torch.uint8 and packed.shape == (12, sum(sizes))
    for row in range(12):
        expected = b""
        for operator, width in zip(spline.operators, widths, strict=True):
            bits = "".join(format(int(v), f"0{width}b") for v in code[operator.name][row].flatten())
            bits += "0" * (-len(bits) % 8)
            expected += bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        assert bytes(packed[row].tolist()) == expected


def test_ids_name_codes(spline: ma.Spline, x: Tensor) -> None:
    twice = torch.cat([x, x[:3]])
    ids = spline.code(twice).ids()
    assert all(type(i) is bytes and len(i) == 16 for i in ids)
    for i, j in itertools.combinations(range(15), 2):
        assert (ids[i] == ids[j]) == bool(spline.code(twice[i : i + 1]) == spline.code(twice[j : j + 1]))


def test_distances_are_shares_of_differing_units(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(x)
    names = [o.name for o in spline.operators]
    weights = {name: 1.0 + i for i, name in enumerate(names)}
    for i, j in [(0, 1), (3, 7), (5, 5)]:
        differ = {n: (code[n][i] != code[n][j]).flatten() for n in names}
        shares = {n: d.double().mean() for n, d in differ.items()}
        everything = torch.cat(list(differ.values())).double().mean()
        assert torch.allclose(ma.distance(code[i], code[j])[0], everything)
        assert torch.allclose(ma.distance(code[i], code[j], "pool")[0], shares["pool"])
        weighted = sum(weights[n] * shares[n] for n in names) / sum(weights.values())
        assert torch.allclose(ma.distance(code[i], code[j], weights=weights)[0], weighted)
        assert torch.allclose(ma.pairwise_distance(code, code, weights=weights)[i, j], weighted)
        assert torch.allclose(ma.pairwise_distance(code, code)[i, j], everything)


def test_a_million_pairs_by_brute_force() -> None:
    """More rows and columns than one block, all widths of bits, on the CPU by bits and by products of indicators."""
    generator = torch.Generator().manual_seed(5)
    sizes = (("a", 2, (70,)), ("b", 3, (5, 5)), ("c", 81, (3,)), ("d", 300, (2,)), ("e", 2, ()))
    signature = Signature(tuple(Units(n, "any", r, shape) for n, r, shape in sizes), (1,))

    def drawn(count: int) -> ma.Code:
        kinds = [torch.uint8 if r <= 256 else torch.int32 for _, r, _ in sizes]
        values = [torch.randint(0, r, (count, *s), generator=generator) for _, r, s in sizes]
        return ma.Code(signature, tuple(v.to(k) for v, k in zip(values, kinds, strict=True)), count)

    p, q = drawn(600), drawn(1100)
    rows = [torch.cat([v.flatten(1).int() if v.dim() > 1 else v[:, None].int() for v in c.values], 1) for c in (p, q)]
    expected = (rows[0][:, None] != rows[1][None]).double().mean(2)
    assert torch.equal(ma.pairwise_distance(p, q), expected)
    assert torch.equal(ma.distance(p, q[:600]), expected[:, :600].diagonal())
    agree = sum(_agreements(flat(a), flat(b), u.pieces) for a, b, u in zip(p.values, q.values, signature, strict=True))
    assert torch.equal((rows[0].shape[1] - agree) / rows[0].shape[1], expected)
    weights = {"b": 2.0, "d": 0.0, "e": 1.0}
    by_name = {n: (p.values[i][:, None] != q.values[i][None]).flatten(2) for i, (n, _, _) in enumerate(sizes) if i != 4}
    wanted = (2 * by_name["b"].double().mean(2) + (p["e"][:, None] != q["e"][None]).double()) / 3
    assert torch.allclose(ma.pairwise_distance(p, q, list(weights), weights), wanted, rtol=0, atol=1e-15)


def test_distance_is_a_metric_on_codes(spline: ma.Spline, x: Tensor) -> None:
    d = ma.pairwise_distance(spline.code(x), spline.code(x))
    assert bool((d >= 0).all()) and bool((d <= 1).all()) and torch.equal(d, d.T) and bool((d.diagonal() == 0).all())
    assert bool((d[:, :, None] <= d[:, None, :] + d.T[None, :, :] + 1e-12).all())


@pytest.mark.parametrize(
    "arguments",
    [
        {"operators": "nothing"},
        {"weights": [1.0]},
        {"weights": 3},
        {"operators": 5},
        {"weights": [0.0] * 5},
        {"weights": [math.nan, 1.0, 1.0, 1.0, 1.0]},
        {"weights": [math.inf] * 5},
        {"operators": []},
    ],
)
def test_distances_that_make_no_sense(spline: ma.Spline, x: Tensor, arguments: dict) -> None:
    code = spline.code(x[:2])
    with pytest.raises(ma.errors.InputError):
        ma.distance(code, code, **arguments)
    with pytest.raises(ma.errors.InputError):
        ma.pairwise_distance(code, code, **arguments)


def test_rows_must_fit(spline: ma.Spline, x: Tensor) -> None:
    with pytest.raises(ma.errors.InputError, match=r"2 and 3 .*pairwise_distance"):
        ma.distance(spline.code(x[:2]), spline.code(x[:3]))


def test_no_rows_are_compared_as_any_number_of_them(spline: ma.Spline, x: Tensor) -> None:
    code = spline.code(x)
    none = code[:0]
    assert ma.pairwise_distance(none, code).shape == (0, 12) and ma.pairwise_distance(code, none).shape == (12, 0)
    assert ma.pairwise_distance(none, none).shape == (0, 0)
    for other in (none, code[0]):
        assert ma.distance(none, other).shape == ma.distance(other, none).shape == (none == other).shape == (0,)
    with pytest.raises(ma.errors.InputError, match="0 and 12"):
        ma.distance(none, code)


def test_codes_of_other_structures_are_refused(spline: ma.Spline, x: Tensor) -> None:
    other = ma.Spline(nn.Sequential(nn.Flatten(), nn.ReLU()).double(), x[:1]).code(x)
    with pytest.raises(ma.errors.InputError):
        ma.distance(spline.code(x), other)
    with pytest.raises(ma.errors.InputError):
        _ = spline.code(x) == other


def test_budgets(spline: ma.Spline, x: Tensor) -> None:
    with pytest.raises(ma.errors.MemoryBudgetError, match=r"12 x 4 x 81.*mv, vm or rows"):
        _ = spline.at(x, memory=1000).A
    with pytest.raises(ma.errors.MemoryBudgetError, match=r"maxaffine\.margin"):
        spline.region(x[0], memory=1000)
    with pytest.raises(ma.errors.MemoryBudgetError, match="budget"):
        ma.margin(spline, x, memory=100)
    assert spline.at(x, memory=1000).mv(x).shape == (12, 4)
    assert spline.at(x, memory=10**6).A.shape == (12, 4, 1, 9, 9)


@pytest.mark.parametrize("name", ["codes.safetensors", "codes.parquet"])
def test_files_keep_codes_and_fingerprints(spline: ma.Spline, x: Tensor, name: str, tmp_path: Path) -> None:
    code = spline.code(x)
    code.save(tmp_path / name)
    back = ma.Code.load(tmp_path / name)
    assert bool((back == code).all()) and len(back) == 12 and back.ids() == code.ids()
    assert [v.dtype for v in back.values] == [v.dtype for v in code.values]
    assert (back.structure, back.weights) == (code.structure, code.weights)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["codes.safetensors", "codes.parquet"])
def test_damaged_files_are_said(
    spline: ma.Spline, x: Tensor, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    spline.code(x).save(path)
    whole = path.read_bytes()
    place = whole.find(spline.code(x[:1]).packed().numpy().tobytes()[:8]) if name.endswith("parquet") else -20
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    with monkeypatch.context() as newer:
        newer.setattr(files, "FORMAT", 2)
        spline.code(x).save(path)
    for content in (path.read_bytes(), flipped, whole[:100], whole[:-40], b""):
        path.write_bytes(content)
        with pytest.raises(ma.errors.FileFormatError) as error:
            ma.Code.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ma.errors.FileFormatError, match="no such file"):
        ma.Code.load(tmp_path / "none.parquet")
    with pytest.raises(ma.errors.FileFormatError, match=r"\.safetensors or \.parquet"):
        spline.code(x).save(tmp_path / "codes.pt")
    with pytest.raises(ma.errors.FileFormatError, match="nowhere"):
        spline.code(x).save(tmp_path / "nowhere" / name)


def small(negative: float = 0.0) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(negative), nn.Linear(8, 2))


def test_the_checksum_covers_what_is_said_of_the_codes(spline: ma.Spline, x: Tensor, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    code, paths = spline.code(x), (tmp_path / "a.safetensors", tmp_path / "a.parquet")
    said = str(code.weights).encode()
    for path in paths:
        code.save(path)
    paths[0].write_bytes(paths[0].read_bytes().replace(said, said[::-1]))
    table = parquet.read_table(paths[1])
    other = {key: value.replace(said, said[::-1]) for key, value in table.schema.metadata.items()}
    parquet.write_table(table.replace_schema_metadata(other), paths[1])
    for path in paths:
        with pytest.raises(ma.errors.FileFormatError, match=f"{path.name} is damaged"):
            ma.Code.load(path)


def test_a_path_is_a_path(spline: ma.Spline, x: Tensor) -> None:
    for wrong in (lambda: ma.Code.load(5), lambda: spline.code(x).save(5)):  # type: ignore[arg-type]
        with pytest.raises(ma.errors.InputError, match="path is 5"):
            wrong()


@pytest.mark.parametrize("text", ["[]", "{}", "x", '{"format": 1, "version": "0", "units": 5}'])
def test_a_header_that_says_something_else(text: str) -> None:
    with pytest.raises(ma.errors.FileFormatError, match="f is damaged"):
        files.read_header(text, "f")


def test_the_structure_is_of_names_kinds_units_and_input() -> None:
    x = torch.zeros(1, 4)
    one = ma.Spline(small(), x).code(x)
    assert ma.Spline(small().double(), x.double()).code(x.double()).structure == one.structure
    nets = [
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),  # kind
        nn.Sequential(nn.Linear(4, 9), nn.LeakyReLU(), nn.Linear(9, 2)),  # units
        nn.Sequential(nn.Flatten(0, 0), nn.Linear(4, 8), nn.LeakyReLU()),  # name
        nn.Sequential(nn.Linear(4, 8), nn.Hardtanh(), nn.Linear(8, 2)),  # pieces
    ]
    others = [ma.Spline(net, x).code(x) for net in nets]
    others.append(ma.Spline(small(), torch.zeros(1, 3, 4)).code(torch.zeros(1, 3, 4)))
    assert len({one.structure, *(other.structure for other in others)}) == 6
    for other in others:
        with pytest.raises(ma.errors.InputError, match="codes"):
            ma.distance(one, other)


def test_the_weights_are_those_that_made_the_code() -> None:
    net, x = small(), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    spline = ma.Spline(net, x)
    before = spline.code(x)
    assert before.weights == spline.code(x[:1]).weights == ma.Spline(copy.deepcopy(net), x).code(x).weights
    assert (
        before.weights
        == spline.to(torch.float64).code(x.double()).weights
        == pickle.loads(pickle.dumps(before)).weights
    )
    unasked = spline.code(x)
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    after = spline.code(x)
    assert before.weights == unasked.weights != after.weights
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    never = spline.code(x)
    with torch.no_grad():
        net[0].weight[0, 0] += 1
    for lost in (never, pickle.loads(pickle.dumps(never)), never[:1]):
        with pytest.raises(ma.errors.InputError, match="trained on"):
            _ = lost.weights
    with pytest.raises(ma.errors.InputError, match="different weights"):
        concatenate([before, after])
    assert concatenate([before, before[:1]]).weights == before.weights


def test_constants_beside_the_weights_make_another_network() -> None:
    class Scaled(nn.Module):
        def __init__(self, limit: float, factor: float) -> None:
            super().__init__()
            self.line, self.limit, self.factor = nn.Linear(3, 4), limit, factor

        def forward(self, x: Tensor) -> Tensor:
            return torch.clamp(self.line(x) * self.factor, -self.limit, self.limit)

    def code(limit: float, factor: float, dtype: torch.dtype = torch.float32) -> ma.Code:
        torch.manual_seed(0)
        model, x = Scaled(limit, factor), torch.ones(5, 3)
        return ma.Spline(model, x[:1]).to(dtype).code(x.to(dtype))

    first = code(1.0, 2)
    assert first.weights == code(1.0, 2).weights == code(1, 2.0).weights == code(1.0, 2, torch.float64).weights
    assert len({first.weights, code(0.1, 2).weights, code(1.0, 3).weights}) == 3
    with pytest.raises(ma.errors.InputError, match="other weights"):
        ma.CodeIndex.build(first).search(code(0.1, 2), 1)
