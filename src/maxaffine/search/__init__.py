"""Search among codes: nearest neighbours, cells and near-duplicates at the scale of a data set, exact by default.

The distance is Eq. 15, the share of units whose pieces differ (Balestriero & Baraniuk 2018, arXiv 1805.06576,
section 5), found as a Hamming distance of rows of bits in which every unit that differs costs the same.
"""

from maxaffine.search.duplicates import Duplicates, near_duplicates
from maxaffine.search.index import CodeIndex
from maxaffine.search.layout import Layout, layout_of
from maxaffine.search.neighbours import Neighbours

__all__ = ["CodeIndex", "Duplicates", "Layout", "Neighbours", "layout_of", "near_duplicates"]
