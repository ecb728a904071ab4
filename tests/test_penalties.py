"""Penalties on weights: double loops, closed forms, dense matrices and exact eigenvalues judge."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from net import Of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import maxaffine as ma
from maxaffine.operators.layers import conv_matrix
from maxaffine.penalties import (
    Penalty,
    all_layers,
    convolutional_orthogonality,
    hard_orthogonality,
    last_layer,
    norm_control,
    orthogonality,
    remove_hard_orthogonality,
    soft_orthogonality,
    srip,
)

KINDS = ("sum", "mean", "cosine", "authors")
F64 = torch.float64


def matrix(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def orthonormal(C: int, D: int) -> Tensor:
    return torch.linalg.qr(matrix(D, C)).Q.T


def by_loops(W: Tensor, kind: str) -> float:
    """The formulas of the paper and of the authors' code, entry by entry."""
    C, D = W.shape
    total = 0.0
    for c1, c2 in product(range(C), repeat=2):
        inner = sum(float(W[c1, d] * W[c2, d]) for d in range(D))
        if kind == "cosine":
            inner /= float(W[c1].norm() * W[c2].norm())
        if c1 != c2:
            total += inner**2
        elif kind == "authors":
            total += (inner - sum(float(w) ** 2 for w in W[c1]) / D) ** 2
    return total if kind == "sum" else total / C**2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 7), (6, 3), (1, 5)])
