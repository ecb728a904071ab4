"""Matplotlib, imported when a picture is made."""

from types import ModuleType
from typing import TYPE_CHECKING

from maxaffine.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d1c1a"
MISSING = 'pictures of partitions need matplotlib: pip install "maxaffine[report]"'


def pyplot() -> ModuleType:
    """matplotlib.pyplot. Raises MissingExtraError."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError(MISSING) from error
    return plt


def figure(size: tuple[float, float]) -> "Figure":
    """A figure of its own, in inches, that no window shows: to be drawn into and saved. Raises MissingExtraError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(MISSING) from error
    return Figure(figsize=size, layout="constrained")


def new_axes() -> "Axes":
    """The axes of a new figure."""
    return pyplot().subplots(figsize=(6.4, 5.6), layout="constrained")[1]


def new_panels(count: int, columns: int, width: float = 2.5) -> "tuple[Figure, list[Axes]]":
    """A figure of ``count`` square panels, ``columns`` in a row."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(width * columns, (width + 0.35) * rows), layout="constrained", squeeze=False
    )
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(axes.flat[:count])
