"""Every operation of the affine table inside a network, and every operation that is run but has no maps.

A group is one network that returns what each of its operations gives, side by side: a wrong one is wrong in rows of A
of its own. Alone, the group is affine; between two bends its adjoints meet cotangents that differ from row to row.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from itertools import chain
from math import prod

import laws
import pytest
import torch
from affine_operations import GROUPS, Operation, copied, undisturbed
from opaque_operations import DISCONTINUOUS, RECURRENT, SMOOTH, UNSUPPORTED
from torch import Tensor, nn
from torch.nn import functional as F

import maxaffine as ma
from maxaffine.operators import affine, other
from maxaffine.operators.registry import Opaque
from maxaffine.program.plan import Plan


class Side(nn.Module):
    """What all operations of a group give, flattened and side by side; bent: leaky ReLUs before and after each."""

    def __init__(self, operations: Mapping[str, Operation], bent: bool) -> None:
        super().__init__()
        self.operations, self.bent = operations, bent
        self.layers = nn.ModuleList(f for f in operations.values() if isinstance(f, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, 0.5) if self.bent else x
        y = torch.cat([f(x).reshape(x.shape[0], -1) for f in self.operations.values()], 1)
        return F.leaky_relu(y, 0.5) if self.bent else y


def module_of(name: str, bent: bool) -> nn.Module:
    """The group as a network in eval mode, batch-norm statistics drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Side(copy.deepcopy(GROUPS[name][1]), bent)
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -1, 1)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                if module.affine:
                    nn.init.uniform_(module.weight, -1.5, 1.5)
                    nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.double().eval()


