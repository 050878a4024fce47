"""Positions of the marks in charts, in percent of the chart's size; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from genrec.evaluation.results import Evaluation, cell, short
from genrec.metrics import PairedDifference
from genrec.report.pages import percent

LINES = 23
"""Number of text lines that fit the height of a scatter plot."""


def bars(
    evaluations: Sequence[Evaluation], metric: str, places: int, subject: Evaluation
) -> list[dict[str, Any]]:
    """Return bars from zero with whiskers for the intervals.

    Args:
        evaluations: one per bar.
        metric: metric to show.
        places: decimals.
        subject: evaluation to highlight.
    """
    ends = [each.intervals.get(metric, (each.metrics[metric],) * 2) for each in evaluations]
    full = 1.02 * max(max(high for _, high in ends), 1e-9)
    return [
        {
            "name": each.name,
            "text": " ".join(cell(each, metric, places)).strip(),
            "value": short(each.metrics[metric], places),
            "width": percent(each.metrics[metric] / full),
            "low": percent(low / full),
            "high": percent(high / full),
            "subject": each is subject,
        }
        for each, (low, high) in zip(evaluations, ends, strict=True)
    ]


def difference_row(name: str, found: PairedDifference) -> dict[str, Any]:
    """Format a paired difference, with a verdict."""
    mean, low, high = found
    return {
        "name": name,
        "difference": f"{'+' if mean > 0 else ''}{short(mean, 4)}",
        "interval": f"[{short(low, 4)}, {short(high, 4)}]",
        "verdict": "better" if low > 0 else "worse" if high < 0 else "no difference shown",
    }


def differences(found: Sequence[tuple[str, PairedDifference]]) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of a chart of paired differences, and the position of zero."""
    low = min([0.0, *(each.low for _, each in found)])
    high = max([0.0, *(each.high for _, each in found)])
    width = 1.08 * (high - low) or 1.0
    left = low - 0.04 * (high - low)
    rows = [
        difference_row(name, each)
        | {
            "mean": percent((each.difference - left) / width),
            "low": percent((each.low - left) / width),
            "high": percent((each.high - left) / width),
        }
        for name, each in found
    ]
    return rows, percent(-left / width)


def scatter(points: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Lay out a scatter plot.

    Time is on a logarithmic horizontal axis; quality is on a vertical axis that starts at zero.

    Args:
        points: (name, time in ms, quality) of each point.
    """
    times = [math.log10(max(time, 1e-4)) for _, time, _ in points]
    left, right = math.floor(min(times)), math.ceil(max(times))
    right += right == left
    top = 1.1 * max([value for _, _, value in points] + [1e-9])
    places = [
        ((at - left) / (right - left), 1 - value / top)
        for (_, _, value), at in zip(points, times, strict=True)
    ]
    return {
        "points": [
            {"name": name, "x": percent(x), "y": percent(y), **label}
            for (name, _, _), (x, y), label in zip(points, places, _labels(places), strict=True)
        ],
        "ticks": [
            (percent((tick - left) / (right - left)), _time(10.0**tick))
            for tick in range(left, right + 1)
        ],
        "heights": [(percent(1 - n / 4), short(top * n / 4)) for n in range(5)],
    }


def _labels(places: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """Place each label right of its point, or left near the edge, and below labels in its way."""
    drops = [0] * len(places)
    order = sorted(range(len(places)), key=lambda n: places[n][1])
    for turn, number in enumerate(order):
        (x, y), taken = places[number], []
        for other in order[:turn]:
            if abs(places[other][0] - x) < 0.2:
                taken.append(LINES * places[other][1] + drops[other])
        while any(abs(LINES * y + drops[number] - line) < 1 for line in taken):
            drops[number] += 1
    left = [x > 0.6 for x, _ in places]
    return [
        {"anchor": "end" if far else "start", "shift": -9 if far else 9, "drop": 4 + 13 * drop}
        for far, drop in zip(left, drops, strict=True)
    ]


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:g} s"
    return f"{milliseconds:g} ms" if milliseconds >= 1 else f"{1000 * milliseconds:g} µs"
