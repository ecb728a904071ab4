"""Small networks on vectors: activations, maxima, functional and residual code, awkward inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from net import Net, Of, OfAny, OfTwo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

RAMPS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.3),
    "prelu": lambda: nn.PReLU(6, 0.2),
    "abs": lambda: Of(lambda _, x: x.abs()),
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(-0.7, 0.4),
    "hardsigmoid": nn.Hardsigmoid,
    "softshrink": lambda: nn.Softshrink(0.3),
    "threshold": lambda: nn.Threshold(0.2, 0.2),
    "rrelu": lambda: nn.RReLU(0.1, 0.4),
    "clamp": lambda: Of(lambda _, x: x.clamp(-0.5, 0.8)),
    "clamp_min": lambda: Of(lambda _, x: x.clamp(min=-0.2)),
    "clamp_max": lambda: Of(lambda _, x: torch.clamp_max(x, 0.3)),
    "maximum_constant": lambda: Of(lambda _, x: torch.maximum(x, torch.tensor(0.1, dtype=x.dtype))),
}


WIDE = {"relu6": 8.0, "hardsigmoid": 12.0}  # knots far out: weights that reach every piece


def ramp(name: str) -> Net:
    """Linear, activation, linear, activation, linear; the activation is one object called twice."""

    def build() -> nn.Module:
        f = RAMPS[name]()
        net = nn.Sequential(nn.Linear(4, 6), f, nn.Linear(6, 6), f, nn.Linear(6, 3))
        with torch.no_grad():
            net[0].weight.mul_(WIDE.get(name, 1.5))
        return net

    return Net(f"ramp_{name}", build, (4,))


def functional(m: Of, x: Tensor) -> Tensor:
    """No activation is a module."""
    x = F.leaky_relu(F.relu(m.a(x)) - 0.3, 0.2)
    return m.c(torch.abs(torch.relu(m.b(x)) - 1.0))


def stacked(m: Of, x: Tensor) -> Tensor:
    """Maxima over an axis in front of the batch, one of them over an axis behind it too."""
    h = torch.stack([m.a(x), m.b(x), x]).amax(0).relu()
    return m.c(h) - torch.stack([h, m.b(h)]).max(0).values[:, :2] + torch.stack([h, x]).amax((0, 2)).unsqueeze(1)


def no_axis(m: Of, x: Tensor) -> Tensor:
    """A number, not a vector of one: units, a maximum and an output without any axis but the batch."""
    h = torch.relu(m.a(x))
    return torch.relu(m.b(h).sum(1)) + m.b(h).amax(1) - torch.maximum(h[:, 0], m.c(h).squeeze(-1))


def residual(m: Of, x: Tensor) -> Tensor:
    """In-place addition and in-place ReLU on the running sum."""
    x = torch.relu_(m.a(x))
    y = m.b(x)
    y += x
    y.relu_()
    return m.c(y).add_(1.0) + y.sum(1, keepdim=True)


def reused(m: Of, x: Tensor) -> Tensor:
    """The same Linear and the same ReLU called twice."""
    return m.out(m.act(m.same(m.act(m.same(x)))))


def sliced_in_place(m: Of, x: Tensor) -> Tensor:
    """An in-place ReLU on a view: only the first two features are rectified."""
    y = m.a(x)
    y[:, :2].relu_()
    return m.b(y)


def input_in_place(m: Of, x: Tensor) -> Tensor:
    """Writes into its own input."""
    return m.a(F.relu(x, inplace=True))


def two_live(m: Of, x: Tensor) -> Tensor:
    """Maximum and minimum of two live tensors, one of them broadcast."""
    a, b = m.a(x), m.b(x)
    return m.c(torch.maximum(a, b) - torch.minimum(b, a[:, :1]))


def maxout(m: Of, x: Tensor) -> Tensor:
    """Maxima along an axis in three ways, a minimum too."""
    y = m.a(x).unflatten(1, (4, 3))
    return torch.cat((y.max(dim=2)[0], y.amax(1), y.amin((1, 2), keepdim=True).flatten(1), y.min(1).values), 1)


def norms(m: Of, x: Tensor) -> Tensor:
    """Norms, distances and losses of p = 1 and infinity."""
    h, points = m.a(x), torch.linspace(-1, 1, 12, dtype=x.dtype, device=x.device).reshape(3, 4)
    sizes = [
        h.norm(p=1, dim=1, keepdim=True),
        *(torch.linalg.vector_norm(h, p, 1, True) for p in (torch.inf, -torch.inf)),
    ]
    apart = [torch.cdist(h[:, None], points, p)[:, 0] for p in (1.0, torch.inf)]
    near = F.pairwise_distance(h, points[:1], 1, keepdim=True)
    return torch.cat([*sizes, *apart, near, F.l1_loss(h, points[1].expand_as(h), reduction="none")], 1)


def branches(m: Of, x: Tensor) -> Tensor:
    """Concatenation, chunk, split, stack, index with a constant, flip."""
    y = F.relu(torch.cat((m.a(x), m.b(x)), 1))
    p, q = y.chunk(2, 1)
    r, s = y.split([5, 7], 1)
    z = torch.stack((p, q.flip(1)), 1).sum(1)
    return m.c(torch.cat((z[:, [0, 3, 3]], F.relu(r - s[:, :5])), 1))


def masked(m: Of, x: Tensor) -> Tensor:
    """`where` on a constant mask, and multiplication with it."""
    y = m.a(x)
    mask = torch.arange(6) % 2 == 0
    return m.b(torch.where(mask, F.relu(y), y) * mask.to(x.dtype))


def casts(m: Of, x: Tensor) -> Tensor:
    """Conversions to the dtype that the values already have."""
    return m.b(F.relu(m.a(x.to(m.a.weight.dtype)).type_as(x)))


def einsum(m: Of, x: Tensor) -> Tensor:
    """Contractions with constants: einsum, matmul on the left and right."""
    y = torch.einsum("nij,jk->nik", F.relu(x), m.a.weight)
    return torch.einsum("nik,ni->nk", y, torch.ones_like(x[:, :, 0])) + (m.a.weight.T @ x.mT).sum(2) @ m.b.weight


def time_major(m: Of, x: Tensor) -> Tensor:
    """Batch moved to the second axis and back, as recurrent code does."""
    steps = F.relu(m.a(x.permute(1, 0, 2)))
    return m.b(steps.flip(0)).transpose(0, 1) + steps.mean(0).unsqueeze(1)[..., :2]


def folded(m: Of, x: Tensor) -> Tensor:
    """Batch and positions folded together by flatten(0, 1), and unfolded again."""
    return m.b(F.relu(m.a(x.flatten(0, 1)))).view(x.shape[0], -1)


def tied(m: Of, x: Tensor) -> Tensor:
    """The decoder is the transposed encoder."""
    return F.linear(F.relu(m.a(x)), m.a.weight.T)


def structured(m: Of, x: Tensor) -> dict:
    """A dict whose second item is a tuple."""
    h = F.relu(m.a(x))
    return {"hidden": h, "out": (m.b(h), m.c(h))}


def plain(m: Of, x: Tensor) -> Tensor:
    """A hidden layer and a linear one."""
    return m.b(F.relu(m.a(x)))


def cut(m: Of, x: Tensor) -> Tensor:
    """Piecewise affine up to `b`, softmax after it."""
    return torch.softmax(m.b(F.relu(m.a(x))), 1)


def with_context(m: Of, x: Tensor, context: Tensor) -> Tensor:
    """Two inputs, concatenated."""
    return m.b(F.relu(m.a(torch.cat((x, context), 1))))


def gated(m: Of, x: Tensor, gate: Tensor) -> Tensor:
    """The product with an input that is constant is affine."""
    return m.b(F.relu(m.a(x)) * gate)


def over_ids(m: Of, ids: Tensor) -> Tensor:
    """Token ids -> embedding -> positions -> MLP on each, averaged."""
    return F.relu(m.a(m.words(ids) + m.places.weight)).mean(1)


def over_bags(m: Of, ids: Tensor) -> Tensor:
    """Bags of token ids -> their embedding -> a ReLU layer."""
    return F.relu(m.a(m.words(ids)))


def bounded() -> nn.Module:
    """Clamped between tensors that make two rows of each row."""
    model = Of(lambda m, x: m.b(m.a(x)[:, None].clamp(m.low, m.high)), **lin(4, 3, 3, 2))
    model.register_buffer("low", -torch.tensor([[0.2], [0.5]]))
    model.register_buffer("high", torch.tensor([[0.3], [0.7]]))
    return model


def degenerate() -> nn.Module:
    """Dead units, zero rows, duplicated and opposite weights, a zero bias at a duplicated unit."""
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[0].weight[1] = net[0].weight[0]
        net[0].bias[1] = net[0].bias[0]
        net[0].weight[2] = -net[0].weight[0]
        net[0].bias[2] = -net[0].bias[0]
        net[0].weight[3], net[0].bias[3] = 0, -1.0
        net[0].weight[4], net[0].bias[4] = 0, 0
        net[2].weight[5], net[2].bias[5] = -net[2].weight[5].abs(), -1.0
        net[2].weight[6], net[2].bias[6] = net[2].weight[7], net[2].bias[7]
    return net


def old_weight_norm() -> nn.Module:
    """Weight normalisation by the older hook, which much trained code still uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Of(plain, a=nn.utils.weight_norm(nn.Linear(4, 6)), b=nn.Linear(6, 2))


