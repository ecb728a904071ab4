"""Power diagrams and K-means: assignment by power distance is the code, and where it is not."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import maxaffine as ma
from maxaffine import codebook
from maxaffine.operators.maso import MASO


def points(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn_maso(units: int, pieces: int, dimension: int) -> MASO:
    return MASO(points(units * pieces, dimension, 1).reshape(units, pieces, dimension), points(units, pieces, 2))


def test_power_is_squared_distance_less_radius() -> None:
    diagram = codebook.PowerDiagram(points(5, 3, 1), points(1, 5, 2)[0])
    x = points(40, 3)
    table = (x[:, None] - diagram.centroids[None]).square().sum(2) - diagram.radii
    assert torch.allclose(diagram.power(x), table) and torch.equal(diagram.assign(x), table.argmin(1))
    assert torch.equal(diagram.nearest(x), torch.cdist(x, diagram.centroids).argmin(1))
    assert len(diagram) == 5


def test_unit_and_layer_cells_are_those_of_the_maso() -> None:
    maso, x = drawn_maso(4, 3, 5), points(500, 5)
    code = maso.code(x)
    for k in range(4):
        assert torch.equal(codebook.unit_diagram(maso, k).assign(x), code[:, k])
    words = codebook.codewords(4, 3)
    assert words.tolist() == [list(word) for word in itertools.product(range(3), repeat=4)]
    assert torch.equal(words[codebook.layer_diagram(maso).assign(x)], code)
    some = code.unique(dim=0)
    assert torch.equal(some[codebook.layer_diagram(maso, some).assign(x)], code)


def test_the_tie_makes_k_means_and_only_the_tie() -> None:
    """Row 38: with B = -|A|^2/2 the largest piece is the nearest centroid on all points; without it, it is not."""
    free, x = drawn_maso(3, 4, 6), points(1000, 6)
    tied = codebook.tied(free.A)
    nearest = torch.stack([torch.cdist(x, a).argmin(1) for a in free.A], 1)
    assert torch.equal(tied.code(x), nearest) and not torch.equal(free.code(x), nearest)
    diagram = codebook.unit_diagram(tied, 0)
    assert torch.allclose(diagram.radii, torch.zeros(4, dtype=torch.float64), atol=1e-14)


def test_tied_layers_train_and_are_captured() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 1, 8, 8)
    net = nn.Sequential(
        *(codebook.TiedConv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        *(codebook.TiedMaxout(96, 5, 3), codebook.TiedLinear(5, 4)),
    )
    before = net[3].centroids.clone()
    loss = nn.functional.cross_entropy(net(x), torch.arange(64) % 4)
    loss.backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert not torch.equal(before, net[3].centroids) and [n for n, _ in net.named_parameters() if "bias" in n] == []
    net, x = net.eval().double(), x.double()
    spline = ma.Spline(net, x[:1])
    h = net[:3](x)
    nearest = torch.stack([torch.cdist(h, a).argmin(1) for a in net[3].centroids], 1)
    assert torch.equal(spline.code(x)["3.amax"].long(), nearest)
    assert torch.equal(net(x).argmax(1), torch.cdist(net[:4](x), net[4].weight).argmin(1))
    maso = ma.maso_of(spline, "3.amax")
    assert torch.allclose(maso.B, -maso.A.square().sum(2) / 2)
    patches = nn.functional.unfold(x, 3, padding=1, stride=2).mT
    assert torch.equal(net[0](x).argmax(1).flatten(1), torch.cdist(patches, net[0].weight.flatten(1)).argmin(2))


def test_joint_and_factorial_codes() -> None:
    """Row 40: no mismatch where pieces of different units are orthogonal and offsets tied, many otherwise."""
    x = points(200, 12)
    basis = torch.linalg.qr(points(12, 12, 3))[0].reshape(4, 3, 12)
    mixing = points(12, 3, 5).reshape(4, 3, 3)
    orthogonal = codebook.tied(mixing @ basis)  # within a unit the pieces need not be orthogonal
    assert torch.equal(codebook.joint_code(orthogonal, x), orthogonal.code(x))
    assert torch.allclose(codebook.layer_diagram(orthogonal).radii, torch.zeros(81, dtype=torch.float64), atol=1e-12)
    free = codebook.tied(points(12, 12, 4).reshape(4, 3, 12))
    assert (codebook.joint_code(free, x) != free.code(x)).any(1).sum() > 100
    untied = MASO(basis, points(4, 3, 6))
    assert (codebook.joint_code(untied, x) != untied.code(x)).any(1).sum() > 100


def test_a_linear_head_is_a_power_diagram() -> None:
    for bias in (True, False):
        head, z = nn.Linear(7, 10, bias=bias).double(), points(500, 7)
        W, b = head.weight.detach(), None if head.bias is None else head.bias.detach()
        diagram = codebook.head_diagram(W, b)
        assert torch.equal(diagram.assign(z), head(z).argmax(1))
        assert torch.allclose(diagram.centroids, W / 2)
        best = diagram.power(z).topk(2, largest=False).values
        margins = head(z).topk(2).values
        assert torch.allclose(best[:, 1] - best[:, 0], margins[:, 0] - margins[:, 1])


class Pooling(nn.Module):
    """ReLU, max-pooling, leaky ReLU and a maximum of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.pool = nn.Linear(3, 8), nn.Linear(4, 5), nn.Linear(4, 5), nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(torch.relu(self.a(x))[:, None])[:, 0]
        return torch.maximum(nn.functional.leaky_relu(self.b(h), 0.1), self.c(h))