def test_orthogonality_is_its_double_loop(kind: str, shape: tuple[int, int]) -> None:
    W = matrix(*shape)
    assert abs(float(orthogonality(W, kind)) - by_loops(W, kind)) < 1e-10 * (1 + by_loops(W, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_a_sum_or_a_mean(kind: str) -> None:
    stack = matrix(5, 3, 4)
    values = torch.stack([orthogonality(W, kind) for W in stack])
    wanted = values.sum() if kind == "sum" else values.mean()
    assert torch.allclose(orthogonality(stack, kind), wanted, rtol=1e-12)
    assert torch.allclose(norm_control(stack), torch.stack([norm_control(W) for W in stack]).mean(), rtol=1e-12)


def test_the_authors_code_is_mean_and_norm_control() -> None:
    for shape in ((4, 7), (6, 3), (3, 1)):
        W = matrix(*shape)
        assert torch.allclose(orthogonality(W, "authors"), orthogonality(W, "mean") + norm_control(W), rtol=1e-13)
    W = matrix(10, 64)
    assert 0.8 < float(norm_control(W) / orthogonality(W, "authors")) < 0.95  # about 88 % at the first weights


@pytest.mark.parametrize("kind", ["sum", "mean", "cosine"])
def test_zero_iff_the_rows_are_orthogonal(kind: str) -> None:
    rows = torch.tensor([[2.0], [0.5], [3.0]], dtype=F64) * orthonormal(3, 5)
    assert float(orthogonality(rows, kind)) < 1e-28
    rows[0] += 1e-3 * rows[1]
    assert float(orthogonality(rows, kind)) > 1e-10
    assert float(orthogonality(torch.zeros(3, 5, dtype=F64), kind)) == 0


def test_gradient_is_the_closed_form() -> None:
    W = matrix(4, 7).requires_grad_()
    (found,) = torch.autograd.grad(orthogonality(W), W)
    gram = (W @ W.T).detach()
    assert torch.allclose(found, 4 * (gram - gram.diagonal().diag()) @ W.detach(), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind: str) -> None:
    W = matrix(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda W: orthogonality(W, kind), W)
    assert torch.autograd.gradcheck(norm_control, W)
    assert torch.autograd.gradcheck(soft_orthogonality, W)
    assert torch.autograd.gradcheck(lambda W: srip(W, 300), W, atol=1e-5)
    assert torch.autograd.gradcheck(lambda K: convolutional_orthogonality(K, 2), matrix(2, 2, 3, 3).requires_grad_())


def test_gradcheck_finds_a_wrong_gradient() -> None:
    W = matrix(3, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda W: (W @ W.T.detach()).square().sum(), W)


def test_soft_orthogonality_takes_the_smaller_side() -> None:
    for C, D in ((3, 6), (6, 3), (4, 4)):
        W = matrix(C, D)
        rows, columns = W @ W.T - torch.eye(C), W.T @ W - torch.eye(D)
        assert torch.allclose(rows.square().sum(), columns.square().sum() + C - D)
        assert torch.allclose(soft_orthogonality(W), (rows if C <= D else columns).square().sum())
    assert float(soft_orthogonality(orthonormal(3, 5))) < 1e-28
    assert float(soft_orthogonality(orthonormal(3, 5).T)) < 1e-28


@pytest.mark.parametrize("shape", [(3, 6), (6, 3), (5, 5)])
def test_srip_is_the_exact_eigenvalue(shape: tuple[int, int]) -> None:
    W = matrix(*shape, seed=2) / 2
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    exact = (torch.linalg.eigvalsh(gram) - 1).abs().max()
    assert torch.allclose(srip(W, 500), exact, rtol=1e-10)
    assert float(srip(W, 2)) <= float(srip(W, 6)) <= float(exact)
    opposite = torch.diag(torch.tensor([1.5, 0.5, 1.0], dtype=F64)).sqrt()  # eigenvalues +1/2 and -1/2
    assert torch.allclose(srip(opposite, 50), torch.tensor(0.5, dtype=F64))
    assert float(srip(orthonormal(3, 5))) < 1e-14


# Convolutions: the doubly block-Toeplitz matrix, dense.

SETTINGS = [(3, 1, 1), (3, 2, 1), (2, 1, 1), (2, 2, 1), (3, 1, 2), ((3, 2), (1, 2), 1)]


def self_products(K: Tensor, stride: tuple[int, int], steps: tuple[int, int]) -> dict[tuple[int, int], Tensor]:
    """Inner products of the filters at shifts of q strides, by sliding them over each other on a canvas."""
    found = {}
    k, m = (steps[0] * (K.shape[2] - 1) + 1, steps[1] * (K.shape[3] - 1) + 1)
    for q0, q1 in product(range(-k, k + 1), range(-m, m + 1)):
        canvas = torch.zeros(2, len(K), K.shape[1], 30, 30, dtype=K.dtype)
        for layer, (a, b) in enumerate(((12, 12), (12 + q0 * stride[0], 12 + q1 * stride[1]))):
            canvas[layer, :, :, a : a + k : steps[0], b : b + m : steps[1]] = K
        found[q0, q1] = torch.einsum("ocij,pcij->op", canvas[0], canvas[1])
    return found


@pytest.mark.parametrize(("kernel", "stride", "dilation"), SETTINGS)
def test_convolutional_orthogonality_is_the_gram_of_the_block_toeplitz_matrix(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], dilation: int
) -> None:
    """|T T^T - I|^2 = sum_q n(q) |products at q - delta|^2 on 6 x 6 images, and the penalty is that with n(q) = 1."""
    ks = (kernel, kernel) if isinstance(kernel, int) else kernel
    ss = (stride, stride) if isinstance(stride, int) else stride
    K = matrix(2, 3, *ks)
    T, _ = conv_matrix(K, None, (3, 6, 6), ss, 0, dilation)
    products = self_products(K, ss, (dilation, dilation))
    out = [(6 - dilation * (k - 1) - 1) // s + 1 for k, s in zip(ks, ss, strict=True)]
    weighted = plain = 0.0
    for (q0, q1), value in products.items():
        error = float((value - (torch.eye(2) if (q0, q1) == (0, 0) else 0)).square().sum())
        weighted += max(0, out[0] - abs(q0)) * max(0, out[1] - abs(q1)) * error
        plain += error
    dense = float((T @ T.T - torch.eye(len(T))).square().sum())
    assert abs(weighted - dense) < 1e-10 * dense
    assert abs(float(convolutional_orthogonality(K, stride, dilation=dilation)) - plain) < 1e-10 * plain


def test_zero_iff_the_rows_of_the_block_toeplitz_matrix_are_orthonormal() -> None:
    K = torch.zeros(2, 3, 3, 3, dtype=F64)
    K[0, 0, 1, 1], K[1, 1, 0, 2] = 1, 1
    K[:, :, :] = torch.einsum("oc,cdij->odij", torch.linalg.qr(matrix(2, 2)).Q, K)
    T, _ = conv_matrix(K, None, (3, 6, 6))
    assert float((T @ T.T - torch.eye(len(T))).abs().max()) < 1e-14
    assert float(convolutional_orthogonality(K)) < 1e-28
    flat = K.clone()  # orthonormal as flattened filters is not enough
    flat[0, 0, 0, 0], flat[0, 0, 1, 1] = 0.6, 0.8
    flat[0, 1:], flat[1, 0] = 0, 0
    assert float(soft_orthogonality(F.normalize(flat.flatten(1)))) < 1e-12
    T, _ = conv_matrix(F.normalize(flat.flatten(1)).reshape_as(flat), None, (3, 6, 6))
    assert float((T @ T.T - torch.eye(len(T))).abs().max()) > 0.1
    assert float(convolutional_orthogonality(F.normalize(flat.flatten(1)).reshape_as(flat))) > 0.1
    # Zero padding cuts windows at the border: rows of the inside stay orthonormal, those at the border are shorter.
    padded, _ = conv_matrix(K, None, (3, 6, 6), 1, 1)
    error = (padded @ padded.T - torch.eye(len(padded))).unflatten(0, (2, 6, 6)).unflatten(3, (2, 6, 6))
    inside = error[:, 1:-1, 1:-1, :, 1:-1, 1:-1]
    assert float(inside.abs().max()) < 1e-14 and float(error.abs().max()) > 0.1


def test_convolutions_of_one_and_three_axes() -> None:
    for shape in ((3, 2, 3), (2, 2, 2, 2, 2)):
        K = matrix(*shape)
        grid = (6,) * (len(shape) - 2)
        T, _ = conv_matrix(K, None, (2, *grid))
        inner = (T @ T.T).unflatten(0, (shape[0], -1)).unflatten(2, (shape[0], -1))
        middle = inner.shape[1] // 2
        assert float(convolutional_orthogonality(K)) >= float(
            (inner[:, middle, :, middle] - torch.eye(shape[0])).square().sum()
        )


# Layers of a network.


class Tied(nn.Module):
    """Two modules with one weight, a functional head, a grouped and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, groups=2)
        self.up = nn.ConvTranspose2d(4, 2, 3)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.head = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.up(F.relu(self.conv(x)))).mean((2, 3)).repeat(1, 3)
        return F.relu(self.b(F.relu(self.a(h)))) @ self.head + 1.0


LOG = nn.LogSoftmax(1)


def backwards(m: Of, x: Tensor) -> Tensor:
    """The layer that was defined first is called last."""
    return m.a(F.relu(m.b(x)))


HEADS = {
    "sequential": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (4,), "2"),
    "log_softmax": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1)), nn.Flatten(), LOG), (4,), "0"),
    "conv 1x1": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        (2, 6, 6),
        "2",
    ),
    "order of definition": (lambda: Of(backwards, a=nn.Linear(5, 3), b=nn.Linear(4, 5)), (4,), "a"),
    "weight norm": (lambda: nn.Sequential(nn.ReLU(), parametrizations.weight_norm(nn.Linear(5, 3))), (5,), "1"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_the_last_layer_is_found_in_the_graph(name: str) -> None:
    build, shape, path = HEADS[name]
    model = build().train()
    layer = last_layer(model, torch.randn(2, *shape))
    weight = model.get_submodule(path).weight
    assert layer.path == path and torch.equal(layer.weight, weight.flatten(1)) and model.training
    with torch.no_grad():
        next(iter(model.get_submodule(path).parameters(recurse=True)))[:] += 1
        for p in model.get_submodule(path).parameters():
            p.mul_(2)
    assert torch.equal(layer.weight, model.get_submodule(path).weight.flatten(1))  # read anew
    orthogonality(layer.weight).backward()
    assert all(p.grad is not None for n, p in model.get_submodule(path).named_parameters() if "bias" not in n)


POOLED_HEADS = {
    "tokens": (lambda m, x: m.a(x).mean(1), (7, 5), nn.Linear(5, 4)),
    "channels last": (lambda m, x: m.a(x).permute(0, 2, 1).mean(2), (7, 5), nn.Linear(5, 4)),
    "swapped": (lambda m, x: m.a(x).transpose(1, 2).mean(-1, keepdim=True).squeeze(2), (7, 5), nn.Linear(5, 4)),
    "positions": (lambda m, x: m.a(x).mean((2, 3)), (2, 5, 5), nn.Conv2d(2, 4, 3)),
    "pooled": (lambda m, x: F.avg_pool2d(m.a(x), 3).flatten(1), (2, 5, 5), nn.Conv2d(2, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLED_HEADS)
def test_means_over_positions_keep_the_rows_of_the_classes(name: str) -> None:
    forward, shape, layer = POOLED_HEADS[name]
    found = last_layer(Of(forward, a=layer), torch.randn(2, *shape))
    assert torch.equal(found.weight, layer.weight.flatten(1))


def test_parts_of_one_tensor_are_layers_of_their_own() -> None:
    def forward(m: Of, x: Tensor) -> Tensor:
        first, second = m.a.weight[:6], m.a.weight[6:]
        h = F.linear(F.linear(x, first).relu(), second)
        return F.linear(h.relu(), first) @ second  # both once more, one of them turned

    model = Of(forward, a=nn.Linear(6, 12))
    layers, w = all_layers(ma.Spline(model, torch.zeros(1, 6))), model.a.weight
    assert [layer.rows.tolist() for layer in layers] == [[w[:6].tolist()], [w[6:].tolist()]]


def test_a_functional_head_and_tied_weights() -> None:
    model = Tied()
    x = torch.randn(2, 2, 5, 5)
    spline = ma.Spline(model.eval(), x)
    assert torch.equal(last_layer(spline).weight, model.head.T)
    modules = nn.ModuleDict({"conv": model.conv, "up": model.up, "a": model.a})
    by_graph, by_module = all_layers(spline), all_layers(modules)
    assert [layer.path for layer in by_module] == ["conv", "up", "a"]
    assert (
        [layer.path for layer in by_graph] == [layer.path for layer in all_layers(model, x)] == ["conv", "up", "a", ""]
    )
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(by_graph, by_module, strict=False))
    assert Penalty(spline, 1.0, on="all")().requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_filters_of_different_groups_are_orthogonal(kind: str) -> None:
    """A grouped convolution as one matrix: zeros where a filter does not look."""
    model = nn.Sequential(nn.Conv1d(6, 6, 2, groups=3)).double()
    rows = torch.block_diag(*model[0].weight.detach().unflatten(0, (3, 2)).flatten(2))
    wanted = orthogonality(rows, kind)
    if kind == "authors":  # the mean of squares is over the filter's own entries
        wanted = orthogonality(rows, "mean") + norm_control(model[0].weight.detach().flatten(1))
    assert torch.allclose(Penalty(model, 1.0, on="all", kind=kind)(), wanted)


def test_the_penalty_of_all_layers_is_the_sum() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    model = model.double()
    x = matrix(2, 2, 5, 5)
    conv, a, b = model[0].weight, model[3].weight, model[5].weight
    for kind in KINDS:
        wanted = sum(orthogonality(w.flatten(1), kind) for w in (conv, a, b))
        assert torch.allclose(Penalty(model, 0.3, on="all", kind=kind)(), 0.3 * wanted)
        assert torch.allclose(Penalty(ma.Spline(model, x), 0.3, on="all", kind=kind)(), 0.3 * wanted)
    soft = sum(soft_orthogonality(w.flatten(1)) for w in (conv, a, b))
    assert torch.allclose(Penalty(model, 2, on="all", kind="soft")(), 2 * soft)
    wanted = convolutional_orthogonality(conv, 2) + soft_orthogonality(a) + soft_orthogonality(b)
    assert torch.allclose(Penalty(model, 1, on="all", kind="convolutional")(), wanted)
    assert torch.allclose(Penalty(model, 1, on="last", kind="srip", example=x)(), srip(b))
    penalty = Penalty(model, 1.0, on="last", example=x)
    assert torch.equal(penalty(), orthogonality(b))
    penalty.gamma = 0
    assert float(penalty()) == 0
    with pytest.raises(ma.errors.InputError, match="gamma=-1"):
        penalty.gamma = -1


def mixed() -> nn.Module:
    """A linear module, and a matrix that no module of torch's owns."""
    model = Of(lambda m, x: F.relu(m.a(x)) @ m.own, a=nn.Linear(4, 8)).double()
    model.own = nn.Parameter(torch.randn(8, 3, dtype=torch.float64))
    return model


def test_a_matrix_that_no_module_owns_is_a_layer_or_refused() -> None:
    """The scan of the modules would leave it out."""
    model, x = mixed(), torch.randn(5, 4, dtype=torch.float64)
    wanted = orthogonality(model.a.weight) + orthogonality(model.own.mT)
    assert torch.allclose(Penalty(model, 1, on="all", example=x)(), wanted)
    assert torch.allclose(Penalty(ma.Spline(model, x), 1, on="all")(), wanted)
    with pytest.raises(ma.errors.InputError, match=r"'own' \(8, 3\) belongs to no nn.Linear .* give example=x"):
        Penalty(model, 1, on="all")
    embedded = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm((3, 4)), nn.Linear(4, 2), nn.PReLU(2))
    assert [layer.path for layer in all_layers(embedded)] == ["2"]


@pytest.mark.parametrize("on", ["last", "all", "templates"])
def test_a_replaced_layer_is_not_forgotten(on: str) -> None:
    """A new parameter in the old module is followed; of a new module the penalty would never hear."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(6, 4)
    penalty = Penalty(net, 1.0, on=on, example=x)
    before = penalty(x).item()
    net[2].weight = nn.Parameter(2 * net[2].weight.detach())
    assert penalty(x).item() > 2 * before
    copied = copy.deepcopy(penalty)
    net[2] = nn.Linear(5, 3)
    with pytest.raises(ma.errors.InputError, match=r"a layer of the model was replaced .* make a new Penalty"):
        penalty(x)
    assert copied(x).item() > 2 * before  # its network has its old head
    assert Penalty(net, 1.0, on=on, example=x)(x).item() != before


def test_training_with_the_penalty_makes_the_rows_orthogonal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).train()
    x, y = torch.randn(40, 6), torch.arange(40) % 4
    penalty = Penalty(model, 1.0, example=x)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    before = float(orthogonality(model[3].weight.detach(), "cosine"))
    for _ in range(60):
        optimiser.zero_grad()
        (F.cross_entropy(model(x), y) + penalty(x)).backward()
        optimiser.step()
    assert float(orthogonality(model[3].weight.detach(), "cosine")) < before / 5


# Hard orthogonality.


@pytest.mark.parametrize("on", ["last", "all"])
def test_hard_orthogonality_and_its_removal(on: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2, bias=False), nn.Flatten(), nn.Linear(50, 3)
    ).double()  # fmt: skip
    x, y = matrix(8, 2, 6, 6), torch.arange(8) % 3
    paths = hard_orthogonality(model, on, x)
    assert paths == (("4",) if on == "last" else ("0", "2", "4"))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    first = model[4].weight.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    assert not torch.allclose(model[4].weight, first, atol=1e-3)
    out = model(x)
    assert remove_hard_orthogonality(model) == paths
    assert torch.allclose(model(x), out, atol=1e-12) and isinstance(model[4].weight, nn.Parameter)
    for layer in all_layers(model):
        if layer.path in paths:
            for rows in layer.rows:
                assert soft_orthogonality(rows) < 1e-20


def test_hard_orthogonality_refuses_what_it_would_tear_apart() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(ma.errors.InputError, match="shared by two modules"):
        hard_orthogonality(tied, "all")
    model = nn.Sequential(nn.Linear(4, 3))
    hard_orthogonality(model, "all")
    with pytest.raises(ma.errors.InputError, match="parametrized already"):
        hard_orthogonality(model, "all")
    with pytest.raises(ma.errors.InputError, match="unknown"):
        hard_orthogonality(model, "some")


# Bad input: one clear line.

LINEAR = nn.Linear(3, 2)
BAD = {
    "rank": (lambda: orthogonality(torch.zeros(3)), r"shape \(3,\)"),
    "filters in place of rows": (
        lambda: orthogonality(torch.zeros(4, 3, 5, 5)),
        r"shape \(4, 3, 5, 5\); give floating-point rows .* of a convolution W\.flatten\(1\)",
    ),
    "norms of filters": (lambda: norm_control(torch.zeros(4, 3, 5, 5)), r"shape \(4, 3, 5, 5\)"),
    "list": (lambda: orthogonality([[1.0, 2.0]]), "W is a list; give floating-point rows"),
    "sparse": (lambda: orthogonality(torch.eye(2).to_sparse()), "sparse_coo tensor"),
    "array": (lambda: soft_orthogonality(np.eye(2)), "W is a ndarray; give a floating-point matrix"),
    "no filters": (lambda: convolutional_orthogonality(None), "K is None; give floating-point filters"),
    "kind of no word": (lambda: orthogonality(torch.eye(2), ["sum"]), r"kind=\['sum'\] is unknown"),
    "step": (lambda: srip(torch.eye(2), 1.5), "steps is 1.5; give a whole number >= 1"),
    "half a stride": (lambda: convolutional_orthogonality(torch.zeros(2, 2, 3, 3), 1.5), "stride=1.5 does not fit"),
    "integers": (lambda: orthogonality(torch.zeros(3, 2, dtype=torch.long)), "int64"),
    "kind": (lambda: orthogonality(torch.zeros(3, 2), "total"), "kind='total' is unknown; choose one of sum"),
    "soft rank": (lambda: soft_orthogonality(torch.zeros(2, 3, 2)), r"matrix \(C, D\) is needed"),
    "steps": (lambda: srip(torch.zeros(2, 2), 0), "steps is 0; give a whole number >= 1"),
    "filters": (lambda: convolutional_orthogonality(torch.zeros(2, 2)), "one to three kernel axes"),
    "stride": (lambda: convolutional_orthogonality(torch.zeros(2, 2, 3, 3), (1, 2, 3)), r"stride=\(1, 2, 3\)"),
    "padding": (lambda: convolutional_orthogonality(torch.zeros(2, 2, 3, 3), 2, 1), "no multiple of stride"),
    "negative": (lambda: Penalty(LINEAR, -0.1, on="all"), "gamma=-0.1; a finite number >= 0 is needed"),
    "nan": (lambda: Penalty(LINEAR, float("nan"), on="all"), "gamma=nan"),
    "infinite": (lambda: Penalty(LINEAR, float("inf"), on="all"), "gamma=inf"),
    "gamma in words": (lambda: Penalty(LINEAR, "0.1", on="all"), "gamma='0.1'; a finite number >= 0 is needed"),
    "gamma of several": (
        lambda: Penalty(LINEAR, torch.ones(2), on="all"),
        r"gamma=a torch.float32 tensor of shape \(2,\)",
    ),
    "no gamma": (lambda: Penalty(LINEAR, None, on="all"), "gamma=None"),
    "kind in a list": (lambda: Penalty(LINEAR, 1, on="all", kind=["sum"]), r"kind=\['sum'\] is unknown"),
    "share in words": (lambda: Penalty(LINEAR, 1, on="templates", share="0.2"), "share='0.2'"),
    "seed in place of a generator": (
        lambda: Penalty(LINEAR, 1, on="templates", generator=3),
        "generator is 3; give a torch.Generator or None",
    ),
    "an array as batch": (lambda: Penalty(LINEAR, 1, on="templates")(np.zeros((2, 3))), "x is a ndarray"),
    "lazy": (
        lambda: Penalty(nn.Sequential(nn.LazyLinear(3)), 1, on="all"),
        "layer '0' has no shape yet; run the model",
    ),
    "mean over classes": (
        lambda: last_layer(Of(lambda m, x: m.a(x).unflatten(1, (3, 4)).mean(2), a=nn.Linear(5, 12)), torch.zeros(1, 5)),
        "no final linear layer: its output comes from aten.mean.dim",
    ),
    "pooling over classes": (
        lambda: last_layer(
            Of(lambda m, x: F.avg_pool1d(m.a(x).unsqueeze(1), 4), a=nn.Linear(5, 12)), torch.zeros(1, 5)
        ),
        "no final linear layer: its output comes from aten.avg_pool1d",
    ),
    "mean of filters": (
        lambda: last_layer(Of(lambda m, x: m.a(x).mean(1), a=nn.Conv1d(2, 4, 3)), torch.zeros(1, 2, 5)),
        "no final linear layer: its output comes from aten.mean.dim",
    ),
    "on": (lambda: Penalty(LINEAR, 1, on="first"), "on='first' is unknown"),
    "penalty kind": (lambda: Penalty(LINEAR, 1, on="all", kind="l2"), "kind='l2' is unknown on='all'"),
    "template kind": (lambda: Penalty(LINEAR, 1, on="templates", kind="soft"), "unknown on='templates'"),
    "share": (lambda: Penalty(LINEAR, 1, on="templates", share=0), "share=0"),
    "share of weights": (lambda: Penalty(LINEAR, 1, on="all", share=0.5), "does not depend on the batch"),
    "no batch": (lambda: Penalty(LINEAR, 1, on="templates")(), r"call penalty\(x\)"),
    "no example": (lambda: Penalty(LINEAR, 1), "give example=x"),
    "no model": (lambda: last_layer("net", torch.zeros(1, 3)), "the model is a str"),
    "no model at all": (lambda: Penalty(3, 1, on="all"), "the model is 3; give an nn.Module or a maxaffine.Spline"),
    "attention": (
        lambda: all_layers(nn.MultiheadAttention(4, 2)),
        r"'in_proj_weight' \(12, 4\) belongs to no nn.Linear",
    ),
    "hard matrices": (lambda: hard_orthogonality(mixed(), "all"), r"'own' \(8, 3\) is the weight of no nn.Linear"),
    "hard spline": (lambda: remove_hard_orthogonality("net"), "the model is 'net'; give an nn.Module"),
    "a stride that is true": (
        lambda: convolutional_orthogonality(torch.ones(2, 2, 3, 3), stride=True),
        "stride=True does not fit",
    ),
    "no layer": (lambda: Penalty(nn.ReLU(), 1, on="all"), "no linear and no convolution layer"),
    "no last layer": (
        lambda: last_layer(nn.Sequential(LINEAR, nn.ReLU()), torch.zeros(1, 3)),
        "no final linear layer: its output comes from aten.relu.default in module '1'",
    ),
    "two branches": (
        lambda: last_layer(Of(lambda m, x: m.a(x) + F.relu(m.a(x)), a=LINEAR), torch.zeros(1, 3)),
        "no final linear layer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(ma.errors.InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_autocast_does_not_reach_the_penalty() -> None:
    model = copy.deepcopy(LINEAR)
    penalty = Penalty(model, 1.0, on="all")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = penalty()
    assert inside.dtype == torch.float32 and torch.equal(inside, penalty())
