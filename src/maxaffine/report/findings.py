"""The findings: every number and array that a report shows, as plain values."""

from dataclasses import dataclass

import numpy as np

from maxaffine.geometry.plane import PlanePartition
from maxaffine.tiling.pixels import Window
from maxaffine.types import Shape


@dataclass(frozen=True)
class Layer:
    """One spline operator, the parameters of the affine maps before it, and the distinct codes it took."""

    name: str
    op: str
    pieces: int
    units: int
    shape: Shape
    parameters: int
    codes: int


@dataclass(frozen=True)
class Outputs:
    """What the network returned: outputs f(x) and frozen biases b[x], both (N, K), and the labels (N,).

    The template scores <A[x]_c, x> = f(x)_c - b[x]_c are ``outputs - biases``.
    """

    outputs: np.ndarray
    biases: np.ndarray
    labels: np.ndarray | None
    layers: tuple[Layer, ...]
    regions: int


def classifies(found: Outputs) -> bool:
    """Return whether the labels are classes and the outputs their scores."""
    return found.labels is not None and found.labels.dtype.kind == "i" and found.outputs.shape[1] > 1


@dataclass(frozen=True)
class Exactness:
    """max |f(x') - (A[x] x' + b[x])| over ``points`` other points x' of the regions of ``rows`` inputs.

    ``same`` of the points have the code of their x; ``scale`` is max |f(x')|.
    """

    points: int
    rows: int
    same: int
    worst: float
    scale: float


@dataclass(frozen=True)
class Margins:
    """Distance (N,) of inputs to the nearest wall of their region and the operator (N,) whose wall it is.

    ``norms`` (N,) are the lengths of the inputs, to compare; a distance is infinite where there is no wall.
    An input on a wall has distance 0; ``moved`` holds, for each of these, the distance from a point a
    thousandth of its length away.
    """

    distances: np.ndarray
    operators: tuple[str, ...]
    norms: np.ndarray
    moved: np.ndarray


@dataclass(frozen=True)
class Term:
    """One output at one input: score = inner + bias with inner = <template, x>; template (*in)."""

    output: int
    score: float
    inner: float
    bias: float
    template: np.ndarray


@dataclass(frozen=True)
class Example:
    """One input shown: its row in the data, its values (*in), its label or None, its leading outputs."""

    row: int
    x: np.ndarray
    label: int | None
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Neighbours:
    """The nearest inputs of some queries by one operator's code: rows (Q, k), distances (Q, k) of Eq. 15.

    ``agreement`` is the share of inputs whose nearest other input has the same label, None without
    labels.
    """

    operator: str
    queries: np.ndarray
    rows: np.ndarray
    distances: np.ndarray
    agreement: float | None
    compared: int


@dataclass(frozen=True)
class Overview:
    """The largest output at the points of a grid: classes (rows, columns), the lowest row first, of a window in (s, t).

    ``places`` (3, 2) are the inputs in it, ``square`` (4, 2) the corners of the part that was partitioned.
    """

    classes: np.ndarray
    window: Window
    places: np.ndarray
    square: np.ndarray


@dataclass(frozen=True)
class Slice:
    """The partition of the plane through three inputs (their ``rows``), or why there is none (``note``).

    ``share`` is the width of the square that was partitioned, as a share of the plane's. It is 1, or the square is a
    part around the first input (``turned``: around the point where the line from there to the second input leaves the
    first's largest output) and an ``overview`` shows the whole. ``places`` (3, 2) are the inputs in it.
    """

    rows: tuple[int, ...]
    partition: PlanePartition | None
    share: float
    exactness: Exactness | None
    overview: Overview | None
    places: np.ndarray | None
    turned: bool
    note: str


@dataclass(frozen=True)
class Findings:
    """Everything measured for one report."""

    outputs: Outputs
    exactness: Exactness
    margins: Margins
    examples: tuple[Example, ...]
    neighbours: tuple[Neighbours, ...]
    pool: int
    slice: Slice | None = None
