"""Plots as SVG text that reads well on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 790
LABELS, VALUES = 325, 185
"""Width of the labels left of dots, and of the numbers right of them."""
ROW, TOP, AXIS = 26, 30, 34
HEIGHT = 300
"""Height of the area that curves are drawn in."""
TEXT, GRID, MARK = "#78818d", "#c3c9d1", "#14857b"
COLOURS = ("#14857b", "#c2410c", "#4f6bd8", "#a16207", "#9333a8", "#78818d")


class Point(NamedTuple):
    """A value with its interval, at a place on the horizontal axis."""

    x: float
    y: float
    low: float
    high: float


def dots(title: str, rows: Sequence[tuple[str, float, float, float]], *, zero: bool) -> str:
    """Draw one value per row with its interval.

    Args:
        title: heading of the plot.
        rows: label, value, and ends of the interval.
        zero: draw a line at zero, for differences.
    """
    ends = [end for _, _, low, high in rows for end in (low, high)] + ([0.0] if zero else [])
    left, right = _padded(min(ends), max(ends))
    area = WIDTH - LABELS - VALUES

    def place(value: float) -> float:
        return LABELS + area * (value - left) / (right - left)

    bottom = TOP + ROW * len(rows)
    parts = [_text(0, 14, title, "start", bold=True)]
    for tick in _ticks(left, right):
        parts.append(_line(place(tick), TOP, place(tick), bottom, GRID))
        parts.append(_text(place(tick), bottom + 16, _short(tick), "middle"))
    if zero:
        parts.append(_line(place(0), TOP, place(0), bottom, TEXT, 1.5))
    for number, (label, value, low, high) in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        parts.append(_text(LABELS - 10, y + 4, label, "end"))
        parts.append(_line(place(low), y, place(high), y, MARK, 2))
        parts.append(f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="4.5" fill="{MARK}"/>')
        interval = f" [{_short(low)}, {_short(high)}]" if low < high else ""
        number_text = _short(value, sign=zero) + interval
        parts.append(_text(LABELS + area + 12, y + 4, number_text, "start", size=11))
    return _svg(parts, bottom + AXIS - 8, title)


def curves(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    y_label: str,
    joined: bool = True,
) -> str:
    """Draw one curve per series with its intervals.

    The horizontal axis is logarithmic if the values span more than a factor of ten.

    Args:
        title: heading of the plot.
        series: points of each curve by name.
        x_label: name and unit of the horizontal axis.
        y_label: name and unit of the vertical axis.
        joined: join the points of a series by lines.
    """
    points = [point for each in series.values() for point in each]
    xs = [point.x for point in points]
    logarithmic = min(xs) > 0 and max(xs) > 10 * min(xs)
    scale = math.log10 if logarithmic else float
    left, right = _padded(min(map(scale, xs)), max(map(scale, xs)))
    low, high = _padded(min(p.low for p in points), max(p.high for p in points))
    area, start = WIDTH - 80, 70
    top = TOP + 16 * len(series)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            start + area * (scale(x) - left) / (right - left),
            top + HEIGHT * (1 - (y - low) / (high - low)),
        )

    parts = [_text(0, 14, title, "start", bold=True)]
    for tick in _ticks(low, high):
        y = at(points[0].x, tick)[1]
        parts.append(_line(start, y, start + area, y, GRID))
        parts.append(_text(start - 6, y + 4, _short(tick), "end"))
    for x in _spread(sorted(set(xs)), lambda x: at(x, low)[0]):
        parts.append(_text(at(x, low)[0], top + HEIGHT + 16, _short(x), "middle"))
    for number, (name, own) in enumerate(series.items()):
        places = [(at(*p[:2]), at(p.x, p.low), at(p.x, p.high)) for p in own]
        parts += _curve(name, places, number, joined)
    unit = f"{x_label}{', logarithmic' if logarithmic else ''}; vertical: {y_label}"
    parts.append(_text(start, top + HEIGHT + 34, unit, "start"))
    return _svg(parts, top + HEIGHT + 42, title)


def _curve(
    name: str, places: Sequence[tuple[tuple[float, float], ...]], number: int, joined: bool
) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    y = TOP + 16 * number
    path = " ".join(f"{x:.1f},{y:.1f}" for (x, y), _, _ in places)
    parts = [
        f'<circle cx="76" cy="{y - 4}" r="4.5" fill="{colour}"/>',
        _text(86, y, name, "start"),
    ]
    if joined:
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for (x, middle), (_, low), (_, high) in places:
        parts.append(_line(x, low, x, high, colour))
        parts.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>')
    return parts


def _spread(values: Sequence[float], place: object) -> list[float]:
    """Return the values whose labels do not touch each other."""
    assert callable(place)
    kept: list[float] = []
    for value in values:
        if not kept or place(value) - place(kept[-1]) > 40:
            kept.append(value)
    return kept


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or max(abs(low), 1e-3) * 0.1
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two values."""
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(each for each in (step / 5, step / 2, step, 2 * step) if (high - low) / each <= 6)
    first = math.ceil(low / step)
    return [round(step * n, 12) for n in range(first, math.floor(high / step) + 1)]


def _short(value: float, *, sign: bool = False) -> str:
    size = abs(value)
    if size >= 1e4:
        power = "M" if size >= 1e6 else "k"
        return f"{value / (1e6 if power == 'M' else 1e3):.3g} {power}"
    text = f"{value:.4f}" if size < 0.1 else f"{value:.3f}" if size < 10 else f"{value:.4g}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    text = text if text not in ("-0", "") else "0"
    return (f"+{text}" if sign and value > 0 else text).replace("-", "−")


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False, size: int = 12) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{TEXT}"'
        f"{weight}>{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="{escape(title)}" '
        f'font-family="system-ui, sans-serif">\n{body}\n</svg>\n'
    )
