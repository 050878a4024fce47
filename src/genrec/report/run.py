"""The report of a run: report.html for people, report.md for repositories and terminals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.errors import DataError
from genrec.evaluation.results import (
    LEVEL,
    Evaluation,
    cell,
    compare_paired,
    decimals,
    default_columns,
)
from genrec.processes import duration
from genrec.report.charts import bars, difference_row
from genrec.report.pages import flat, percent, write_pages

Point = tuple[float, float]

_HISTORY_SHOWN = 12  # about one phone screen of titles; the number of older ones is printed
_POINTS_DRAWN = 80  # the resolution of a phone; averaging also smooths the noise of single steps


def write_report(
    folder: str | Path,
    *,
    title: str,
    dataset_info: Mapping[str, Any],
    evaluations: Sequence[Evaluation],
    config: Mapping[str, Any],
    training_log: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> Path:
    """Write report.html and report.md into a folder.

    Mappings may be nested.

    Args:
        folder: the folder; created if it is missing.
        title: heading of the report.
        dataset_info: facts about the data set.
        evaluations: results in table order; the last one is the model of the report.
        config: the model's settings.
        training_log: the Trainer's ``log_history``; "loss" and "eval_loss" are plotted over "step".
        samples: {"history": [title, oldest first], "recommendations": [{"title", "probability"},
            best first]}, optionally with "user" and "target" (the title chosen next).
        environment: versions and hardware.

    Returns:
        The path of report.html.

    Raises:
        DataError: a sample lacks one of these keys, or the folder is a file.
    """
    page = {
        "title": title,
        "training": _curves(training_log),
        "samples": [_sample(each, number) for number, each in enumerate(samples, start=1)],
        "facts": [
            ("Data", flat(dataset_info)),
            ("Configuration", flat(config)),
            ("Environment", flat(environment)),
        ],
        **_results(evaluations),
    }
    return write_pages(Path(folder), "run", page)


def _results(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    columns = default_columns(evaluations)
    places = decimals(evaluations, columns)
    subject = evaluations[-1]
    charted = [name for name in columns if name.endswith(f"@{max(subject.k)}")] or columns
    main = charted[-1]  # NDCG at the largest k, which depends on the rank of a hit
    return {
        "subject": subject.name,
        "subtitle": f"{subject.name} · {subject.split} split · {subject.extent}",
        "level": f"{LEVEL:.0%}",
        "cards": _cards(subject, charted, places),
        "columns": columns,
        "rows": [_row(each, evaluations, columns, places) for each in evaluations],
        "charts": [(name, bars(evaluations, name, places, subject)) for name in charted],
        "metric": main,
        "paired": [_paired(subject, each, main) for each in evaluations[:-1]],
        "protocol": subject.protocol,
    }


def _cards(subject: Evaluation, names: Sequence[str], places: int) -> list[tuple[str, str, str]]:
    cut = max(subject.k)
    covered = subject.coverage[f"coverage@{cut}"]
    return [
        *((name, *cell(subject, name, places)) for name in names),
        (f"Coverage@{cut}", f"{covered:.1%}", "of the catalogue"),
        ("Time", _time(subject), "per list"),
    ]


def _row(
    each: Evaluation, evaluations: Sequence[Evaluation], columns: Sequence[str], places: int
) -> dict[str, Any]:
    best = {name: max(other.metrics[name] for other in evaluations) for name in columns}
    cut = max(each.k)
    return {
        "name": each.name,
        "cells": [
            (*cell(each, name, places), each.metrics[name] == best[name]) for name in columns
        ],
        "users": f"{each.users:,}",
        "coverage": f"{each.coverage[f'coverage@{cut}']:.1%}",
        "time": _time(each),
        "counts": [each.counts[name] for name in ("invalid", "duplicates", "seen", "unfilled")],
    }


def _time(evaluation: Evaluation) -> str:
    return duration(evaluation.seconds / evaluation.targets)


def _paired(subject: Evaluation, other: Evaluation, metric: str) -> dict[str, Any]:
    if subject.fingerprint != other.fingerprint:
        return {
            "name": other.name,
            "difference": "–",
            "interval": "different users or protocol",
            "verdict": "not comparable",
        }
    return difference_row(other.name, compare_paired(subject, other, metric))


def _curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return training and validation loss as SVG paths in a 100 x 100 box, with axis labels."""
    series = {
        name: points
        for name, key in (("training loss", "loss"), ("validation loss", "eval_loss"))
        if (points := _points(log, key))
    }
    if not series:
        return None
    steps = [step for points in series.values() for step, _ in points]
    drawn = {name: _thinned(points) for name, points in series.items()}
    losses = [loss for points in drawn.values() for _, loss in points]
    left, right, bottom, top = min(steps), max(steps), min(losses), max(losses)
    box = (left, bottom, right - left or 1.0, top - bottom or 1.0)
    return {
        "series": [
            {"name": name, "path": _path(drawn[name], box), "last": f"{points[-1][1]:.4g}"}
            for name, points in series.items()
        ],
        "heights": [(100 - 25 * n, f"{bottom + box[3] * n / 4:.3g}") for n in range(5)],
        "steps": [f"{left:,.0f}", f"{left + box[2] / 2:,.0f}", f"{right:,.0f}"],
    }


def _points(log: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """Return (step, value) for the finite values under ``key``."""
    return [
        (float(entry.get("step", number)), float(entry[key]))
        for number, entry in enumerate(log)
        if isinstance(entry.get(key), int | float) and math.isfinite(entry[key])
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / _POINTS_DRAWN)
    parts = (np.array(points[start : start + size]) for start in range(0, len(points), size))
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]


def _path(points: Sequence[Point], box: tuple[float, float, float, float]) -> str:
    left, bottom, width, height = box
    places = [
        f"{100 * (x - left) / width:.2f} {100 - 100 * (y - bottom) / height:.2f}" for x, y in points
    ]
    # Round line caps draw a stroke of zero length as a dot, which makes a single point visible.
    return f"M{places[0]}h0" if len(places) == 1 else "M" + "L".join(places)


def _sample(sample: Mapping[str, Any], number: int) -> dict[str, Any]:
    try:
        history = [str(title) for title in sample["history"]]
        recommended = [
            (str(each["title"]), each.get("probability")) for each in sample["recommendations"]
        ]
    except KeyError as error:
        raise DataError(
            f"Sample {number} of the report lacks {error}. See write_report for the required keys."
        ) from None
    top = max((p for _, p in recommended if p is not None), default=0.0) or 1.0
    user, target = sample.get("user"), sample.get("target")
    return {
        "heading": f"User {user}" if user is not None else f"Sample {number}",
        "history": history[-_HISTORY_SHOWN:],
        "older": max(0, len(history) - _HISTORY_SHOWN),
        "target": target,
        "missed": target is not None and target not in {title for title, _ in recommended},
        "recommended": [
            {
                "title": title,
                "hit": title == target,
                "probability": None if p is None else _chance(p),
                "width": None if p is None else percent(p / top),
            }
            for title, p in recommended
        ],
    }


def _chance(probability: float) -> str:
    percent = 100 * probability
    return f"{percent:.2f}\u202f%" if percent >= 0.1 else f"{percent:.2g}\u202f%"
