"""The explicit MASO and the layers as MASOs, judged by loops from the definition and by the framework."""

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maxaffine.errors import InputError
from maxaffine.operators import layers
from maxaffine.operators.composition import layer
from maxaffine.operators.maso import MASO, from_pieces, pieces, soft_code, soft_value, without_repeats
from maxaffine.operators.recurrent import Unrolled, recurrent_cell, unroll

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def slow_value(A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """max_r (sum_d A[k, r, d] x[d] + B[k, r]), one number at a time."""
    out = torch.empty(len(x), len(A), dtype=x.dtype)
    for n, k in itertools.product(range(len(x)), range(len(A))):
        terms = [sum(a * v for a, v in zip(A[k, r].tolist(), x[n].tolist(), strict=True)) for r in range(len(A[k]))]
        out[n, k] = max(t + b for t, b in zip(terms, B[k].tolist(), strict=True))
    return out


def slow_code(A: Tensor, B: Tensor, x: Tensor) -> Tensor:
    """The first piece that reaches the maximum."""
    out = torch.empty(len(x), len(A), dtype=torch.long)
    for n, k in itertools.product(range(len(x)), range(len(A))):
        values = [float(A[k, r] @ x[n] + B[k, r]) for r in range(A.shape[1])]
        out[n, k] = values.index(max(values))
    return out


def law_same(operator: Callable[[Tensor], Tensor], oracle: Callable[[Tensor], Tensor], x: Tensor) -> None:
    torch.testing.assert_close(operator(x), oracle(x).flatten(1), rtol=1e-12, atol=1e-12)


def law_selected(maso: MASO, x: Tensor) -> None:
    """S(x) = A[x] x + B[x] = sum_r T (<A, x> + B), T one-hot, and A[x] is the row that the code names."""
    A, B = maso.selected(x)
    T, code = maso.one_hot(x), maso.code(x)
    torch.testing.assert_close(torch.einsum("nkd,nd->nk", A, x) + B, maso(x), rtol=1e-12, atol=1e-12)
    every = torch.einsum("krd,nd->nkr", maso.A, x) + maso.B
    torch.testing.assert_close((T * every).sum(2), maso(x), rtol=1e-12, atol=1e-12)
    assert T.sum(2).eq(1).all() and ((T == 0) | (T == 1)).all()
    assert (T.argmax(2) == code).all()
    for n, k in itertools.product(range(len(x)), range(maso.K)):
        assert torch.equal(A[n, k], maso.A[k, code[n, k]]) and B[n, k] == maso.B[k, code[n, k]]


def law_convex(f: Callable[[Tensor], Tensor], dimension: int) -> None:
    """f((1 - t) p + t q) <= (1 - t) f(p) + t f(q) on random segments."""
    p, q, t = 3 * randn(400, dimension), 3 * randn(400, dimension), torch.rand(400, 1, dtype=F64)
    assert (f((1 - t) * p + t * q) <= (1 - t) * f(p) + t * f(q) + 1e-10).all()


# --- the value -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("K", "R", "D"), [(1, 1, 1), (1, 6, 3), (4, 3, 5), (7, 2, 2)])
def test_forward_code_and_selection_are_the_definition(K: int, R: int, D: int) -> None:
    maso, x = MASO(randn(K, R, D), randn(K, R)), randn(40, D)
    assert (maso.K, maso.R, maso.D) == (K, R, D)
    torch.testing.assert_close(maso(x), slow_value(maso.A, maso.B, x), rtol=1e-12, atol=1e-12)
    assert torch.equal(maso.code(x), slow_code(maso.A, maso.B, x))
    law_selected(maso, x)


def test_the_selection_law_sees_a_wrong_rule() -> None:
    class Lowest(MASO):
        def code(self, x: Tensor) -> Tensor:
            return self.candidates(x).argmin(dim=2)

    with pytest.raises(AssertionError):
        law_selected(Lowest(randn(3, 4, 2), randn(3, 4)), randn(20, 2))


def test_a_tie_is_the_lowest_index() -> None:
    A = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]], dtype=F64)
    maso = MASO(A, torch.zeros(1, 3, dtype=F64))
    assert maso.code(torch.tensor([[2.0, 2.0], [1.0, 2.0], [2.0, 1.0]], dtype=F64)).tolist() == [
        [0],
        [1],
        [0],
    ]


