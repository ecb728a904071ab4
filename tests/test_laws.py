"""Every law on every small network, and every law shown to fail when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import laws
import pytest
import torch
from net import Net, differentiable, inputs_of, model_of, output_of
from nets import BY_NAME, NETS, captured

import maxaffine as ma

CHAINS = ("mlp", "ramp_relu", "cnn", "batch_norm_1d", "conv1d", "generator", "no_bias")
VECTORS = ("mlp", "residual", "maxout", "cnn", "tied", "two_inputs", "tokens", "rnn")


def judged(name: str, dtype: torch.dtype = torch.float64) -> tuple[ma.Spline, laws.Truth]:
    """The spline of a network of the list, and the network as a function of the spline's input."""
    net, judge = BY_NAME[name], differentiable(model_of(BY_NAME[name], dtype))
    return captured(name, dtype), lambda x: output_of(net, judge, x.clone())


def failures(checks: dict[str, Callable[[], None]]) -> dict[str, str]:
    """The laws that do not hold, with their reason."""
    broken = {}
    for name, check in checks.items():
        try:
            check()
        except Exception as error:  # all laws of a network are reported together
            broken[name] = f"{type(error).__name__}: {error}"
    return broken


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_laws(net: Net) -> None:
    spline, truth = judged(net.name)
    x = inputs_of(net, 3)
    laws.assert_exact(spline, lambda z: output_of(net, model_of(net), z.clone()), x)
    with_truth = {law.__name__: lambda law=law: law(spline, truth, x) for law in laws.LAWS_WITH_TRUTH}
    alone = {law.__name__: lambda law=law: law(spline, x) for law in laws.LAWS_ALONE}
    assert failures(with_truth | alone) == {}


@pytest.mark.parametrize("name", [net.name for net in NETS if net.name.startswith("ramp_")])
def test_the_inputs_of_the_laws_reach_every_piece(name: str) -> None:
    spline, code = captured(name), captured(name).code(inputs_of(BY_NAME[name], 3))
    seen = torch.cat([code[operator.name].flatten() for operator in spline.operators]).unique()
    assert seen.tolist() == list(range(spline.operators[0].pieces))


@pytest.mark.parametrize("name", CHAINS)
def test_stages_of_a_chain(name: str) -> None:
    laws.assert_stages(captured(name), inputs_of(BY_NAME[name], 2))


@pytest.mark.parametrize("name", VECTORS)
def test_rows(name: str) -> None:
    laws.assert_rows(captured(name), inputs_of(BY_NAME[name], 3))


@pytest.mark.parametrize("name", ["mlp", "cnn", "maxout", "affine"])
def test_margins_in_other_norms(name: str) -> None:
    laws.assert_norms(captured(name), inputs_of(BY_NAME[name], 2))


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn", "tokens"])
def test_float32(name: str) -> None:
    spline, truth = judged(name, torch.float32)
    x = inputs_of(BY_NAME[name], 5, torch.float32)
    laws.assert_exact(spline, truth, x, 1e-5)
    f = spline.at(x)
    assert f.A.dtype == f.b.dtype == torch.float32
    wide = spline.to(torch.float64)
    laws.assert_close(wide(x.double()), truth(x).double(), 1e-5)
    assert spline(x).dtype == torch.float32


def test_the_dead_walls_of_a_degenerate_network_are_left_out() -> None:
    spline = captured("degenerate")
    for point in inputs_of(BY_NAME["degenerate"], 3):
        region = spline.region(point)
        assert bool((region.G.norm(dim=1) > 0).all())
        assert len(region.h) < 16
    affine = captured("affine").region(torch.zeros(3, dtype=torch.float64))
    assert len(affine.h) == 0 and affine.margin() == torch.inf


# ---- each law fails on something wrong -------------------------------------------------------------------


class Tampered:
    """A spline, or a map, with some of its answers replaced."""

    @property
    def __class__(self) -> type:
        """Taken for what it replaces."""
        return type(self.spline)

    def __init__(self, spline: Any, **replaced: Any) -> None:
        self.spline, self.replaced = spline, replaced

    def __getattr__(self, name: str) -> Any:
        return self.replaced[name] if name in self.replaced else getattr(self.spline, name)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.replaced.get("call", self.spline)(x)


def bent(f: Any, **replaced: Any) -> Tampered:
    """An affine map with some of its answers replaced."""
    return Tampered(f, **replaced)


@dataclass(frozen=True)
class Wrong:
    """A law, and a wrong spline that it must not accept."""

    law: Callable[..., None]
    tamper: Callable[[ma.Spline], Any]
    name: str = "mlp"


def at(change: Callable[[Any], dict[str, Any]], **only: str) -> Callable[[ma.Spline], Any]:
    """A spline whose maps are changed; with `input=`/`output=` only those maps."""

    def tamper(spline: ma.Spline) -> Any:
        def answer(x: torch.Tensor, **asked: Any) -> Any:
            f = spline.at(x, **asked)
            return bent(f, **change(f)) if set(only) <= set(asked) else f

        return Tampered(spline, at=answer)

    return tamper


