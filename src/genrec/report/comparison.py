"""The report of a comparison: accuracy, user groups, costs, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from genrec.evaluation.comparison import Comparison, Entry
from genrec.evaluation.results import LEVEL, cell, decimals, default_columns, short
from genrec.evaluation.slices import Slice
from genrec.processes import duration
from genrec.report.charts import bars, difference_row, differences, scatter
from genrec.report.pages import flat, write_pages

USERS_SHOWN = 3
"""Number of users shown for whom the reference does best, and as many for whom it does worst."""
ITEMS_SHOWN = 5
"""Number of recommended items shown per model and user."""
HISTORY_SHOWN = 10
"""Number of most recent history items shown per user."""

BEYOND = (
    "Coverage@k: share of the catalogue that appears in any user's list. Gini@k: 0 if all items "
    "are recommended equally often, close to 1 if a few items dominate. Novelty@k: mean of -log2 "
    "of an item's share of training interactions, in bits."
)
TIMES = "Times per list were measured on one machine for all models, in batches, without fitting."
KINDS = (
    "Long tail: items outside the most popular fifth of the catalogue; cold: items without a "
    "training interaction."
)
NLL = (
    "NLL: mean negative log-likelihood, -log p(target | history), in nats, for models with a "
    "distribution over the catalogue; lower is better."
)
SEEDS = (
    "Models with several seeds: mean over the runs; ± is the standard deviation over runs; "
    "intervals in brackets are over users."
)


def write_comparison(folder: str | Path, comparison: Comparison) -> Path:
    """Write report.html and report.md into a folder and return the path of report.html.

    Raises:
        DataError: the folder is a file.
    """
    page = {**_header(comparison), **_results(comparison), **_details(comparison)}
    return write_pages(Path(folder), "comparison", page)


def _header(comparison: Comparison) -> dict[str, Any]:
    reference = comparison.reference
    return {
        "title": f"{len(comparison.entries)} recommenders on {comparison.data}",
        "subtitle": f"{comparison.split} split · {reference.evaluation.extent} · "
        f"{len(comparison.train.catalogue):,} items",
        "level": f"{LEVEL:.0%}",
        "metric": comparison.metric,
        "cut": comparison.cut,
        "reference": reference.name,
        "with_nll": any(each.nll is not None for each in comparison.entries),
        "with_price": comparison.hourly_cost is not None,
    }


def _results(comparison: Comparison) -> dict[str, Any]:
    """The table, the charts and the slices."""
    evaluations = [each.evaluation for each in comparison.entries]
    columns = default_columns(evaluations)
    places, reference = decimals(evaluations, columns), comparison.reference
    charted = [name for name in columns if name.endswith(f"@{comparison.cut}")]
    others = [each for each in comparison.entries if each is not reference]
    rows, zero = differences([(each.name, comparison.paired(each)) for each in others])
    return {
        "cards": _cards(comparison, charted, places),
        "columns": columns,
        "failures": list(comparison.failures.items()),
        "rows": [_row(each, comparison, columns, places) for each in comparison.entries],
        "charts": [
            (name, bars(evaluations, name, places, reference.evaluation)) for name in charted
        ],
        "paired": rows,
        "zero": zero,
        "paired_nll": _paired_nll(comparison),
        "scatter": scatter(
            [
                (e.name, e.milliseconds, e.evaluation.metrics[comparison.metric])
                for e in comparison.entries
            ]
        ),
        "slices": _slices(comparison, places),
    }


def _details(comparison: Comparison) -> dict[str, Any]:
    return {
        "warnings": _warnings(comparison),
        "users": _users(comparison),
        "protocol": [*comparison.reference.evaluation.protocol, *_definitions(comparison)],
        "facts": [
            ("Data and split", flat(comparison.facts)),
            ("Environment", flat(comparison.environment)),
        ],
    }


def _cards(comparison: Comparison, names: Sequence[str], places: int) -> list[tuple[str, str, str]]:
    best = comparison.reference
    accuracy = [(f"{name} · {best.name}", *cell(best.evaluation, name, places)) for name in names]
    fastest = min(comparison.entries, key=lambda each: each.milliseconds)
    covered = best.evaluation.coverage[f"coverage@{comparison.cut}"]
    return [
        *accuracy,
        (f"Coverage@{comparison.cut} · {best.name}", f"{covered:.1%}", "of the catalogue"),
        (
            "Time per list",
            duration(best.milliseconds / 1000),
            f"{fastest.name}: {duration(fastest.milliseconds / 1000)}",
        ),
    ]


def _row(
    entry: Entry, comparison: Comparison, columns: Sequence[str], places: int
) -> dict[str, Any]:
    honest = [each for each in comparison.entries if not each.leaks] or comparison.entries
    best = {name: max(each.evaluation.metrics[name] for each in honest) for name in columns}
    beyond, rates = comparison.beyond_accuracy(entry), comparison.rates(entry)
    cost, cut = comparison.cost(entry), comparison.cut
    measured = entry.evaluation
    return {
        "name": entry.name,
        "note": entry.note,
        "subject": entry is comparison.reference,
        "leaks": entry.leaks,
        "cells": [
            (*cell(measured, name, places), measured.metrics[name] == best[name])
            for name in columns
        ],
        "spread": _spread(entry, comparison.metric),
        "nll": "–" if entry.nll is None else f"{entry.nll.mean():.3f}",
        "coverage": f"{beyond[f'coverage@{cut}']:.1%}",
        "gini": short(beyond[gini]) if (gini := f"gini@{cut}") in beyond else "–",
        "novelty": f"{beyond[novelty]:.1f}" if (novelty := f"novelty@{cut}") in beyond else "–",
        "rates": [f"{rates[name]:.2%}" for name in rates],
        "time": duration(entry.milliseconds / 1000),
        "fit": duration(entry.fit_seconds) if entry.fit_seconds >= 0.01 else "< 10 ms",
        "price": f"{cost.get('cost_per_1000', 0.0):.2g}",
    }


def _spread(entry: Entry, metric: str) -> str:
    spread = entry.evaluation.spread
    return f"{entry.runs} (±{short(spread[metric], 4)})" if spread else "1"


def _warnings(comparison: Comparison) -> list[dict[str, Any]]:
    own = [(None, each) for each in comparison.findings]
    of_models = [(entry.name, each) for entry in comparison.entries for each in entry.findings]
    return [
        {"leak": each.leak, "check": each.check, "text": each.text, "model": name}
        for name, each in [*own, *of_models]
    ]


def _paired_nll(comparison: Comparison) -> list[dict[str, Any]]:
    found = (
        (each.name, comparison.paired_nll(each))
        for each in comparison.entries
        if each is not comparison.reference
    )
    return [difference_row(name, difference) for name, difference in found if difference]


def _slices(comparison: Comparison, places: int) -> list[dict[str, Any]]:
    """Return one table per group, with models as rows and slices as columns."""
    return [
        _slice_table(comparison, group, list(parts), places)
        for group, parts in groupby(comparison.slices, key=lambda part: part.group)
    ]


def _slice_table(
    comparison: Comparison, group: str, parts: Sequence[Slice], places: int
) -> dict[str, Any]:
    rows = [
        (entry, [comparison.in_slice(entry, part, comparison.metric) for part in parts])
        for entry in comparison.entries
    ]
    honest = [found for entry, found in rows if not entry.leaks] or [found for _, found in rows]
    best = [max(found[n][0] for found in honest) for n in range(len(parts))]
    return {
        "group": group,
        "heads": [(part.name, part.definition, f"{comparison.users_in(part):,}") for part in parts],
        "rows": [
            {
                "name": entry.name,
                "subject": entry is comparison.reference,
                "cells": [
                    (
                        short(mean, places),
                        f"[{short(low, places)}, {short(high, places)}]",
                        0 < mean == best[n],
                    )
                    for n, (mean, low, high) in enumerate(found)
                ],
            }
            for entry, found in rows
        ],
    }


def _users(comparison: Comparison) -> list[dict[str, Any]]:
    """Return users whom the reference serves much better, or worse, than the other models' mean."""
    others = [each for each in comparison.entries if each is not comparison.reference]
    if not others:
        return []
    values = comparison.reference.evaluation.values(comparison.metric)
    rest = np.mean([each.evaluation.values(comparison.metric) for each in others], axis=0)
    order = np.argsort(rest - values, kind="stable")
    shown = [("best", row) for row in order[:USERS_SHOWN] if values[row] > rest[row]]
    shown += [("worst", row) for row in order[::-1][:USERS_SHOWN] if values[row] < rest[row]]
    return [{"kind": kind, **_user(comparison, int(row))} for kind, row in shown]