@cache
def captured(name: str, bent: bool) -> tuple[nn.Module, ma.Spline, Tensor]:
    """The network of a group, its spline, and inputs."""
    model = module_of(name, bent)
    x = torch.randn(2, *GROUPS[name][0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, ma.Spline(model, x[:1]), x


each_group = pytest.mark.parametrize("name", GROUPS)
bends = pytest.mark.parametrize("bent", [False, True], ids=["plain", "bent"])


def assert_columns(name: str, found: Tensor, wanted: Tensor) -> None:
    """Equal to rounding along axis 1, else the names of the operations that are not."""
    model, _, x = captured(name, False)
    wrong = ~torch.isclose(found, wanted, rtol=1e-10, atol=1e-10).transpose(0, 1).flatten(1).all(1)
    names = [key for key, f in model.operations.items() for _ in range(f(x).reshape(len(x), -1).shape[1])]
    assert not bool(wrong.any()), {key for key, bad in zip(names, wrong.tolist(), strict=True) if bad}


@cache
def jacobian_of(name: str, bent: bool) -> Tensor:
    """The Jacobians of a group at its inputs."""
    model, _, x = captured(name, bent)
    return jacobian(model, x)


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """(N, out, in) by autograd on the model itself, both sides flattened."""
    found = torch.autograd.functional.jacobian(lambda z: model(z).flatten(1).sum(0), x)
    return torch.as_tensor(found).movedim(1, 0).flatten(2)


@each_group
@bends
def test_value_and_map(name: str, bent: bool) -> None:
    """f is the model; A its Jacobian (by rows and by columns); b the model at 0 where it is affine everywhere."""
    model, spline, x = captured(name, bent)
    f, inside = spline.at(x), prod(x.shape[1:])
    assert_columns(name, spline(x), model(x).detach())
    assert_columns(name, f(x), model(x).detach())
    wanted = jacobian_of(name, bent)
    assert_columns(name, f.A.flatten(2), wanted)
    outs = wanted.shape[1]
    assert_columns(name, f.maps.rows(torch.eye(outs, dtype=x.dtype)).flatten(2), wanted)
    basis = torch.eye(inside, dtype=x.dtype).reshape(inside, *x.shape[1:])
    assert_columns(name, f.maps.columns(basis).mT, wanted)
    assert_columns(name, torch.einsum("noi,ni->no", wanted, x.flatten(1)) + f.b, model(x).detach())
    if not bent:
        assert_columns(name, f.b, model(torch.zeros_like(x)).detach())
        assert_columns(name, f(3 - x), model(3 - x).detach())
        assert spline.operators == ()


@each_group
@bends
def test_products(name: str, bent: bool) -> None:
    """<A v, u> = <v, A^T u>, both being products with the dense A, one row of output at a time."""
    _, spline, x = captured(name, bent)
    f = spline.at(x)
    laws.assert_adjoint(spline, x)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    wanted = jacobian_of(name, bent)
    assert_columns(name, f.mv(v), torch.einsum("noi,ni->no", wanted, v.flatten(1)))
    for first in range(0, wanted.shape[1], 97):
        one = torch.zeros(len(x), wanted.shape[1], dtype=x.dtype)
        one[:, first] = 1
        laws.assert_close(f.vm(one).flatten(1), wanted[:, first])


@bends
def test_columns_assigned_in_place(bent: bool) -> None:
    model = Side({"copied": copied}, bent).double()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spline = ma.Spline(model, x[:1])
    laws.assert_exact(spline, model, x)
    laws.assert_close(spline.at(x).A, jacobian(model, x))
    laws.assert_products(spline, x)


def test_without_gradient_and_detached() -> None:
    """What training would not differentiate is still part of the map."""
    model = Side({"no_grad": undisturbed, "detach": lambda x: x + (3 * x).detach()}, False)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    f = ma.Spline(model, x[:1]).at(x)
    eye = torch.eye(6, dtype=x.dtype)
    laws.assert_close(f.A, torch.cat((2 * eye, 4 * eye)).expand(3, 12, 6))
    laws.assert_close(f(x), model(x))


# ---- the whole table ----------------------------------------------------------------------------------------------

UNREACHED = frozenset(
    f"aten.{name}"
    for name in [
        "_pad_circular.default",
        "_to_copy.default",
        "_unsafe_index_put.default",
        "broadcast_to.default",
        "chunk.default#*",
        "concatenate.default",
        "contiguous.default",
        "detach.default",
        "detach_.default",
        "divide.Scalar",
        "dot.default",
        "expand_as.default",
        "flatten.using_ints",
        "flipud.default",
        "lift_fresh.default",
        "lift_fresh_copy.default",
        "mT.default",
        "mean.default",
        "movedim.int",
        "movedim.intlist",
        "multiply.Scalar",
        "narrow.default",
        "numpy_T.default",
        "positive.default",
        "ravel.default",
        "reshape.default",
        "row_stack.default",
        "split.sizes#*",
        "squeeze.default",
        "subtract.Scalar",
        "sum.default",
        "swapaxes.default",
        "tensor_split.indices#*",
        "tensor_split.sections#*",
        "to.device",
        "to.dtype",
        "to.dtype_layout",
        "to.other",
        "trace.default",
        "true_divide.Scalar",
        "unflatten.int",
        "unsafe_split_with_sizes.default#*",
        "upsample_bicubic2d.default",
        "upsample_bilinear2d.default",
        "view_as.default",
        "view_of.default",
        "vstack.default",
    ]
)
"""Operations of the table that torch.export gives for no model whose rows are independent."""


def live_operations(spline: ma.Spline) -> set[str]:
    """Names in the captured graph of what depends on the input."""
    graph = spline.captured.graph
    return {node.op for node, live in zip(graph.nodes, graph.live(graph.input), strict=True) if live}


def test_every_operation_of_the_table_is_tested() -> None:
    found = chain.from_iterable(live_operations(captured(name, False)[1]) for name in GROUPS)
    reached = {*found, "aten.copy.default"}
    plain = {op.split("#")[0] for op in reached}
    missing = {op for op in affine.RULES if op.split("#")[0] not in plain}
    assert missing == UNREACHED


# ---- operations without maps --------------------------------------------------------------------------------------


UNREACHED_WITHOUT_MAP = frozenset(
    f"aten.{name}"
    for name in [
        "_cdist_forward.default",
        "_fused_rms_norm.default#0",
        "_log_softmax.default",
        "_scaled_dot_product_flash_attention_for_cpu.default#0",
        "_softmax.default",
        "all.default",
        "any.default",
        "bitwise_and.Tensor",
        "bitwise_or.Tensor",
        "dist.default",
        "div.Scalar_mode",
        "frobenius_norm.dim",
        "hardshrink.default",
        "linalg_matrix_norm.default",
        "local_response_norm.default",
        "logsigmoid.default",
        "lp_pool2d.default",
        "masked_select.default",
        "median.default",
        "native_group_norm.default#0",
        "native_layer_norm.default#0",
        "nonzero.default",
        "norm.ScalarOpt_dim",
        "softsign.default",
        "std_mean.correction#0",
        "std_mean.correction#1",
        "var.correction",
        "var_mean.correction#0",
        "var_mean.correction#1",
    ]
)
"""Operations that torch.export gives for no model whose rows are independent."""


def as_numbers(operation: Operation) -> Operation:
    """Truth values and indices as numbers."""
    return lambda x: operation(x).to(x.dtype)


@pytest.mark.parametrize(
    ("operations", "table", "words"),
    [
        (SMOOTH, other.SMOOTH, ("smooth", "a product")),
        (DISCONTINUOUS, other.DISCONTINUOUS, ("discontinuous",)),
        (UNSUPPORTED, other.UNSUPPORTED, ("piecewise affine",)),
    ],
    ids=["smooth", "discontinuous", "unsupported"],
)
def test_what_has_no_map_runs_exactly(
    operations: dict[str, Operation], table: frozenset[str], words: tuple[str, ...]
) -> None:
    """Together they run as the model does; every one of the table is found, classified, and keeps maps from being."""
    model = Side({name: as_numbers(f) for name, f in operations.items()}, False)
    model.recurrent = RECURRENT
    x = 2 * torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spline = ma.Spline(model, x[:1])
    laws.assert_close(spline(x), model(x).detach())
    steps = [step for step in Plan(spline.captured.graph).steps if step.node.op in table]
    assert all(type(step.rule) is Opaque and step.rule.kind.startswith(words) for step in steps)
    reached = {step.node.op.split("#")[0] for step in steps}
    assert {op for op in table if op.split("#")[0] not in reached} == UNREACHED_WITHOUT_MAP & table
    with pytest.raises(ma.errors.NotPiecewiseAffineError):
        spline.at(x)


# ---- convolutions in float32: the fast adjoints ---------------------------------------------------------------------

CONVOLUTIONS: dict[str, nn.Conv2d] = {
    "flipped": nn.Conv2d(5, 6, 3, padding=1),
    "flipped_no_padding": nn.Conv2d(5, 6, (3, 2)),
    "flipped_even": nn.Conv2d(5, 4, (2, 4), padding=(1, 2)),
    "flipped_dilated": nn.Conv2d(5, 4, (3, 2), padding=(2, 1), dilation=2),
    "flipped_1x1": nn.Conv2d(5, 6, 1),
    "flipped_full": nn.Conv2d(5, 4, (3, 4), padding=(2, 3)),
    "padding_wider_than_kernel": nn.Conv2d(5, 4, (2, 3), padding=(3, 4)),
    "strided": nn.Conv2d(5, 4, 3, stride=2, padding=1),
    "strided_uneven": nn.Conv2d(5, 4, (3, 2), stride=(1, 3), padding=(0, 1)),
    "strided_1x1": nn.Conv2d(5, 4, 1, stride=2),
    "fold": nn.Conv2d(1, 8, 3, padding=1),
    "fold_strided": nn.Conv2d(1, 9, (2, 3), stride=(2, 3), padding=(2, 1), bias=False),
    "fold_dilated": nn.Conv2d(2, 16, (3, 2), dilation=(1, 2), padding=1),
    "fold_1x1": nn.Conv2d(1, 8, 1, padding=1),
    "by_rows": nn.Conv2d(3, 24, 3, padding=1),
    "by_rows_no_padding": nn.Conv2d(2, 16, (5, 4)),
    "by_rows_uneven": nn.Conv2d(3, 25, (3, 4), padding=(4, 1), dilation=(2, 1)),
    "by_rows_dilated": nn.Conv2d(2, 16, (4, 2), padding=(0, 1), dilation=(1, 3)),
    "few_channels_and_wide_padding": nn.Conv2d(3, 24, 3, padding=(1, 3)),
    "groups": nn.Conv2d(4, 8, (3, 2), padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 32, 3, padding=1, groups=4),
    "same": nn.Conv2d(3, 4, (2, 3), padding="same"),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_float32_convolutions(name: str) -> None:
    """Behind a bend and before one, with batch norm, in float32 against the Jacobian in float64."""
    conv = CONVOLUTIONS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.LeakyReLU(0.5), conv, nn.BatchNorm2d(conv.out_channels), nn.LeakyReLU(0.5)).eval()
    shape = (conv.in_channels, 6, 7)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    spline = ma.Spline(model, x[:1])
    f = spline.at(x)
    outs, inside = prod(f.out_shape), prod(shape)
    rows = f.maps.rows(torch.eye(outs).reshape(outs, *f.out_shape)).reshape(2, outs, inside)
    columns = f.maps.columns(torch.eye(inside).reshape(inside, *shape)).reshape(2, inside, outs).mT
    laws.assert_close(spline(x), model(x).detach(), 1e-4)
    wanted = jacobian(model.double(), x.double()).reshape(2, -1, inside)
    for found in (rows, columns, f.A.reshape(2, outs, inside)):
        laws.assert_close(found.double(), wanted, 1e-4)
