"""Layers and compositions as one explicit MASO (Theorem 2), against the operators one after another."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maxaffine.errors import InputError, MemoryBudgetError
from maxaffine.operators import layers
from maxaffine.operators.composition import add, compose, layer
from maxaffine.operators.maso import MASO, without_repeats
from maxaffine.operators.recurrent import recurrent_cell

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def law_one_maso(one: MASO, network: Callable[[Tensor], Tensor], x: Tensor) -> None:
    torch.testing.assert_close(one(x), network(x).flatten(1), rtol=1e-12, atol=1e-12)


def slow_pieces(outer: MASO, inner: MASO, k: int) -> list[tuple[Tensor, Tensor]]:
    """Every (r; r_1 ... r_J) of output k, written as in the theorem."""
    found = []
    for r in range(outer.R):
        for chosen in itertools.product(range(inner.R), repeat=inner.K):
            slope = sum(outer.A[k, r, j] * inner.A[j, chosen[j]] for j in range(inner.K))
            offset = outer.B[k, r] + sum(outer.A[k, r, j] * inner.B[j, chosen[j]] for j in range(inner.K))
            found.append((slope, offset))
    return found


def test_composition_has_all_combinations_of_pieces() -> None:
    outer, inner = MASO(randn(2, 3, 4).abs(), randn(2, 3)), MASO(randn(4, 2, 3), randn(4, 2))
    one, x = compose(outer, inner), 2 * randn(200, 3)
    assert one.R == 3 * 2**4
    law_one_maso(one, lambda v: outer(inner(v)), x)
    for k in range(2):
        slow = slow_pieces(outer, inner, k)
        torch.testing.assert_close(one.A[k], torch.stack([a for a, _ in slow]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.B[k], torch.stack([b for _, b in slow]), rtol=1e-12, atol=1e-12)


def test_the_law_fails_without_the_condition() -> None:
    """Signs ignored, the combinations are not the network: the refusal is needed."""
    outer, inner = MASO(randn(2, 1, 3), randn(2, 1)), MASO(randn(3, 2, 2), randn(3, 2))
    blind = [slow_pieces(outer, inner, k) for k in range(2)]
    wrong = MASO(
        torch.stack([torch.stack([a for a, _ in unit]) for unit in blind]),
        torch.stack([torch.stack([b for _, b in unit]) for unit in blind]),
    )
    with pytest.raises(AssertionError):
        law_one_maso(wrong, lambda v: outer(inner(v)), randn(200, 2))
    with pytest.raises(InputError):
        compose(outer, inner)


def test_a_small_convex_network_is_one_maso_of_256_pieces() -> None:
    """2-3-2-2, weights >= 0 from layer 2 on: the global MASO is the network on 200 points."""
    W = [randn(3, 2), randn(2, 3).abs(), randn(2, 2).abs()]
    b = [randn(3), randn(2), randn(2)]

    def network(x: Tensor) -> Tensor:
        for w, c in zip(W, b, strict=True):
            x = F.relu(x @ w.T + c)
        return x

    one = layer(layers.dense(W[0], b[0]), layers.relu(3, dtype=F64))
    for w, c in zip(W[1:], b[1:], strict=True):
        one = compose(layers.relu(2, dtype=F64), compose(layers.dense(w, c), one))
    law_one_maso(one, network, 2 * randn(200, 2))
    small = without_repeats(one)
    assert small.R <= one.R
    law_one_maso(small, network, 2 * randn(200, 2))


def test_the_refusal_names_the_weight() -> None:
    outer = randn(3, 4).abs()
    outer[1, 2] = -0.25
    hidden = layer(layers.dense(randn(4, 2), randn(4)), layers.relu(4, dtype=F64))
    with pytest.raises(InputError, match=r"A\[1, 0, 2\] = -0.25 .* unit 2"):
        compose(layers.dense(outer), hidden)
    with pytest.raises(InputError, match=r"A\[0, 0, 0\] = -1 "):
        compose(layers.absolute(4, dtype=F64), hidden)
    with pytest.raises(InputError, match="reads 5 values, the inner one gives 4"):
        compose(layers.relu(5, dtype=F64), hidden)


def test_an_affine_unit_may_be_taken_with_any_sign() -> None:
    """The input-convex passthrough: hidden units are joined with the input itself."""
    hidden = layer(layers.dense(randn(3, 2), randn(3)), layers.relu(3, dtype=F64))
    joined = MASO(
        torch.cat([hidden.A, torch.eye(2, dtype=F64)[:, None].repeat(1, 2, 1)]),
        torch.cat([hidden.B, torch.zeros(2, 2, dtype=F64)]),
    )
    weight = torch.cat([randn(2, 3).abs(), randn(2, 2)], dim=1)
    one = compose(layers.dense(weight), joined)
    law_one_maso(one, lambda x: joined(x) @ weight.T, randn(200, 2))
    assert one.R == 2**3


def test_memory_is_guarded_before_anything_is_built() -> None:
    wide = layer(layers.dense(randn(60, 5)), layers.relu(60, dtype=F64))
    with pytest.raises(MemoryBudgetError, match=r"K=1, R=1\.15292e\+18, D=5 would need .* GiB"):
        compose(layers.dense(randn(1, 60).abs()), wide)
    with pytest.raises(MemoryBudgetError, match="memory="):
        compose(
            layers.dense(randn(1, 3).abs()),
            layer(layers.dense(randn(3, 5)), layers.relu(3, dtype=F64)),
            memory=300,
        )
    with pytest.raises(MemoryBudgetError):
        add(wide, wide, memory=1000)


ACTIVATIONS = {
    "relu": (layers.relu, F.relu),
    "leaky": (lambda n, dtype: layers.leaky_relu(n, 0.1, dtype=dtype), lambda u: F.leaky_relu(u, 0.1)),
    "abs": (layers.absolute, torch.abs),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_linear_and_activation_as_one_maso(name: str) -> None:
    """[A]_{k,r} = W^T [A_s]_{k,r} and [B]_{k,r} = [B_s]_{k,r} + <[A_s]_{k,r}, b>, entry by entry."""
    make, oracle = ACTIVATIONS[name]
    W, b = randn(5, 3), randn(5)
    sigma = make(5, dtype=F64)
    one = layer(layers.dense(W, b), sigma)
    assert one.R == 2
    for k, r in itertools.product(range(5), range(2)):
        torch.testing.assert_close(one.A[k, r], W.T @ sigma.A[k, r], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.B[k, r], sigma.B[k, r] + sigma.A[k, r] @ b, rtol=1e-12, atol=1e-12)
    law_one_maso(one, lambda x: oracle(x @ W.T + b), randn(100, 3))
    with pytest.raises(AssertionError):
        law_one_maso(layer(layers.dense(W), sigma), lambda x: oracle(x @ W.T + b), randn(100, 3))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_convolution_activation_and_max_pooling_as_one_maso(name: str) -> None:
    """ReLU: R = 1 + #R_k; leaky ReLU and absolute value: R = 2 #R_k."""
    make, oracle = ACTIVATIONS[name]
    weight, bias, x = randn(3, 2, 3, 3), randn(3), randn(30, 2, 6, 6)
    linear = layers.dense(*layers.conv_matrix(weight, bias, (2, 6, 6), padding=1))
    one = layer(linear, make(linear.K, dtype=F64), layers.max_pool((3, 6, 6), 3, 2, 1, dtype=F64))
    expected = 1 + 9 if name == "relu" else 2 * 9
    assert expected == one.R
    law_one_maso(
        lambda v: one(v.flatten(1)),
        lambda v: F.max_pool2d(oracle(F.conv2d(v, weight, bias, padding=1)), 3, 2, 1),
        x,
    )