def test_a_repeated_row_is_never_selected() -> None:
    """Large, badly scaled rows: a product may round equal rows differently, the code must not show it."""
    row = randn(1, 1, 301) * 1e8
    maso = MASO(row.repeat(1, 37, 1), torch.full((1, 37), 0.1, dtype=F64))
    assert (maso.code(randn(500, 301)) == 0).all()
    mixed = MASO(torch.cat([row, -row, row, -row], 1), torch.zeros(1, 4, dtype=F64))
    assert set(mixed.code(randn(200, 301)).flatten().tolist()) == {0, 1}


def test_a_max_affine_function_is_convex_and_its_partition_moves_with_its_parameters() -> None:
    mas = MASO(randn(1, 9, 4), randn(1, 9))
    law_convex(mas, 4)
    with pytest.raises(AssertionError):
        law_convex(lambda x: -mas(x), 4)
    x = randn(300, 4)
    assert (mas.code(x) != MASO(mas.A, mas.B + 0.5 * randn(1, 9)).code(x)).any()


def test_ragged_pieces_repeat_a_row() -> None:
    units = [(randn(r, 3), randn(r)) for r in (1, 4, 2)]
    maso, x = from_pieces(units), randn(50, 3)
    assert (maso.K, maso.R) == (3, 4)
    for k, (slopes, offsets) in enumerate(units):
        torch.testing.assert_close(maso(x)[:, k], (x @ slopes.T + offsets).amax(1), rtol=1e-12, atol=1e-12)
        assert maso.code(x)[:, k].max() < len(offsets)
        assert torch.equal(pieces(maso, k)[0], slopes) and torch.equal(pieces(maso, k)[1], offsets)
    assert maso.A.isfinite().all()


def test_without_repeats_keeps_the_function_and_the_order() -> None:
    A, B = randn(2, 3, 4), randn(2, 3)
    twice = MASO(torch.cat([A, A], 1), torch.cat([B, B], 1))
    assert torch.equal(without_repeats(twice).A, A) and torch.equal(without_repeats(twice).B, B)
    same_slope = MASO(A[:, :1].repeat(1, 2, 1), torch.tensor([[0.0, 1.0]] * 2, dtype=F64))
    assert without_repeats(same_slope).R == 2


