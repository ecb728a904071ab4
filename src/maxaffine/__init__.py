"""maxaffine: a trained network as what it mathematically is, a composition of max-affine spline operators.

>>> import torch, maxaffine as ma
>>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
>>> x = torch.randn(5, 2, dtype=torch.float64)
>>> f = ma.Spline(net, x).at(x)
>>> bool(((f.A @ x[..., None])[..., 0] + f.b - net(x)).abs().max() < 1e-12)
True
"""

from maxaffine import errors
from maxaffine.affine import AffineMap
from maxaffine.approximation import Approximation, approximate, tangents
from maxaffine.code import Code, distance, pairwise_distance
from maxaffine.convexity import Certificate, is_convex, parametrize_nonnegative, project_nonnegative
from maxaffine.explicit import maso_of
from maxaffine.files import load
from maxaffine.geometry import partition
from maxaffine.margins import margin
from maxaffine.operators.maso import MASO
from maxaffine.operators.registry import declare, register
from maxaffine.penalties import Penalty, hard_orthogonality, orthogonality, template_orthogonality
from maxaffine.polytope import Region
from maxaffine.search import CodeIndex, near_duplicates
from maxaffine.slice import Plane, Segment
from maxaffine.spline import Spline
from maxaffine.templates import Templates, TemplateStatistics, template_statistics
from maxaffine.types import __version__ as __version__

__all__ = [
    "MASO",
    "AffineMap",
    "Approximation",
    "Certificate",
    "Code",
    "CodeIndex",
    "Penalty",
    "Plane",
    "Region",
    "Segment",
    "Spline",
    "TemplateStatistics",
    "Templates",
    "approximate",
    "declare",
    "distance",
    "errors",
    "hard_orthogonality",
    "is_convex",
    "load",
    "margin",
    "maso_of",
    "near_duplicates",
    "orthogonality",
    "pairwise_distance",
    "parametrize_nonnegative",
    "partition",
    "project_nonnegative",
    "register",
    "tangents",
    "template_orthogonality",
    "template_statistics",
]
