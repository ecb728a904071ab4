"""The code of a signal: which piece of every spline operator is active. It names the region of the input space.

A network is a hierarchical vector quantiser (Balestriero & Baraniuk 2018, arXiv 1805.06576, section 5): the code is the
codeword, equal codes mean the same affine map, and the share of differing units is a distance between signals.
"""

from maxaffine.code.hamming import distance, distance_chunks, pairwise_distance
from maxaffine.code.signature import Signature, Units
from maxaffine.code.value import Code, concatenate, index_of, same_signature
from maxaffine.code.weights import Weights

__all__ = [
    "Code",
    "Signature",
    "Units",
    "Weights",
    "concatenate",
    "distance",
    "distance_chunks",
    "index_of",
    "pairwise_distance",
    "same_signature",
]