@pytest.fixture(scope="module")
def spline() -> ma.Spline:
    torch.manual_seed(3)
    return ma.Spline(Pooling().double(), torch.zeros(1, 3, dtype=torch.float64))


def test_inside_one_cell_each_layer_is_a_power_diagram(spline: ma.Spline) -> None:
    """Row 39: among points of one cell of the operators before, the power distance assigns every point its code."""
    x = points(6000, 3)
    code, before, used = spline.code(x), [], 0
    for operator in spline.operators:
        groups = codebook.cells(code, before) if before else torch.zeros(len(x)).numpy()
        for group in range(int(groups.max()) + 1):
            rows = torch.from_numpy(groups == group).nonzero()[:, 0]
            if len(rows) < 30:
                continue
            diagram = codebook.network_diagram(spline, x[rows], operator.name)
            mine = codebook.part(code[rows], operator.name)
            words = torch.from_numpy(codebook.cells(mine))
            firsts = torch.stack([(words == k).nonzero()[0, 0] for k in range(int(words.max()) + 1)])
            one_each = codebook.PowerDiagram(diagram.centroids[firsts], diagram.radii[firsts])
            assert torch.equal(one_each.assign(x[rows]), words)
            used += len(firsts) > 1
        before.append(operator.name)
    assert used > 30


def test_centroid_and_radius_are_those_of_the_jacobian(spline: ma.Spline) -> None:
    """mu = J^T 1 and rad = |mu|^2 + 2 1^T b of the map to the operator's output, J by autograd of the model."""
    net, x = Pooling().double(), points(5, 3, 4)
    seen = ma.Spline(net, x[:1])

    def pooled(z: Tensor) -> Tensor:
        return net.pool(torch.relu(net.a(z))[:, None])[:, 0]

    diagram = codebook.network_diagram(seen, x, "pool")
    for row in range(5):
        J = torch.autograd.functional.jacobian(lambda z: pooled(z[None])[0], x[row])
        b = pooled(x[row : row + 1])[0] - J @ x[row]
        assert torch.allclose(diagram.centroids[row], J.sum(0))
        assert torch.allclose(diagram.radii[row], J.sum(0).square().sum() + 2 * b.sum())


