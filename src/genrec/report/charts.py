"""Where the marks of a chart stand, in percent of its width; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from genrec.evaluation import Evaluation, cell, short
from genrec.metrics import PairedDifference
from genrec.report.pages import percent


def bars(
    evaluations: Sequence[Evaluation], metric: str, places: int, subject: Evaluation
) -> list[dict[str, Any]]:
    """Bars from zero with interval whiskers."""
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
    """A paired difference as text, with a verdict."""
    mean, low, high = found
    return {
        "name": name,
        "difference": f"{'+' if mean > 0 else ''}{short(mean, 4)}",
        "interval": f"[{short(low, 4)}, {short(high, 4)}]",
        "verdict": "better" if low > 0 else "worse" if high < 0 else "no difference shown",
    }


def differences(found: Sequence[tuple[str, PairedDifference]]) -> tuple[list[dict[str, Any]], str]:
    """Rows of a chart around zero, and where zero stands."""
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
    """Names with (time, quality), the former on a logarithmic axis, quality upwards from zero."""
    times = [math.log10(max(time, 1e-4)) for _, time, _ in points]
    left, right = math.floor(min(times)), math.ceil(max(times))
    right += right == left
    top = 1.1 * max([value for _, _, value in points] + [1e-9])
    return {
        "points": [
            {
                "name": name,
                "x": percent((at - left) / (right - left)),
                "y": percent(1 - value / top),
                "anchor": "end" if (at - left) / (right - left) > 0.6 else "start",
                "shift": -9 if (at - left) / (right - left) > 0.6 else 9,
            }
            for (name, _, value), at in zip(points, times, strict=True)
        ],
        "ticks": [
            (percent((tick - left) / (right - left)), _time(10.0**tick))
            for tick in range(left, right + 1)
        ],
        "heights": [(percent(1 - n / 4), short(top * n / 4)) for n in range(5)],
    }


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:g} s"
    return f"{milliseconds:g} ms" if milliseconds >= 1 else f"{1000 * milliseconds:g} µs"
