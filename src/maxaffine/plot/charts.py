"""Charts as small SVG pictures: they scale, follow a light or dark page, and need no plotting library.

Colours are CSS variables with a default and text takes the colour of its surroundings, so the same chart
works in a report, in a notebook and alone.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 480, 250  # user units; text of 13 units stays legible when a phone shows 340 pixels
LEFT, RIGHT, TOP, BOTTOM = 12, 12, 34, 46
COLOURS = ("var(--first, #0b7285)", "var(--second, #e8590c)")
SIGNS = ("var(--positive, #d9480f)", "var(--negative, #1c6dd0)")
STYLE = 'font-family="inherit" font-size="13" fill="currentColor"'


@dataclass(frozen=True)
class Svg:
    """A picture as SVG markup; a notebook shows it.

    >>> histogram([0., 1., 2.], {"all": [3, 1]}, "size").markup[:4]
    '<svg'
    """

    markup: str

    def _repr_svg_(self) -> str:
        return self.markup


def histogram(
    edges: Sequence[float], series: dict[str, Sequence[float]], label: str, log: bool = False, title: str = ""
) -> Svg:
    """Draw histograms over shared bins: ``edges`` (n + 1), n heights a series; ``log``: an axis in decades.

    Each series is scaled to its own highest bin, so that shapes compare whatever the numbers of entries.
    """
    place = _axis(edges[0], edges[-1], log)
    floor = HEIGHT - BOTTOM
    parts = [_ticks(edges[0], edges[-1], place, log), _text(WIDTH / 2, HEIGHT - 6, label, "middle")]
    for (name, heights), colour, column in zip(series.items(), COLOURS, (LEFT, WIDTH / 2), strict=False):
        top = max(max(heights), 1e-300)
        bars = " ".join(
            f"M{place(a):.1f} {floor}V{floor - (floor - TOP) * h / top:.1f}H{place(b):.1f}V{floor}Z"
            for a, b, h in zip(edges[:-1], edges[1:], heights, strict=True)
            if h > 0
        )
        parts.append(f'<path d="{bars}" fill="{colour}" fill-opacity=".62"/>')
        if len(series) > 1:
            parts.append(f'<rect x="{column}" y="6" width="12" height="12" rx="2" fill="{colour}"/>')
            parts.append(_text(column + 18, 17, name, "start"))
    return _svg("".join(parts), HEIGHT, title or f"histogram of {label}")


def signed_bars(names: Sequence[str], values: Sequence[float], title: str = "") -> Svg:
    """Draw one horizontal bar for each value, right of the middle if positive, left if negative."""
    row, name_width = 22, 120
    middle, reach = (WIDTH + name_width) / 2, (WIDTH - name_width) / 2 - 54
    top = max((abs(v) for v in values), default=0) or 1.0
    parts = []
    for k, (name, value) in enumerate(zip(names, values, strict=True)):
        length, y = reach * abs(value) / top, k * row
        x, colour = (middle, SIGNS[0]) if value >= 0 else (middle - length, SIGNS[1])
        end = middle + math.copysign(length + 5, value)
        parts.append(_text(0, y + 15, name, "start"))
        parts.append(f'<rect x="{x:.1f}" y="{y + 4}" width="{length:.1f}" height="14" fill="{colour}"/>')
        parts.append(_text(end, y + 15, f"{value:.3g}".replace("-", "−"), "start" if value >= 0 else "end"))
    height = row * len(names) + 4
    axis = f'<path d="M{middle} 0V{height}" stroke="currentColor" stroke-opacity=".4"/>'
    return _svg("".join([*parts, axis]), height, title or "signed values")


def bins(values: np.ndarray, count: int, log: bool = False) -> np.ndarray:
    """Return ``count`` + 1 bin edges over finite values, evenly spaced; ``log``: over whole decades.

    >>> bins(np.array([0., 4.]), 2).tolist()
    [0.0, 2.0, 4.0]
    >>> bins(np.array([.2, 3.]), 2, log=True).tolist()
    [0.1, 1.0, 10.0]
    """
    low, high = float(values.min()), float(values.max())
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return 10.0 ** np.linspace(first, max(last, first + 1), count + 1)
    return np.linspace(low, high if high > low else low + 1, count + 1)


def _axis(low: float, high: float, log: bool) -> Callable[[float], float]:
    """Return the map from a value to its horizontal place."""
    start, end = (math.log10(low), math.log10(high)) if log else (low, high)
    scale = (WIDTH - LEFT - RIGHT) / ((end - start) or 1.0)
    return lambda value: LEFT + scale * ((math.log10(value) if log else value) - start)


def _ticks(low: float, high: float, place: Callable[[float], float], log: bool) -> str:
    floor = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {floor}H{WIDTH - RIGHT}" stroke="currentColor" stroke-opacity=".45"/>']
    for value in _decades(low, high) if log else _round_values(low, high):
        x = place(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{floor + 5}" stroke="currentColor" stroke-opacity=".14"/>')
        anchor = "start" if x < LEFT + 14 else "end" if x > WIDTH - RIGHT - 14 else "middle"
        parts.append(_tick_text(x, floor + 19, value, anchor, log))
    return "".join(parts)


def _tick_text(x: float, y: float, value: float, anchor: str, log: bool) -> str:
    if not log:
        return _text(x, y, f"{value:.6g}".replace("-", "−"), anchor)
    exponent = str(round(math.log10(value))).replace("-", "−")
    raised = f'<tspan dy="-5" font-size="10">{exponent}</tspan>'
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" {STYLE}>10{raised}</text>'


def _round_values(low: float, high: float, about: int = 6) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten inside [low, high]."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float, most: int = 7) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first + 1) / most))
    return [10.0**k for k in range(first, last + 1, stride)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" {STYLE}>{html.escape(text)}</text>'


def _svg(content: str, height: float, title: str) -> Svg:
    label = html.escape(title, quote=True)
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    return Svg(f'<svg {space} {size} role="img" aria-label="{label}">{content}</svg>')
