"""Penalties that make rows orthogonal: of the last layer, of every layer, or of the templates themselves.

>>> import torch, maxaffine as ma
>>> from maxaffine.penalties import Penalty
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
>>> x, y = torch.randn(10, 4), torch.randint(3, (10,))
>>> penalty = Penalty(net, 0.1, on="templates")
>>> loss = torch.nn.functional.cross_entropy(net(x), y) + penalty(x)
>>> loss.backward()
"""

from maxaffine.penalties.convolutions import convolutional_orthogonality
from maxaffine.penalties.hard import hard_orthogonality, remove_hard_orthogonality
from maxaffine.penalties.head import last_layer
from maxaffine.penalties.layers import Layer, all_layers
from maxaffine.penalties.penalty import Penalty
from maxaffine.penalties.rows import norm_control, orthogonality
from maxaffine.penalties.template_gram import template_orthogonality
from maxaffine.penalties.whole import soft_orthogonality, srip

__all__ = [
    "Layer",
    "Penalty",
    "all_layers",
    "convolutional_orthogonality",
    "hard_orthogonality",
    "last_layer",
    "norm_control",
    "orthogonality",
    "remove_hard_orthogonality",
    "soft_orthogonality",
    "srip",
    "template_orthogonality",
]
