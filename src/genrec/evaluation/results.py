"""How one recommender did on one holdout, and tables that compare several."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec import metrics
from genrec.arrays import Floats, Integers, Items
from genrec.errors import ConfigError, DataError
from genrec.metrics import PairedDifference

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Table

METRICS: Mapping[str, Callable[[Integers, int], Floats]] = {
    "HR": metrics.hit_rate,
    "NDCG": metrics.ndcg,
    "MRR": metrics.mrr,
}


LEVEL = 0.95  # of every interval in a table


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How one recommender did on one holdout."""

    name: str
    """The recommender's name."""
    split: str
    """The holdout's name: "valid" or "test"."""
    users: int
    k: tuple[int, ...]
    """The cut-offs, ascending."""
    items: Items = field(repr=False)
    """[users, max(k)] the lists, -1 where they end; [runs, users, max(k)] of several runs."""
    ranks: Items
    """[users] 1-based rank of the target, 0 if it is not among the first max(k); [runs, users] of
    several runs."""
    metrics: dict[str, float]
    """"HR@5", "NDCG@5", "MRR@5", ... for each k: means over users."""
    intervals: dict[str, tuple[float, float]]
    """Ends of the user-bootstrap interval of each metric; empty if it was switched off."""
    spread: dict[str, float]
    """Standard deviation of each metric over the runs; empty for a single run."""
    coverage: dict[str, float]
    """"coverage@5", ...: share of the catalogue that was recommended to anybody."""
    counts: dict[str, int]
    """Over all lists: "invalid" (no such item), "duplicates", "seen" (in the user's history) and
    "unfilled" places; and "repeated_targets", users whose target already stands in their history,
    whom no recommender can serve while seen items are left out."""
    seconds: float
    """Wall time inside `recommend_batch`."""
    protocol: tuple[str, ...]
    """The protocol in sentences."""
    fingerprint: str = field(repr=False)
    """Digest of histories, targets and the handling of seen items. Evaluations that share it
    judged the same users on the same task, so they can be paired."""
    nll: Floats | None = field(default=None, repr=False)
    """[users] -log p(target | history) over the whole catalogue, if it was asked for and the
    recommender has such a probability; means over runs."""

    def values(self, metric: str) -> Floats:
        """Per-user values, float64 [users], of a metric such as "NDCG@10"; means over runs."""
        name, at, cut = metric.partition("@")
        if name not in METRICS or not at or not cut.isdecimal():
            raise ConfigError(f"Unknown metric {metric!r}; use e.g. {', '.join(self.metrics)}.")
        if int(cut) > max(self.k):
            raise ConfigError(f"{metric} needs lists of {cut}; these stop at {max(self.k)}.")
        values = METRICS[name](self.ranks, int(cut))
        return values if values.ndim == 1 else np.asarray(values.mean(axis=0))

    def to_json(self) -> dict[str, Any]:
        """The model's entry in metrics.json: plain numbers, strings, lists and dicts."""
        return {
            **self.metrics,
            "users": self.users,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            **({"spread": dict(self.spread)} if self.spread else {}),
            **({} if self.nll is None else {"nll": float(self.nll.mean())}),
            "seconds": self.seconds,
            "split": self.split,
            **self.coverage,
            "counts": dict(self.counts),
            "fingerprint": self.fingerprint,
            "protocol": list(self.protocol),
        }

    def table(self) -> str:
        """The metrics as text, for `print`."""
        return table_text([self])


def table_text(evaluations: Sequence[Evaluation]) -> str:
    """:func:`comparison_table` as plain text."""
    from rich.console import Console

    text = io.StringIO()
    width = 40 + 21 * len(default_columns(evaluations))
    table = comparison_table(evaluations)
    Console(file=text, width=width, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def compare_paired(
    a: Evaluation, b: Evaluation, metric: str, *, seed: int = 0, resamples: int = 1000
) -> PairedDifference:
    """Mean of a's minus b's `metric` (e.g. "NDCG@10") over the same users, with its interval.

    Raises DataError if the two did not judge the same users on the same task.
    """
    if a.fingerprint != b.fingerprint:
        raise DataError(f"{a.name} and {b.name} were evaluated on different users or protocols.")
    return metrics.paired_difference(a.values(metric), b.values(metric), seed, resamples, LEVEL)


def comparison_table(
    evaluations: Sequence[Evaluation], columns: Sequence[str] | None = None
) -> Table:
    """One row per model, one column per metric; best values bold, intervals as `.206 [.181, .232]`.

    columns: metrics to show, by default HR and NDCG at every k. A cell takes two lines where the
    terminal is narrow; four metrics fit 80 columns.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    names = list(columns) if columns else default_columns(evaluations)
    places = decimals(evaluations, names)
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=_caption(evaluations),
    )
    longest = max(len(each.name) for each in evaluations)
    table.add_column("model", overflow="fold", min_width=min(longest, 16))
    for name in names:
        table.add_column(name, min_width=len("[., .]") + 2 * places)
    best = {name: max(each.metrics[name] for each in evaluations) for name in names}
    for each in evaluations:
        cells = (
            _Cell(*cell(each, name, places), each.metrics[name] == best[name]) for name in names
        )
        table.add_row(each.name, *cells)
    return table


def default_columns(evaluations: Sequence[Evaluation]) -> list[str]:
    """The metrics a table shows unless told otherwise: HR and NDCG at every k that all share."""
    if not evaluations:
        raise ConfigError("A comparison needs at least one evaluation.")
    shared = [name for name in evaluations[0].metrics if name.startswith(("HR@", "NDCG@"))]
    return [name for name in shared if all(name in each.metrics for each in evaluations)]


def decimals(evaluations: Sequence[Evaluation], names: Sequence[str]) -> int:
    """Decimals that tell models apart: 3, or 4 where even the best value is below a tenth."""
    return 3 if max(each.metrics[name] for each in evaluations for name in names) >= 0.1 else 4


def cell(evaluation: Evaluation, metric: str, places: int = 3) -> tuple[str, str]:
    """A metric and its interval as text: (".206", "[.181, .232]"); the second may be empty."""
    ends = evaluation.intervals.get(metric)
    interval = f"[{short(ends[0], places)}, {short(ends[1], places)}]" if ends else ""
    return short(evaluation.metrics[metric], places), interval


def short(value: float, places: int = 3) -> str:
    """A number in [-1, 1] without its leading zero: .206, -.012, 1.000."""
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and "0." in text[:3] else text


@dataclass(frozen=True)
class _Cell:
    """`.206 [.181, .232]`, broken before the bracket, never inside it, where space is short."""

    value: str
    interval: str
    best: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        room = options.max_width >= len(self.value) + 1 + len(self.interval)
        text = Text(self.value, style="bold" if self.best else "")
        if self.interval:
            text.append(f"{' ' if room else chr(10)}{self.interval}", style="not bold dim")
        yield text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        narrow = max(len(self.value), len(self.interval))
        return Measurement(narrow, len(self.value) + 1 + len(self.interval))


def _caption(evaluations: Sequence[Evaluation]) -> str:
    tasks = {each.fingerprint: f"{each.split} split, {each.users:,} users" for each in evaluations}
    text = " | ".join(tasks.values())  # more than one: the rows are not comparable, and it shows
    shown = any(each.intervals for each in evaluations)
    return f"{text}; {LEVEL:.0%} intervals, user bootstrap" if shown else text
