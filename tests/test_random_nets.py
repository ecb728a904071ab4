"""The laws on drawn architectures: 50 in the suite, 500 with --hypothesis-profile=nightly."""

from __future__ import annotations

import copy

import laws
import torch
from hypothesis import assume, event, given
from net import differentiable
from strategies import Drawn, networks

import maxaffine as ma

WITH_TRUTH = (
    laws.assert_exact,
    laws.assert_complete,
    laws.assert_frozen,
    laws.assert_replay,
    laws.assert_jacobian,
)
ALONE = (
    laws.assert_products,
    laws.assert_region,
    laws.assert_walls,
    laws.assert_off_walls,
    laws.assert_margin,
    laws.assert_distance,
)


def wholly_padded(spline: ma.Spline, x: torch.Tensor) -> bool:
    """Whether a pooling window lies wholly in the padding: there the network is -inf, and the code is refused."""
    try:
        spline.code(x)
    except ma.errors.NotPiecewiseAffineError as refusal:
        if "wholly in the padding" not in str(refusal):
            raise
        return True
    return False


@given(networks())
def test_laws_on_a_drawn_network(drawn: Drawn) -> None:
    x = torch.randn(2, *drawn.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spline = ma.Spline(drawn.model, x[:1])
    event(f"{len(spline.operators)} operators")

    assume(not wholly_padded(spline, x))
    laws.assert_exact(spline, lambda z: drawn.model(z.clone()), x)
    judge = differentiable(copy.deepcopy(drawn.model))
    for law in WITH_TRUTH:
        law(spline, judge, x)
    for law in ALONE:
        law(spline, x)
