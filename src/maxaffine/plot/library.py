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


def new_axes(aspect: float = 1.0, beside: float = 0.0) -> "Axes":
    """The axes of a new figure for a picture ``aspect`` times as high as wide, with room (inches) beside it."""
    width = 6.0 if aspect <= 1 else 6.0 / aspect
    size = (max(width, 3.0) + 0.6 + beside, max(width * aspect, 2.0) + 1.0)
    return pyplot().subplots(figsize=size, layout="constrained")[1]


def new_panels(count: int, columns: int, aspect: float = 1.0) -> "tuple[Figure, list[Axes]]":
    """A figure of ``count`` panels, ``columns`` in a row, each ``aspect`` times as high as wide."""
    columns = min(count, columns)
    width = min(3.9, 10.4 / columns)
    rows = -(-count // columns)
    figure, axes = pyplot().subplots(
        rows,
        columns,
        figsize=(width * columns, (width * aspect + 0.2) * rows + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    return figure, list(axes.flat[:count])