def rnn() -> nn.Module:
    """Two ReLU recurrent layers over five steps, batch first; the last hidden state is read."""
    return Of(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=recurrent(), head=nn.Linear(4, 2))


def recurrent() -> nn.RNN:
    return nn.RNN(3, 4, num_layers=2, nonlinearity="relu", batch_first=True)


def lin(*widths: int) -> dict[str, nn.Linear]:
    """Linear layers a, b, c of the widths (in, out, in, out, ...)."""
    return {name: nn.Linear(i, o) for name, i, o in zip("abc", widths[::2], widths[1::2], strict=False)}


DENSE_NETS = [
    Net(
        "mlp",
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)),
        (4,),
    ),
    *(ramp(name) for name in RAMPS),
    Net("functional", lambda: Of(functional, **lin(4, 6, 6, 6, 6, 2)), (4,)),
    Net("residual", lambda: Of(residual, **lin(4, 6, 6, 6, 6, 2)), (4,)),
    Net("no_axis", lambda: Of(no_axis, **lin(4, 6, 6, 3, 6, 1)), (4,)),
    Net("stacked", lambda: Of(stacked, **lin(4, 4, 4, 4, 4, 2)), (4,)),
    Net("reused", lambda: Of(reused, same=nn.Linear(5, 5), act=nn.ReLU(), out=nn.Linear(5, 2)), (5,)),
    Net("sliced_in_place", lambda: Of(sliced_in_place, **lin(4, 6, 6, 2)), (4,)),
    Net("input_in_place", lambda: Of(input_in_place, **lin(4, 3)), (4,)),
    Net("two_live", lambda: Of(two_live, **lin(4, 5, 4, 5, 5, 2)), (4,)),
    Net("maxout", lambda: Of(maxout, **lin(5, 12)), (5,)),
    Net("norms", lambda: Of(norms, **lin(4, 4)), (4,)),
    Net("branches", lambda: Of(branches, **lin(4, 6, 4, 6, 8, 3)), (4,)),
    Net("masked", lambda: Of(masked, **lin(4, 6, 6, 2)), (4,)),
    Net("casts", lambda: Of(casts, **lin(4, 6, 6, 2)), (4,)),
    Net("einsum", lambda: Of(einsum, a=nn.Linear(4, 5, bias=False), b=nn.Linear(4, 4, bias=False)), (3, 5)),
    Net("time_major", lambda: Of(time_major, **lin(3, 4, 4, 2)), (5, 3)),
    Net("folded", lambda: Of(folded, **lin(3, 4, 4, 2)), (5, 3)),
    Net("tied", lambda: Of(tied, **lin(4, 7)), (4,)),
    Net("dict_output", lambda: Of(structured, **lin(4, 6, 6, 2, 6, 3)), (4,), options={"select": "hidden"}),
    Net(
        "tuple_output",
        lambda: Of(lambda m, x: (m.a(x), m.b(F.relu(m.a(x)))), **lin(4, 6, 6, 2)),
        (4,),
        options={"select": 1},
    ),
    Net("cut", lambda: Of(cut, **lin(4, 6, 6, 3)), (4,), options={"until": "b"}),
    Net("two_inputs", lambda: OfTwo(with_context, **lin(6, 6, 6, 2)), (4,), ((1, 2),), options={"over": 0}),
    Net("gated", lambda: OfTwo(gated, **lin(4, 6, 6, 2)), (4,), ((1, 6),), options={"over": 0}),
    Net("keyword", lambda: Of(plain, **lin(4, 6, 6, 2)), (4,), keyword="x"),
    Net("variadic", lambda: OfAny(plain, **lin(4, 6, 6, 2)), (4,)),
    Net(
        "tokens",
        lambda: Of(over_ids, words=nn.Embedding(11, 4), places=nn.Embedding(5, 4), **lin(4, 6)),
        (5,),
        tokens=11,
        options={"over": "words"},
    ),
    *(
        Net(
            f"bags_{mode}",
            lambda mode=mode: Of(over_bags, words=nn.EmbeddingBag(11, 4, mode=mode), **lin(4, 6)),
            (5,),
            tokens=11,
            options={"over": "words"},
        )
        for mode in ("mean", "sum", "max")
    ),
    Net("tensor_bounds", bounded, (4,)),
    Net(
        "weight_norm",
        lambda: Of(plain, a=parametrizations.weight_norm(nn.Linear(4, 6)), b=nn.Linear(6, 2)),
        (4,),
    ),
    Net(
        "spectral_norm",
        lambda: Of(plain, a=parametrizations.spectral_norm(nn.Linear(4, 6)), b=nn.Linear(6, 2)),
        (4,),
    ),
    Net("old_weight_norm", old_weight_norm, (4,)),
    Net("dropout", lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.4), nn.ReLU(), nn.Linear(6, 2)), (4,)),
    Net(
        "batch_norm_1d",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)),
        (4,),
    ),
    Net("degenerate", degenerate, (3,)),
    Net("affine", lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), (3,)),
    Net("scalar", lambda: nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 1)), (1,)),
    Net(
        "no_bias",
        lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)),
        (4,),
    ),
    Net("rnn", rnn, (5, 3)),
    Net(
        "bilinear_constant",
        lambda: Of(
            lambda m, x: m.f(F.relu(m.a(x)), torch.ones(x.shape[0], 2, dtype=x.dtype)),
            f=nn.Bilinear(6, 2, 3),
            **lin(4, 6),
        ),
        (4,),
    ),
]
