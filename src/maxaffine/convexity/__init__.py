"""Networks that are convex in their input, so one single MASO: the certificate, and training that keeps it.

>>> import torch, maxaffine as ma
>>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
>>> project_nonnegative(net)
('2',)
>>> is_convex(ma.Spline(net, torch.zeros(1, 2))).convex
True

Source: Balestriero and Baraniuk, 2018, arXiv 1805.06576, Theorem 2.
"""

from maxaffine.convexity.certificate import Certificate, is_convex
from maxaffine.convexity.training import parametrize_nonnegative, project_nonnegative

__all__ = ["Certificate", "is_convex", "parametrize_nonnegative", "project_nonnegative"]
