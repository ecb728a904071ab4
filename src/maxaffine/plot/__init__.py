"""Pictures: partitions of planes and lines with matplotlib, and charts as SVG that need no plotting library.

plane = ma.partition(spline, ma.Plane.through(a, b, c))
maxaffine.plot.partition(plane, colour="class", boundary=True, points=torch.stack([a, b, c]), labels=["3", "5", "8"])
"""

from maxaffine.plot.charts import Svg, bins, histogram, signed_bars
from maxaffine.plot.codes import class_agreement, comparison, distances, embedding, neighbours, occupancy
from maxaffine.plot.curves import line
from maxaffine.plot.library import figure
from maxaffine.plot.panels import layers, training, units
from maxaffine.plot.planes import partition
from maxaffine.plot.template_pictures import template_histograms, templates

__all__ = [
    "Svg",
    "bins",
    "class_agreement",
    "comparison",
    "distances",
    "embedding",
    "figure",
    "histogram",
    "layers",
    "line",
    "neighbours",
    "occupancy",
    "partition",
    "signed_bars",
    "template_histograms",
    "templates",
    "training",
    "units",
]
