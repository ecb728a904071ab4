"""Approximation of smooth functions by splines, with a stated sup error.

`tangents` turns a convex function into a max-affine spline. `approximate` turns any smooth activation into a
continuous spline of few pieces, which need not be convex: sigmoid and tanh are no limits of MASOs.

>>> g = approximate("sigmoid", pieces=7)
>>> g.pieces, round(g.error, 4)
(7, 0.0084)

Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576 (what is a MASO, and what splines only approximate).
"""

from maxaffine.approximation.smooth import SMOOTH, Smooth
from maxaffine.approximation.supnorm import Approximation, approximate
from maxaffine.approximation.tangent import tangents

__all__ = ["SMOOTH", "Approximation", "Smooth", "approximate", "tangents"]