def test_the_layer_alone_has_one_diagram() -> None:
    """From the operator before it, a layer is one MASO: the rows of network_diagram are cells of layer_diagram."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU()).double()
    x = points(800, 3)
    spline = ma.Spline(net, x[:1])
    hidden, code = torch.relu(net[0](x)).detach(), spline.code(x)["3"].long()
    rows = codebook.network_diagram(spline, x, "3", input="1")
    own = codebook.layer_diagram(ma.maso_of(spline, "3"))
    words = codebook.codewords(5, 2)
    place = (code[:, None] == words[None]).all(2).long().argmax(1)
    assert torch.allclose(rows.centroids, own.centroids[place]) and torch.allclose(rows.radii, own.radii[place])
    assert torch.equal(words[own.assign(hidden)], code)


def two_layers() -> tuple[nn.Sequential, ma.Spline, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU()).double()
    x = 2 * points(4000, 2)
    return net, ma.Spline(net, x[:1]), x


def test_a_two_layer_network_is_not_one_power_diagram() -> None:
    """Row 39 read strictly: the cells subdivide cells. Cells of the second layer's code are not even convex, which
    those of any power diagram are; and J^T 1, b of all cells together do not assign points to their own."""
    _, spline, x = two_layers()
    code = spline.code(x)
    last = codebook.part(code, "3")
    i, j = torch.arange(0, 2000), torch.arange(2000, 4000)
    together = (last[i] == last[j]).nonzero()[:, 0]
    middle = codebook.part(spline.code((x[i] + x[j])[together] / 2), "3")
    assert (~(middle == last[i[together]])).sum() > 10
    diagram = codebook.network_diagram(spline, x, "3")
    wrong = ~(code[diagram.assign(x)] == code)
    assert wrong.sum() > 400


def test_weighting_the_layers_steeply_makes_it_one() -> None:
    """The joint cells do have a convex potential, g = M sum |z1| + sum |z2|: kinks of |z2| at the first layer's walls
    are outweighed for large M. Its gradients and offsets are centroids and radii that assign every point."""
    _, spline, x = two_layers()
    code = spline.code(x)
    signs = [2.0 * code[name].double() - 1 for name in ("1", "3")]
    for steep, right in ((0.0, False), (100.0, True)):
        mu, offset = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.float64)
        for name, weight, sign in zip(("1", "3"), (steep, 1.0), signs, strict=True):
            f = spline.at(x, output=name)
            mu += weight * f.vm(sign)
            offset += weight * (sign * f.b).sum(1)
        diagram = codebook.PowerDiagram(mu.detach(), (mu.square().sum(1) + 2 * offset).detach())
        assert bool((code[diagram.assign(x)] == code).all()) == right


def test_pieces_that_do_not_compete_have_no_diagram() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    for layer in (nn.Hardtanh(), nn.LeakyReLU(1.5), nn.ReLU6()):
        with pytest.raises(ma.errors.InputError, match="not convex"):
            codebook.network_diagram(ma.Spline(nn.Sequential(nn.Flatten(), layer), x), x, "1")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: codebook.unit_diagram(m, 4), "from 0 to 3"),
        (lambda m: codebook.layer_diagram(m, torch.zeros(2, 3, dtype=torch.long)), r"\(M, 4\)"),
        (lambda m: codebook.layer_diagram(m, torch.full((2, 4), 3)), "pieces 0 to 2"),
        (lambda m: codebook.layer_diagram(m, 5), r"codes is 5; give whole numbers \(M, 4\)"),
        (lambda _: codebook.head_diagram(torch.zeros(3, 2), 5), "bias is 5"),
        (lambda m: codebook.network_diagram(m, torch.zeros(1, 2), "1"), "spline is a MASO"),
        (lambda _: codebook.PowerDiagram(torch.zeros(3, 2), torch.zeros(2)), "M >= 1"),
        (lambda m: codebook.unit_diagram(m, 0).assign(torch.zeros(2, 4).double()), r"\(N, 5\)"),
        (lambda _: codebook.head_diagram(torch.zeros(3)), r"\(C, D\)"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(ma.errors.InputError, match=said) as error:
        call(drawn_maso(4, 3, 5))
    assert "\n" not in str(error.value)


def test_codebooks_too_large_to_write_down() -> None:
    with pytest.raises(ma.errors.MemoryBudgetError, match=r"2\^17"):
        codebook.codewords(17, 2)