def test_soft_quantisation_goes_from_the_mean_over_swish_to_relu() -> None:
    relu, u = layers.relu(3, dtype=F64), randn(60, 3)
    torch.testing.assert_close(soft_value(relu, u, 0.5), F.silu(u), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(soft_value(relu, u, 0.0), u / 2, rtol=1e-12, atol=1e-12)
    errors = [(soft_value(relu, u, beta) - relu(u)).abs().max().item() for beta in (0.5, 0.9, 0.99, 0.9999)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4
    assert torch.equal(soft_code(relu, u, 0.999999).round(), relu.one_hot(u))
    with pytest.raises(InputError, match="beta=1 "):
        soft_value(relu, u, 1)


@pytest.mark.parametrize(
    ("A", "B", "says"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), "do not fit"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), "do not fit"),
        (torch.zeros(0, 3, 4), torch.zeros(0, 3), "K, R >= 1"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=F64), "float64"),
        (torch.zeros(2, 3, 4, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long), "int64"),
        (torch.zeros(2, 3, 4).half(), torch.zeros(2, 3).half(), "float16"),
        (torch.full((2, 3, 4), torch.nan), torch.zeros(2, 3), "NaN"),
        (torch.zeros(2, 3, 4), torch.full((2, 3), -torch.inf), "infinity"),
    ],
)
def test_bad_parameters_are_refused(A: Tensor, B: Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        MASO(A, B)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(4), r"\(4,\)"),
        (torch.zeros(2, 3), r"\(N, 4\)"),
        (torch.zeros(0, 4), "N >= 1"),
        (torch.zeros(2, 4, dtype=F64), "float64"),
        (torch.full((1, 4), torch.nan), "NaN"),
    ],
)
def test_bad_inputs_are_refused(x: Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        MASO(torch.zeros(2, 3, 4), torch.zeros(2, 3))(x)


# --- layers ----------------------------------------------------------------------------------------------


def slow_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int, pad: int, dilation: int, groups: int) -> Tensor:
    """Two-dimensional convolution of one image (C, H, W), seven nested loops."""
    C_out, C_in, kh, kw = weight.shape
    H, W = ((n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[1:], (kh, kw), strict=True))
    out = bias[:, None, None].repeat(1, H, W)
    for o, i, j in itertools.product(range(C_out), range(H), range(W)):
        for c, a, b in itertools.product(range(C_in), range(kh), range(kw)):
            row, column = i * stride - pad + a * dilation, j * stride - pad + b * dilation
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                out[o, i, j] += weight[o, c, a, b] * x[o // (C_out // groups) * C_in + c, row, column]
    return out


@pytest.mark.parametrize(
    ("stride", "pad", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (3, 1, 2, 4)]
)
def test_convolution_is_the_loop_definition(stride: int, pad: int, dilation: int, groups: int) -> None:
    weight, bias, x = randn(8, 4 // groups, 3, 2), randn(8), randn(3, 4, 7, 6)
    matrix, offset = layers.conv_matrix(weight, bias, (4, 7, 6), stride, pad, dilation, groups)
    slow = torch.stack([slow_conv(image, weight, bias, stride, pad, dilation, groups) for image in x])
    torch.testing.assert_close(x.flatten(1) @ matrix.T + offset, slow.flatten(1), rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):  # a matrix with its kernel turned round is seen
        wrong, _ = layers.conv_matrix(weight.flip(-1), bias, (4, 7, 6), stride, pad, dilation, groups)
        torch.testing.assert_close(x.flatten(1) @ wrong.T + offset, slow.flatten(1), rtol=1e-12, atol=1e-12)


GRIDS = {1: ((11,), F.conv1d), 2: ((7, 6), F.conv2d), 3: ((5, 4, 3), F.conv3d)}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"groups": 2}])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_convolution_is_the_framework(n: int, options: dict, dtype: torch.dtype) -> None:
    grid, conv = GRIDS[n]
    weight, bias = (t.to(dtype) for t in (randn(6, 4 // options.get("groups", 1), *[2] * n), randn(6)))
    x, maso = (
        randn(3, 4, *grid).to(dtype),
        layers.dense(*layers.conv_matrix(weight, bias, (4, *grid), **options)),
    )
    assert maso.R == 1
    tolerance = 1e-12 if dtype is F64 else 1e-5
    expected = conv(x, weight, bias, **options).flatten(1)
    torch.testing.assert_close(maso(x.flatten(1)), expected, rtol=tolerance, atol=tolerance)


def test_convolution_options_for_each_axis_and_same_padding() -> None:
    weight, x = randn(3, 2, 2, 4), randn(5, 2, 6, 9)
    for options in (
        {"stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)},
        {"padding": "same", "dilation": (1, 3)},
        {"padding": "valid"},
    ):
        matrix, offset = layers.conv_matrix(weight, None, (2, 6, 9), **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once in a process that "same" copies the input here
            expected = F.conv2d(x, weight, **options).flatten(1)
        torch.testing.assert_close(x.flatten(1) @ matrix.T + offset, expected, rtol=1e-12, atol=1e-12)


def test_convolution_reads_any_memory_layout_and_keeps_no_graph() -> None:
    module = nn.Conv2d(4, 6, 3, padding=1).double()
    plain = layers.conv_matrix(module.weight, module.bias, (4, 5, 5), padding=1)
    last = module.weight.to(memory_format=torch.channels_last)
    turned = module.weight.detach().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    for weight in (last, turned):
        assert torch.equal(layers.conv_matrix(weight, module.bias, (4, 5, 5), padding=1)[0], plain[0])
    assert not plain[0].requires_grad and not plain[1].requires_grad
    x = randn(2, 4, 5, 5).to(memory_format=torch.channels_last)
    torch.testing.assert_close(layers.dense(*plain)(x.flatten(1)), module(x).flatten(1), rtol=1e-12, atol=1e-12)


def test_bad_convolutions_are_refused() -> None:
    with pytest.raises(InputError, match="groups=2"):
        layers.conv_matrix(randn(4, 3, 2), None, (3, 8), groups=2)
    with pytest.raises(InputError, match="no window"):
        layers.conv_matrix(randn(4, 3, 9), None, (3, 8))
    with pytest.raises(InputError, match="'full'"):
        layers.conv_matrix(randn(4, 3, 2), None, (3, 8), padding="full")
    with pytest.raises(InputError, match="stride="):
        layers.conv_matrix(randn(4, 3, 2), None, (3, 8), stride=(1, 2))


def test_dense_and_identity() -> None:
    module, x = nn.Linear(5, 3).double(), randn(20, 5)
    maso = layers.dense(module.weight, module.bias)
    assert maso.R == 1
    law_same(maso, module, x)
    law_same(layers.identity(5, dtype=F64), lambda v: v, x)
    with pytest.raises(AssertionError):
        law_same(layers.dense(module.weight), module, x)


@pytest.mark.parametrize(
    ("maso", "oracle"),
    [
        (layers.relu(6, dtype=F64), F.relu),
        (layers.leaky_relu(6, 0.2, dtype=F64), lambda u: F.leaky_relu(u, 0.2)),
        (layers.leaky_relu(6, -0.3, dtype=F64), lambda u: F.leaky_relu(u, -0.3)),
        (layers.absolute(6, dtype=F64), torch.abs),
        (
            layers.leaky_relu(6, torch.arange(6) / 8, dtype=F64),
            lambda u: F.prelu(u, torch.arange(6, dtype=F64) / 8),
        ),
    ],
    ids=["relu", "leaky", "negative leaky", "abs", "prelu"],
)
def test_activations(maso: MASO, oracle: Callable[[Tensor], Tensor]) -> None:
    x = randn(50, 6)
    x[0] = 0
    assert maso.R == 2
    law_same(maso, oracle, x)
    law_selected(maso, x)
    assert torch.equal(maso.code(x), (x > 0).long())
    with pytest.raises(AssertionError):
        law_same(maso, lambda u: oracle(u) + 1e-9 * u, x)


def test_general_convex_activation() -> None:
    """Four tangents of u^2 at -3, -1, 1, 3: knots half-way between the points of contact."""
    at = torch.tensor([-3.0, -1.0, 1.0, 3.0], dtype=F64)
    maso = layers.activation((at[1:] + at[:-1]) / 2, 2 * at, -(at**2), 2)
    x = 2.5 * randn(100, 2)
    law_same(maso, lambda u: (2 * at * u[..., None] - at**2).amax(-1), x)
    assert torch.equal(maso.code(x), (x[..., None] > torch.tensor([-2.0, 0.0, 2.0], dtype=F64)).sum(-1))


@pytest.mark.parametrize(
    ("knots", "slopes", "offsets", "says"),
    [
        ([-1.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.0], "from 1 to 0 at the knot 1, a concave knot"),
        ([0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 6.0], "at the knot 6"),
        ([-0.5, 0.5], [1.0, 0.0, 1.0], [0.5, 0.0, -0.5], "from 1 to 0 at the knot -0.5"),
        ([0.0], [1.5, 1.0], [0.0, 0.0], "from 1.5 to 1 at the knot 0"),
        ([0.0], [0.0, 1.0], [0.0, 1.0], "not continuous"),
        ([0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0], "1 knots need 2 slopes"),
    ],
    ids=["hardtanh", "relu6", "softshrink", "prelu", "jump", "count"],
)
def test_what_is_not_convex_is_refused_by_its_knot(knots: list, slopes: list, offsets: list, says: str) -> None:
    with pytest.raises(InputError, match=says):
        layers.activation(*(torch.tensor(t, dtype=F64) for t in (knots, slopes, offsets)), 3)


def slow_max_pool(x: Tensor, kernel: int, stride: int, pad: int, dilation: int) -> Tensor:
    """Largest entry of each window of one image (C, H, W); what lies outside the image does not take part."""
    H, W = ((n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for n in x.shape[1:])
    out = torch.empty(len(x), H, W, dtype=x.dtype)
    for c, i, j in itertools.product(range(len(x)), range(H), range(W)):
        at = [
            (i * stride - pad + a * dilation, j * stride - pad + b * dilation)
            for a in range(kernel)
            for b in range(kernel)
        ]
        out[c, i, j] = max(x[c, p, q].item() for p, q in at if 0 <= p < x.shape[1] and 0 <= q < x.shape[2])
    return out


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation"), [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (2, 1, 1, 1)]
)
def test_max_pooling_is_the_loop_definition(kernel: int, stride: int, pad: int, dilation: int) -> None:
    maso, x = layers.max_pool((2, 7, 6), kernel, stride, pad, dilation, dtype=F64), randn(4, 2, 7, 6) - 5
    slow = torch.stack([slow_max_pool(image, kernel, stride, pad, dilation) for image in x]).flatten(1)
    assert torch.equal(maso(x.flatten(1)), slow)
    law_selected(maso, x.flatten(1))
    if pad:  # zeros in the padding would win over negative inputs: the law sees that wrong rule
        wrong = layers.max_pool((2, 7 + 2 * pad, 6 + 2 * pad), kernel, stride, 0, dilation, dtype=F64)
        with pytest.raises(AssertionError):
            law_same(lambda v: wrong(F.pad(v, [pad] * 4).flatten(1)), lambda _: slow, x)


POOLS = {
    1: (F.max_pool1d, F.avg_pool1d, (11,)),
    2: (F.max_pool2d, F.avg_pool2d, (7, 8)),
    3: (F.max_pool3d, F.avg_pool3d, (5, 6, 7)),
}
WINDOWS = [
    {"kernel": 2},
    {"kernel": 3, "stride": 2},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel": 2, "stride": 3, "padding": 1, "ceil_mode": True},
]


def framework(options: dict) -> dict:
    return {"kernel_size" if k == "kernel" else k: v for k, v in options.items()}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("options", [*WINDOWS, {"kernel": 2, "stride": 1, "dilation": 3, "ceil_mode": True}])
def test_max_pooling_is_the_framework(n: int, options: dict) -> None:
    pool, _, grid = POOLS[n]
    maso, x = layers.max_pool((2, *grid), **options, dtype=F64), randn(3, 2, *grid) - 4
    assert torch.equal(maso(x.flatten(1)), pool(x, **framework(options)).flatten(1))
    window = options["kernel"] ** n
    assert window == maso.R


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("options", WINDOWS)
def test_average_pooling_is_the_framework(n: int, include: bool, options: dict) -> None:
    _, pool, grid = POOLS[n]
    maso, x = (
        layers.average_pool((2, *grid), **options, count_include_pad=include, dtype=F64),
        randn(3, 2, *grid),
    )
    assert maso.R == 1
    expected = pool(x, **framework(options), count_include_pad=include).flatten(1)
    torch.testing.assert_close(maso(x.flatten(1)), expected, rtol=1e-12, atol=1e-12)


def test_average_pooling_with_another_divisor() -> None:
    maso, x = layers.average_pool((1, 4, 4), 2, divisor_override=3, dtype=F64), randn(3, 1, 4, 4)
    law_same(lambda v: maso(v.flatten(1)), lambda v: F.avg_pool2d(v, 2, divisor_override=3), x)


def test_channel_pooling_is_maxout() -> None:
    maso, x = layers.channel_pool((6, 2, 3), 3, dtype=F64), randn(10, 6, 2, 3)
    assert (maso.K, maso.R) == (12, 3)
    assert torch.equal(maso(x.flatten(1)), x.unflatten(1, (2, 3)).amax(2).flatten(1))
    with pytest.raises(AssertionError):  # groups of strided channels are another operator
        assert torch.equal(maso(x.flatten(1)), x.unflatten(1, (3, 2)).amax(1).flatten(1))
    with pytest.raises(InputError, match="groups of 4"):
        layers.channel_pool((6, 2, 3), 4)


def trained_norm(kind: Callable[[int], nn.Module], *shape: int) -> nn.Module:
    norm = kind(4).double()
    for _ in range(3):
        norm(2 * randn(8, 4, *shape) + 1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.eval()


@pytest.mark.parametrize(("kind", "grid"), [(nn.BatchNorm1d, ()), (nn.BatchNorm1d, (5,)), (nn.BatchNorm2d, (3, 4))])
def test_batch_norm_at_test_time_and_folded(kind: Callable[[int], nn.Module], grid: tuple) -> None:
    norm, x = trained_norm(kind, *grid), randn(6, 4, *grid)
    maso = layers.batch_norm(norm, (4, *grid))
    law_same(lambda v: maso(v.flatten(1)), norm, x)
    before = layers.dense(randn(maso.D, 7), randn(maso.D))
    folded, z = layer(before, maso), randn(9, 7)
    assert folded.R == 1
    law_same(folded, lambda v: norm(before(v).reshape(-1, 4, *grid)), z)


def test_batch_norm_and_dropout_in_train_mode_are_refused() -> None:
    with pytest.raises(InputError, match="train mode"):
        layers.batch_norm(nn.BatchNorm2d(4), (4, 3, 3))
    with pytest.raises(InputError, match="no running statistics"):
        layers.batch_norm(nn.BatchNorm1d(4, track_running_stats=False).eval(), (4,))
    with pytest.raises(InputError, match="channels"):
        layers.batch_norm(nn.BatchNorm1d(4).eval(), (3,))
    with pytest.raises(InputError, match="train mode"):
        layers.dropout(nn.Dropout(0.5), 3)
    x = randn(4, 3)
    assert torch.equal(layers.dropout(nn.Dropout(0.5).eval(), 3, dtype=F64)(x), x)


# --- recurrent layers ------------------------------------------------------------------------------------


def cell_and_module(nonlinearity: str = "relu") -> tuple[MASO, nn.RNN]:
    module = nn.RNN(3, 4, nonlinearity=nonlinearity, batch_first=True).double()
    bias = (module.bias_ih_l0 + module.bias_hh_l0).detach()
    return recurrent_cell(module.weight_ih_l0, module.weight_hh_l0, bias, layers.relu(4, dtype=F64)), module


def test_recurrent_cell_is_one_maso() -> None:
    cell, module = cell_and_module()
    x, h = randn(20, 1, 3), randn(20, 4)
    assert (cell.K, cell.R, cell.D) == (4, 2, 7)
    law_same(lambda v: cell(torch.cat([v[:, 0], h], 1)), lambda v: module(v, h[None])[0][:, 0], x)


def law_unrolled(frozen: Unrolled, module: nn.RNN, x: Tensor, start: Tensor) -> None:
    hidden, _ = module(x, start[None])
    torch.testing.assert_close(frozen.hidden, hidden, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frozen(x, start), hidden[:, -1], rtol=1e-12, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(lambda v: module(v, start[None])[0][:, -1].sum(0), x)
    torch.testing.assert_close(frozen.inputs, jacobian.movedim(0, 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 6])
def test_unrolled_recurrent_layer_is_the_product_of_its_slopes(steps: int) -> None:
    cell, module = cell_and_module()
    x, start = randn(5, steps, 3), randn(5, 4)
    frozen = unroll(cell, x, start)
    law_unrolled(frozen, module, x, start)
    nearby = x + 1e-7 * randn(5, steps, 3)  # the same cells: the frozen map is the network there too
    torch.testing.assert_close(frozen(nearby, start), module(nearby, start[None])[0][:, -1], rtol=1e-12, atol=1e-12)
    if steps > 1:
        wrong = Unrolled(frozen.inputs.flip(1), frozen.state, frozen.offset, frozen.hidden)
        with pytest.raises(AssertionError):
            law_unrolled(wrong, module, x, start)


def test_unrolled_slopes_are_the_paper_s_formula() -> None:
    """P_{t:T} A_t W with P_{t:T} = prod_{s=T}^{t+1} A_s W_r, A_s the diagonal of active units, in loops."""
    cell, module = cell_and_module()
    W, Wr, b = module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0 + module.bias_hh_l0
    x, start = randn(1, 4, 3), randn(1, 4)
    hidden, _ = module(x, start[None])
    states = [start[0], *hidden[0]]
    D = [torch.diag((W @ x[0, t] + Wr @ states[t] + b > 0).double()) for t in range(4)]
    frozen, offset = unroll(cell, x, start), torch.zeros(4, dtype=F64)
    for t in range(4):
        product = torch.eye(4, dtype=F64)
        for s in range(3, t, -1):
            product = product @ D[s] @ Wr
        torch.testing.assert_close(frozen.inputs[0, t], product @ D[t] @ W, rtol=1e-12, atol=1e-12)
        offset = offset + product @ D[t] @ b
    torch.testing.assert_close(frozen.offset[0], offset, rtol=1e-12, atol=1e-12)


def test_unroll_refuses_what_does_not_fit() -> None:
    cell, _ = cell_and_module()
    with pytest.raises(InputError, match="do not fit"):
        unroll(cell, randn(2, 5, 4), randn(2, 4))
