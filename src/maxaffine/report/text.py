"""Numbers and names as people read them on the page."""

import html
import math


def number(value: float, digits: int = 3) -> str:
    r"""Write a number with few digits; a very small or large one as a power of ten, in HTML.

    >>> number(-12.3456), number(3.1e-15), number(0.0)
    ('−12.3', '3.1\xa0×\xa010<sup>−15</sup>', '0')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "—"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return grouped(value, digits)
    exponent = math.floor(math.log10(abs(value)))
    mantissa = f"{value / 10.0**exponent:.2g}".replace("-", "−")
    return f"{mantissa}\xa0×\xa010<sup>{str(exponent).replace('-', '−')}</sup>"


def grouped(value: float, digits: int = 3) -> str:
    """Write a number of ordinary size with ``digits`` significant digits, never dropping whole ones.

    >>> grouped(12345.6), grouped(0.04567), grouped(2.0)
    ('12,346', '0.0457', '2.00')
    """
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}".replace("-", "−")


def count(value: int) -> str:
    """Write a whole number.

    >>> count(188416)
    '188,416'
    """
    return f"{value:,}"


def percent(share: float) -> str:
    """Write a share; 100 % only when it is all.

    >>> percent(0.98333), percent(1.0), percent(0.99996)
    ('98.3 %', '100 %', '99.99 %')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share > 0.999:
        return f"{math.floor(share * 1e4) / 100:.2f} %"
    return f"{100 * share:.1f} %"


def several(amount: int, noun: str, plural: str = "") -> str:
    """Write an amount with its noun.

    >>> several(1, "input"), several(2000, "input"), several(2, "class", "classes")
    ('1 input', '2,000 inputs', '2 classes')
    """
    return f"{count(amount)} {noun if amount == 1 else plural or noun + 's'}"


def escape(text: str) -> str:
    """Return text that HTML shows as it is."""
    return html.escape(text, quote=True)


def breakable(name: str) -> str:
    """Escape a path-like name and let a narrow column break it after dots, slashes and underscores."""
    return "".join(escape(c) + ("<wbr>" if c in "./_@" else "") for c in name)
