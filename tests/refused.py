"""Models that the front door must refuse, or run without giving maps: one list each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from net import Of
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Refusal:
    """A model that is refused, and what the error must name."""

    name: str
    build: Callable[[], nn.Module]
    words: tuple[str, ...]  # all must be in the message
    shape: tuple[int, ...] = (4,)


class Held:
    """An object that holds a tensor."""

    def __init__(self, y: Tensor) -> None:
        self.y = y


def two(function: Callable[[Of, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """Layers a: 4 -> 4 and b: 4 -> 4 with `function` as the forward."""
    return lambda: Of(function, a=nn.Linear(4, 4), b=nn.Linear(4, 4)).eval()


def branch(m: Of, x: Tensor) -> Tensor:
    return m.a(x) if x.sum() > 0 else m.b(x)


def branch_on_batch(m: Of, x: Tensor) -> Tensor:
    return m.a(x) if x.shape[0] % 2 else m.b(x)


def scripted() -> nn.Module:
    """A TorchScript function inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    return Of(lambda m, x: m.a(m.inner(x)), a=nn.Linear(4, 4), inner=inner).eval()


def in_training(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The layer left in training mode, under the path body.1."""
    return lambda: Of(lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(4, 4), layer(), nn.Linear(4, 2)))


AT_CAPTURE = [
    Refusal("branch_on_data", two(branch), ()),
    Refusal("branch_on_batch", two(branch_on_batch), ("batch",)),
    Refusal("reshape_to_one_row", two(lambda m, x: m.a(x).reshape(1, -1)), ("batch",)),
    Refusal("batch_in_second_axis", two(lambda m, x: m.a(x).T), ("batch",)),
    Refusal("batch_merged_with_units", two(lambda m, x: m.a(x).flatten()), ("batch",)),
    Refusal("view_of_two_rows", two(lambda m, x: m.b(m.a(x).view(2, -1, 4).flatten(0, 1))), ("batch",)),
    Refusal("view_of_three_rows", two(lambda m, x: m.b(m.a(x).view(3, -1))), ("batch",)),
    Refusal("no_output", two(lambda m, x: m.a(x)[:, :0]), ("hold no values",)),
    Refusal(
        "infinite_mask",
        two(lambda m, x: F.relu(m.a(x) - m.a.bias.new_full((4,), torch.inf))),
        ("infinite", "finite number"),
    ),
    Refusal("object", two(lambda m, x: Held(m.a(x))), ("forward returns", "tuples, lists or dicts")),
    Refusal("item", two(lambda m, x: m.a(x) * x.abs().max().item()), ()),
    Refusal("numpy", two(lambda m, x: m.a(torch.from_numpy(x.detach().numpy()))), ()),
    Refusal("scripted", scripted, ("TorchScript",)),
    Refusal("batch_norm_in_training", in_training(lambda: nn.BatchNorm1d(4)), ("body.1", "eval()")),
    Refusal("dropout_in_training", in_training(lambda: nn.Dropout(0.5)), ("body.1", "eval()")),
    Refusal("rrelu_in_training", in_training(nn.RReLU), ("body.1", "eval()")),
    Refusal(
        "instance_norm_in_training",
        in_training(
            lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten())
        ),
        ("body.1.1", "eval()"),
    ),
    Refusal(
        "recurrent_dropout_in_training",
        lambda: Of(lambda m, x: m.a(x.unsqueeze(1))[0], a=nn.LSTM(4, 3, 2, dropout=0.5, batch_first=True)),
        ("'a'", "eval()"),
    ),
    Refusal(
        "attention_dropout_in_training",
        lambda: Of(
            lambda m, x: m.a(*[x.unsqueeze(1)] * 3, need_weights=False)[0],
            a=nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True),
        ),
        ("'a'", "eval()"),
    ),
    Refusal("functional_dropout", two(lambda m, x: m.b(F.dropout(m.a(x), 0.5, training=True))), ("dropout",)),
    Refusal("functional_rrelu", two(lambda m, x: m.b(F.rrelu(m.a(x), training=True))), ("rrelu",)),
    Refusal("functional_batch_norm", two(lambda m, x: F.batch_norm(m.a(x), None, None, training=True)), ()),
    Refusal("batch_statistics", lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(), ()),
    Refusal("mean_of_batch", two(lambda m, x: m.a(x - x.mean(0))), ("row",)),
    Refusal("sum_of_batch", two(lambda m, x: m.b(m.a(x) + x.sum(0, keepdim=True))), ("row",)),
    Refusal("shifted_batch", two(lambda m, x: m.b(m.a(x) + x.roll(1, 0))), ("row",)),
    Refusal("sorted_batch", two(lambda m, x: m.b(F.relu(m.a(x)).flip(0))), ("row",)),
    Refusal("first_row", two(lambda m, x: m.a(x) - m.b(x[:1])), ("row",)),
    Refusal("softmax_over_batch", two(lambda m, x: torch.softmax(m.a(x), 0)), ("row",)),
    Refusal("batch_size", two(lambda m, x: m.a(x) / x.shape[0]), ("row",)),
    Refusal("random", two(lambda m, x: m.a(x) + torch.rand_like(x)), ()),
    Refusal("unknown_operation", two(lambda m, x: m.b(torch.special.i0e(m.a(x)))), ("i0e",)),
    Refusal("no_batch_in_output", two(lambda m, x: m.a(x).sum()), ("batch",)),
]


@dataclass(frozen=True)
class Runs:
    """A model that runs exactly but has an operation that is not continuous piecewise affine."""

    name: str
    function: Callable[[Of, Tensor], Tensor]  # between a and b
    word: str  # names the operation in the message


def overwritten(_: Of, z: Tensor) -> Tensor:
    """Assignment under a live mask."""
    z = z.clone()
    z[z < 0] = 0
    return z


SMOOTH = [
    Runs("softmax", lambda _, z: torch.softmax(z, 1), "softmax"),
    Runs("layer_norm", lambda _, z: F.layer_norm(z, (4,)), "layer_norm"),
    Runs("gelu", lambda _, z: F.gelu(z), "gelu"),
    Runs("silu", lambda _, z: F.silu(z), "silu"),
    Runs("sigmoid", lambda _, z: torch.sigmoid(z), "sigmoid"),
    Runs("tanh", lambda _, z: torch.tanh(z), "tanh"),
    Runs("elu", lambda _, z: F.elu(z), "elu"),
    Runs("softplus", lambda _, z: F.softplus(z), "softplus"),
    Runs("hardswish", lambda _, z: F.hardswish(z), "hardswish"),
    Runs("product", lambda _, z: z * z.flip(1), "mul"),
    Runs("quotient", lambda _, z: z / (z.abs() + 1), "div"),
    Runs("square", lambda _, z: z**2, "pow"),
    Runs("matmul", lambda _, z: (z[:, :, None] @ z[:, None, :]).sum(1), "matmul"),
    Runs("norm", lambda _, z: F.normalize(z, dim=1), "norm"),
    Runs("group_norm", lambda _, z: F.group_norm(z, 2), "group_norm"),
]
DISCONTINUOUS = [
    Runs("greater", lambda _, z: z * (z > 0), "gt"),
    Runs("sign", lambda _, z: z + torch.sign(z), "sign"),
    Runs("round", lambda _, z: torch.round(z), "round"),
    Runs("floor", lambda _, z: torch.floor(z), "floor"),
    Runs("argmax", lambda _, z: z + z.argmax(1, keepdim=True), "argmax"),
    Runs("where", lambda _, z: torch.where(z > 0, z, -z), "gt"),
    Runs("overwritten", overwritten, "lt"),
    Runs("hardshrink", lambda _, z: F.hardshrink(z, 0.3), "hardshrink"),
    Runs("threshold", lambda _, z: F.threshold(z, 0.2, 0.9), "threshold"),
    Runs("half_precision", lambda _, z: z.half().double(), "it rounds"),
    Runs("single_precision", lambda _, z: z.float().double(), "it rounds"),
    Runs("sort", lambda _, z: z.sort(1)[0], "sort"),
    Runs("topk", lambda _, z: z.topk(4, 1)[0], "topk"),
]
WITHOUT_MAPS = [*SMOOTH, *DISCONTINUOUS]


def with_middle(case: Runs) -> nn.Module:
    """Linear, ReLU, linear (path "a.2"), the operation (in path "middle"), ReLU, linear."""
    a = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    layers = {"a": a, "middle": Of(case.function), "b": nn.Sequential(nn.ReLU(), nn.Linear(4, 2))}
    return Of(lambda m, x: m.b(m.middle(m.a(x))), **layers).double().eval()