def test_relu_and_average_pooling_need_all_sign_combinations() -> None:
    W, b = randn(4, 3), randn(4)
    one = layer(layers.dense(W, b), layers.relu(4, dtype=F64), layers.average_pool((1, 4), 4, dtype=F64))
    assert one.R == 2**4
    law_one_maso(one, lambda x: F.relu(x @ W.T + b).mean(1, keepdim=True), randn(200, 3))


def test_pooling_before_a_monotone_activation() -> None:
    W = randn(6, 3)
    one = layer(layers.dense(W), layers.max_pool((1, 6), 3, dtype=F64), layers.relu(2, dtype=F64))
    assert one.R == 1 + 3
    law_one_maso(one, lambda x: F.relu((x @ W.T).unflatten(1, (2, 3)).amax(2)), randn(100, 3))


def test_residual_blocks() -> None:
    """s(C z + b) + C_skip z + b_skip, and u + ReLU(u) = max(u, 2u)."""
    C, b, C_skip, b_skip, x = randn(4, 3), randn(4), randn(4, 3), randn(4), randn(100, 3)
    block = add(layer(layers.dense(C, b), layers.relu(4, dtype=F64)), layers.dense(C_skip, b_skip))
    assert block.R == 2
    law_one_maso(block, lambda z: F.relu(z @ C.T + b) + z @ C_skip.T + b_skip, x)
    A, B = block.selected(x)
    for n in range(len(x)):  # A[x] = A_s C + C_skip
        active = torch.diag((C @ x[n] + b > 0).double())
        torch.testing.assert_close(A[n], active @ C + C_skip, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(B[n], active @ b + b_skip, rtol=1e-12, atol=1e-12)
    identity = add(layers.identity(3, dtype=F64), layers.relu(3, dtype=F64))
    assert torch.equal(identity.A, MASO(torch.stack([torch.eye(3), 2 * torch.eye(3)], 1).double(), block.B[:3]).A)
    with pytest.raises(InputError, match="same spaces"):
        add(block, layers.identity(3, dtype=F64))


def test_sum_of_two_bent_operators() -> None:
    p, q = MASO(randn(2, 3, 4), randn(2, 3)), MASO(randn(2, 2, 4), randn(2, 2))
    assert add(p, q).R == 6
    law_one_maso(add(p, q), lambda x: p(x) + q(x), randn(200, 4))


def test_recurrent_layer_with_non_negative_recurrence_is_one_maso() -> None:
    """Two steps: the second cell reads the first one with W_r >= 0, so Theorem 2 holds in (x_1, x_2, h_0)."""
    W, Wr, b = randn(2, 2), randn(2, 2).abs(), randn(2)
    cell = recurrent_cell(W, Wr, b, layers.relu(2, dtype=F64))
    keep = torch.eye(6, dtype=F64)  # inputs (x_1, x_2, h_0)
    first = compose(cell, layers.dense(torch.cat([keep[0:2], keep[4:6]])))
    joined = MASO(
        torch.cat([keep[2:4, None].repeat(1, first.R, 1), first.A]),
        torch.cat([first.B.new_zeros(2, first.R), first.B]),
    )
    one = compose(cell, joined)
    law_one_maso(
        one,
        lambda z: cell(torch.cat([z[:, 2:4], cell(torch.cat([z[:, :2], z[:, 4:]], 1))], 1)),
        randn(200, 6),
    )
    with pytest.raises(InputError, match="negative"):
        compose(recurrent_cell(W, -Wr, b, layers.relu(2, dtype=F64)), joined)
