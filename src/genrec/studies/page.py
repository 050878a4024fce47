"""The report of a study: tables, plots and examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from genrec.evaluation.results import LEVEL
from genrec.files import write_text
from genrec.processes import duration
from genrec.report.pages import flat, write_pages
from genrec.report.plots import Point, curves, dots
from genrec.studies.result import ACCURACY, ArmResult, StudyResult
from genrec.studies.study import Plot

PLOTS = "plots"
"""Subfolder with the plots as SVG files."""

UNITS = {
    "nll": "NLL (nats per item)",
    "train_seconds": "training (s)",
    "build_seconds": "building (s)",
    "targets_per_second": "targets per second",
    "request_ms": "request (ms)",
    "prompt_tokens": "tokens per prompt",
    "positions": "positions per prompt",
    "title_tokens": "tokens per title",
    "parameters": "trained weights",
    "adapter_mb": "adapter (MB)",
    "train_peak_mb": "peak memory in training (MB)",
    "build_peak_mb": "peak memory in building (MB)",
    "bound_ms": "bound of a request (ms)",
    "request_ratio": "request / bound",
    "train_ratio": "training / bound",
}
"""Headings and axis labels of measured values."""


def write_study(folder: Path, result: StudyResult) -> Path:
    """Write report.html, report.md and the plots into a folder; return report.html's path."""
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    drawn = []
    for plot in result.study.plots:
        if (picture := draw(plot, result.entries)) is not None:
            write_text(folder / PLOTS / f"{plot.name}.svg", picture)
            drawn.append((plot.name, plot.title, picture))
    return write_pages(folder, "study", {**_page(result), "plots": drawn})


def draw(plot: Plot, entries: Sequence[ArmResult]) -> str | None:
    """Return a plot as SVG, or ``None`` if nothing that it shows was measured."""
    shown = [each for each in entries if not plot.groups or each.arm.group in plot.groups]
    if plot.kind in ("curves", "scatter"):
        return _curves(plot, shown)
    rows = []
    for each in shown:
        found = each.differences if plot.kind == "differences" else each.means
        if plot.value in found:
            rows.append((each.arm.name, *found[plot.value]))
        elif plot.kind == "dots" and (value := each.value(plot.value)) is not None:
            rows.append((each.arm.name, value, value, value))
    return dots(plot.title, rows, zero=plot.kind == "differences") if rows else None


def _curves(plot: Plot, shown: Sequence[ArmResult]) -> str | None:
    series: dict[str, list[Point]] = {}
    for each in shown:
        x, y = each.value(plot.x), each.value(plot.value)
        if x is None or y is None:
            continue
        ends = each.means[plot.value][1:] if plot.value in each.means else (y, y)
        series.setdefault(each.arm.group, []).append(Point(x, y, *ends))
    if not series:
        return None
    ordered = {name: sorted(points) for name, points in series.items()}
    label = "" if plot.x == "x" else UNITS.get(plot.x, plot.x)
    return curves(
        plot.title,
        ordered,
        x_label=label or plot.title.rpartition(" by ")[2] or "x",
        y_label=UNITS.get(plot.value, plot.value),
        joined=plot.kind == "curves",
    )


def _page(result: StudyResult) -> dict[str, Any]:
    study, facts = result.study, result.facts
    data = facts["data"]
    first = result.entries[0]
    return {
        "title": study.title,
        "subtitle": f"{data['dataset']} · {data['held_out_targets']:,} held-out targets · "
        f"{data['items']:,} items",
        "question": study.question,
        "cards": [
            ("Arms measured", str(len(result.entries)), f"{len(result.skipped)} without a result"),
            (f"NLL · {first.arm.name}", _number(first.value("nll"), 3), "nats per item"),
            (f"NDCG@10 · {first.arm.name}", _number(first.value("NDCG@10"), 4), ""),
        ],
        "level": f"{LEVEL:.0%}",
        "metrics": [UNITS.get(name, name) for name in ACCURACY],
        "measures": [UNITS.get(name, name) for name in study.measures],
        "groups": [
            (group, [_row(each, study.measures) for each in entries])
            for group, entries in groupby(result.entries, key=lambda each: each.arm.group)
        ],
        "slices": _slices(result.entries),
        "skipped": list(result.skipped.items()),
        "examples": result.examples,
        "prompts": [(each.arm.name, each.texts["prompt"]) for each in result.entries if each.texts],
        "protocol": _protocol(result),
        "facts": [
            ("Data", flat(data)),
            ("Settings", flat(facts["config"])),
            ("Environment", flat(facts["environment"])),
        ],
    }


def _row(entry: ArmResult, measures: Sequence[str]) -> dict[str, Any]:
    cells = []
    for name in ACCURACY:
        places = 3 if name == "nll" else 4
        mean, *ends = entry.means.get(name, (None, None, None))
        gain = entry.differences.get(name)
        cells.append(
            {
                "value": _number(mean, places),
                "interval": "" if mean is None else _ends(ends, places),
                "gain": "" if gain is None else f"{gain[0]:+.{places}f} {_ends(gain[1:], places)}",
                "verdict": "" if gain is None else verdict(*gain),
            }
        )
    values = [_measure(name, entry.value(name)) for name in measures]
    return {"name": entry.arm.name, "seeds": entry.seeds, "cells": cells, "values": values}


def verdict(mean: float, low: float, high: float) -> str:
    """Return what an interval of a gain shows."""
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def _ends(ends: Sequence[Any], places: int) -> str:
    return "[" + ", ".join(_number(end, places) for end in ends) + "]"


def _number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def _measure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name.endswith("seconds"):
        return duration(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _slices(entries: Sequence[ArmResult]) -> dict[str, Any]:
    heads = list(dict.fromkeys(name for each in entries for name in each.slices))
    rows = [
        (each.arm.name, [_number(each.slices.get(head), 3) for head in heads])
        for each in entries
        if each.slices
    ]
    return {"heads": heads, "rows": rows}


def _protocol(result: StudyResult) -> list[str]:
    config = result.facts["config"]
    targets, positions = config["targets"], result.facts["data"]["positions"]
    return [
        f"Each arm is trained on {targets:,} targets, unless the table says otherwise.",
        "All arms are trained with the same seeds and measured on the same held-out targets.",
        f"The last {positions} positions of each user before the test item are held out.",
        "The test items are used for nothing.",
        "A target competes with all items of the catalogue that are not in the history.",
        "NLL is -log p(target | history) in nats; lower is better.",
        "NDCG@10 = 1 / log2(rank + 1) up to rank 10. All values are means over targets.",
        f"Intervals are {LEVEL:.0%} bootstrap intervals over users.",
        "A gain is paired with the first arm of the group, target by target. Positive is better.",
        "Peak memory is that of the process of the arm, libraries included.",
    ]