def region(change: Callable[[Any], Any]) -> Callable[[ma.Spline], Any]:
    """A spline whose walls are pushed: the polytope {G z <= change(h)}."""

    def tamper(spline: ma.Spline) -> Any:
        def answer(x: torch.Tensor) -> Any:
            true = spline.region(x)
            h = change(true.h)
            return bent(true, h=h, contains=lambda z: (z.flatten(-x.dim()) @ true.G.T <= h).all(-1))

        return Tampered(spline, region=answer)

    return tamper


def shifted_code(spline: ma.Spline) -> Any:
    """Answers with the code of the next input."""
    return Tampered(spline, code=lambda x: spline.code(x.roll(1, 0)))


def coarse_code(spline: ma.Spline) -> Any:
    """Answers with the code of the input rounded to one digit."""
    return Tampered(spline, code=lambda x: spline.code(x.round(decimals=1)))


def everywhere(spline: ma.Spline) -> Any:
    """A region that contains every point."""
    return Tampered(spline, region=lambda x: bent(spline.region(x), contains=lambda z: z.sum(-1) < torch.inf))


def on_walls(spline: ma.Spline) -> Any:
    """Regions of the one point alone: every wall goes through it."""

    def answer(x: torch.Tensor) -> Any:
        true = spline.region(x)
        return bent(true, h=true.G @ x.flatten())

    return Tampered(spline, region=answer)


def other_region(spline: ma.Spline) -> Any:
    """Answers with the map of a region farther out."""
    return Tampered(spline, at=lambda x: spline.at(x + 3.0))


def unfrozen(spline: ma.Spline) -> Any:
    """A replay that looks at the point, not at the code."""
    return Tampered(spline, replay=lambda _code, x: spline(x))


def mixed(spline: ma.Spline) -> Any:
    """Rows that look at each other."""
    return Tampered(spline, call=lambda x: spline(x - x.mean(0)))


WRONG = [
    Wrong(laws.assert_exact, lambda s: Tampered(s, call=lambda x: s(x) + 1e-6)),
    Wrong(laws.assert_exact, lambda s: Tampered(s, call=lambda x: s(x).float())),
    Wrong(laws.assert_complete, at(lambda f: {"b": f.b + 1e-6})),
    Wrong(laws.assert_complete, at(lambda f: {"A": f.A * (1 + 1e-6)})),
    Wrong(laws.assert_frozen, other_region),
    Wrong(laws.assert_replay, unfrozen),
    Wrong(laws.assert_replay, shifted_code),
    Wrong(laws.assert_jacobian, at(lambda f: {"A": f.A + 1e-6})),
    Wrong(laws.assert_products, at(lambda f: {"mv": lambda v: f.mv(v) + 1e-6})),
    Wrong(laws.assert_products, at(lambda f: {"vm": lambda u: f.vm(u) * (1 + 1e-6)})),
    Wrong(laws.assert_rows, at(lambda f: {"rows": lambda c: f.rows(c.flip(0))})),
    Wrong(laws.assert_adjoint, at(lambda f: {"vm": lambda u: f.vm(u) * (1 + 1e-6)})),
    Wrong(laws.assert_offset, at(lambda f: {"b": f.b + 1e-6})),
    Wrong(laws.assert_region, everywhere),
    Wrong(laws.assert_region, region(lambda h: h - 10.0)),
    Wrong(laws.assert_off_walls, on_walls),
    Wrong(laws.assert_walls, region(lambda h: h + 0.1)),
    Wrong(laws.assert_walls, region(lambda h: h - 0.01)),
    Wrong(laws.assert_walls, coarse_code),
    Wrong(laws.assert_margin, region(lambda h: h + 0.01)),
    Wrong(laws.assert_norms, region(lambda h: h + 0.01)),
    Wrong(laws.assert_rows_independent, mixed),
    Wrong(laws.assert_preactivations, at(lambda f: {"call": lambda x: f(x) + 1.0}, output="")),
    Wrong(laws.assert_stages, at(lambda f: {"call": lambda x: f(x) + 1e-6}, input="")),
    Wrong(laws.assert_stages, at(lambda f: {"A": f.A * 1.001}, input="")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.law.__name__)
def test_each_law_can_fail(wrong: Wrong) -> None:
    spline, truth = judged(wrong.name)
    x = inputs_of(BY_NAME[wrong.name], 4)
    arguments = (truth, x) if wrong.law in laws.LAWS_WITH_TRUTH else (x,)
    wrong.law(spline, *arguments)
    with pytest.raises(AssertionError):
        wrong.law(wrong.tamper(spline), *arguments)


def test_the_law_of_distance_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    spline, x = captured("cnn"), inputs_of(BY_NAME["cnn"], 4)
    laws.assert_distance(spline, x)
    true = ma.distance

    def per_operator(p: Any, q: Any, operators: Any = None) -> torch.Tensor:
        """Each operator counts alike, however many units it has: not Eq. 15."""
        names = operators or [operator.name for operator in spline.operators]
        return torch.stack([true(p, q, operators=[name]) for name in names]).mean(0)

    monkeypatch.setattr(laws, "ma", SimpleNamespace(distance=per_operator, pairwise_distance=ma.pairwise_distance))
    with pytest.raises(AssertionError):
        laws.assert_distance(spline, x)