def _user(comparison: Comparison, row: int) -> dict[str, Any]:
    test, titles = comparison.test, comparison.test.catalogue.titles
    history = [titles[item] for item in test.histories[row]]
    return {
        "user": test.histories.user_ids[row],
        "history": history[-HISTORY_SHOWN:],
        "older": max(0, len(history) - HISTORY_SHOWN),
        "target": titles[test.targets[row]],
        "lists": [_list(entry, row, int(test.targets[row]), titles) for entry in _told(comparison)],
    }


def _told(comparison: Comparison) -> list[Entry]:
    """Return the reference and the three best other models."""
    others = [each for each in comparison.entries if each is not comparison.reference]
    metric = comparison.metric
    best = sorted(others, key=lambda each: -each.evaluation.metrics[metric])
    return [comparison.reference, *best[:3]]


def _list(entry: Entry, row: int, target: int, titles: Sequence[str]) -> dict[str, Any]:
    lists, ranks = entry.evaluation.items, entry.evaluation.ranks
    items, rank = (lists[row], ranks[row]) if lists.ndim == 2 else (lists[0, row], ranks[0, row])
    known = [int(item) for item in items[:ITEMS_SHOWN] if 0 <= item < len(titles)]
    return {
        "name": entry.name,
        "items": [(titles[item], item == target) for item in known],
        "rank": f"rank {rank}" if rank else "not in the list",
    }


def _definitions(comparison: Comparison) -> list[str]:
    entries = comparison.entries
    lines = {BEYOND: True, TIMES: True, KINDS: True}
    lines[NLL] = any(each.nll is not None for each in entries)
    lines[SEEDS] = any(each.runs > 1 for each in entries)
    return [line for line, applies in lines.items() if applies]
