"""The code of a network as a codebook: which inputs share words, how far apart they are, and what the words look like.

A network quantises its inputs layer by layer (Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5).

- Structure: `cells`, `occupancy`, `Vocabulary`, `nearest`, `class_agreement`, `clusters`, `average_linkage`,
  `embedding`, `against_euclidean`, `crossings`, `arrangement_bound`.
- Cells: `unit_diagram`, `layer_diagram`, `network_diagram`, `head_diagram`, nearest centroids up to a radius;
  `TiedMaxout`, `TiedLinear`, `TiedConv2d`, layers that do K-means; `joint_code` against the factorial one.
- Comparison: `compare`, of two networks, two epochs or two depths on the same inputs.
- Variants: `part` of a code; `fuse_pooling`, ReLU and max-pooling as one operator; `soft_distance`, a surrogate.

>>> import torch, maxaffine as ma
>>> from maxaffine.codebook import class_agreement, occupancy
>>> x = torch.cat([torch.randn(30, 4) + 3, torch.randn(30, 4) - 3])
>>> code = ma.Spline(torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU()), x).code(x)
>>> class_agreement(code, [0] * 30 + [1] * 30, k=(1,)).shares.shape, occupancy(code).depths
((1, 1), ('1', 'network'))
"""

from maxaffine.codebook.comparison import Comparison, compare
from maxaffine.codebook.fusing import ALL_OFF, fuse_pooling
from maxaffine.codebook.grouping import average_linkage, clusters, embedding
from maxaffine.codebook.layers import TiedConv2d, TiedLinear, TiedMaxout, tied, tied_bias
from maxaffine.codebook.neighbours import Agreement, Nearest, class_agreement, nearest
from maxaffine.codebook.occupied import WHOLE, Occupancy, Vocabulary, cells, occupancy, part
from maxaffine.codebook.pairs import (
    AgainstEuclidean,
    Crossings,
    against_euclidean,
    arrangement_bound,
    crossings,
)
from maxaffine.codebook.power import (
    PowerDiagram,
    codewords,
    head_diagram,
    joint_code,
    layer_diagram,
    network_diagram,
    unit_diagram,
)
from maxaffine.codebook.soft import soft_distance

__all__ = [
    "ALL_OFF",
    "WHOLE",
    "AgainstEuclidean",
    "Agreement",
    "Comparison",
    "Crossings",
    "Nearest",
    "Occupancy",
    "PowerDiagram",
    "TiedConv2d",
    "TiedLinear",
    "TiedMaxout",
    "Vocabulary",
    "against_euclidean",
    "arrangement_bound",
    "average_linkage",
    "cells",
    "class_agreement",
    "clusters",
    "codewords",
    "compare",
    "crossings",
    "embedding",
    "fuse_pooling",
    "head_diagram",
    "joint_code",
    "layer_diagram",
    "nearest",
    "network_diagram",
    "occupancy",
    "part",
    "soft_distance",
    "tied",
    "tied_bias",
    "unit_diagram",
]
