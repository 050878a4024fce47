"""The results of one recommender on one holdout, and tables that compare several."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec import metrics
from genrec.arrays import Floats, Integers, Ints, Items
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


LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of one recommender on one holdout."""

    name: str
    """Name of the recommender."""
    split: str
    """Name of the holdout: "valid" or "test"."""
    users: int
    """Number of evaluated users. A user has one target, or several if :attr:`owner` says so."""
    k: tuple[int, ...]
    """The cut-offs, ascending."""
    items: Items = field(repr=False)
    """The lists, shape [users, max(k)], padded with -1; of several runs, [runs, users, max(k)]."""
    ranks: Items
    """1-based rank of each target, shape [users], or [runs, users] of several runs.

    A rank of 0 means that the target is not among the first max(k) items.
    """
    metrics: dict[str, float]
    """Means over targets of "HR@5", "NDCG@5", "MRR@5", ... for each k."""
    intervals: dict[str, tuple[float, float]]
    """Ends of each metric's bootstrap interval over users; empty if intervals were omitted."""
    spread: dict[str, float]
    """Standard deviation of each metric over the runs; empty for a single run."""
    coverage: dict[str, float]
    """Share of the catalogue that was recommended to any user, as "coverage@5", ..."""
    counts: dict[str, int]
    """Counts over all lists.

    "invalid" counts places with no existing item, "duplicates" repeated items, "seen" items of the
    user's history, and "unfilled" places without an item. "repeated_targets" counts users whose
    target already occurs in their history; while seen items are left out, no recommender can find
    these.
    """
    seconds: float
    """Wall time inside ``recommend_batch``, in seconds."""
    protocol: tuple[str, ...]
    """The protocol in sentences."""
    fingerprint: str = field(repr=False)
    """Digest of histories, targets and the handling of seen items.

    Evaluations with the same fingerprint cover the same users and task, so they can be paired.
    """
    nll: Floats | None = field(default=None, repr=False)
    """-log p(target | history) over the whole catalogue in nats, shape [users]; means over runs.

    ``None`` if it was not requested or the recommender has no such probability.
    """
    owner: Ints | None = field(default=None, repr=False)
    """Number of the user of each target, shape [targets]; ``None`` if each user has one.

    Everything of shape [users] then has one entry per target.
    """

    @property
    def targets(self) -> int:
        """Number of targets, and of lists."""
        return int(self.ranks.shape[-1])

    @property
    def extent(self) -> str:
        """The number of users in words, and that of targets if there are more."""
        users = f"{self.users:,} users"
        return users if self.owner is None else f"{users}, {self.targets:,} targets"

    def values(self, metric: str) -> Floats:
        """Return a metric such as "NDCG@10" for each user, float64 [users]; means over runs.

        Raises:
            ConfigError: the metric is unknown, or its k exceeds the length of the lists.
        """
        name, at, cut = metric.partition("@")
        if name not in METRICS or not at or not cut.isdecimal():
            raise ConfigError(f"Unknown metric {metric!r}. Use one of {', '.join(self.metrics)}.")
        if int(cut) > max(self.k):
            raise ConfigError(
                f"{metric} needs lists of {cut} items, but these have {max(self.k)}. Evaluate with "
                "a larger k."
            )
        values = METRICS[name](self.ranks, int(cut))
        return values if values.ndim == 1 else np.asarray(values.mean(axis=0))

    def to_json(self) -> dict[str, Any]:
        """Return the model's entry in metrics.json: plain numbers, strings, lists and dicts."""
        return {
            **self.metrics,
            "users": self.users,
            **({} if self.owner is None else {"targets": self.targets}),
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
        """Return the metrics as a text table, for ``print``."""
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
    """Return the mean difference of a metric over the same users, a minus b, with its interval.

    Args:
        a: first evaluation.
        b: second evaluation.
        metric: metric such as "NDCG@10".
        seed: seed of the bootstrap.
        resamples: number of resamples.

    Raises:
        DataError: the two were evaluated on different users or protocols.
    """
    _check_same_users(a, b)
    return metrics.paired_difference(
        a.values(metric), b.values(metric), seed, resamples, LEVEL, a.owner
    )


def compare_paired_nll(a: Evaluation, b: Evaluation, *, seed: int = 0) -> PairedDifference | None:
    """Return by how many nats an item's negative log-likelihood is lower with a than with b.

    Args:
        a: first evaluation.
        b: second evaluation.
        seed: seed of the bootstrap.

    Returns:
        The mean difference over the same users, with its interval; ``None`` if either has no
        likelihood.

    Raises:
        DataError: the two were evaluated on different users or protocols.
    """
    _check_same_users(a, b)
    if a.nll is None or b.nll is None:
        return None
    return metrics.paired_difference(b.nll, a.nll, seed, level=LEVEL, owner=a.owner)


def _check_same_users(a: Evaluation, b: Evaluation) -> None:
    if a.fingerprint != b.fingerprint:
        raise DataError(
            f"{a.name} and {b.name} were evaluated on different users or protocols. Evaluate both "
            "on the same split with the same settings."
        )


def comparison_table(
    evaluations: Sequence[Evaluation], columns: Sequence[str] | None = None
) -> Table:
    """Build a table with one row per model and one column per metric.

    Best values are bold, and intervals read `.206 [.181, .232]`. A cell takes two lines where the
    terminal is narrow; four metrics fit 80 columns.

    Args:
        evaluations: results, in table order.
        columns: metrics to show; by default HR and NDCG at every k.
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
    """Return the default metrics of a table: HR and NDCG at every k that all evaluations share.

    Raises:
        ConfigError: there is no evaluation.
    """
    if not evaluations:
        raise ConfigError("A comparison needs at least one evaluation. Add a model.")
    shared = [name for name in evaluations[0].metrics if name.startswith(("HR@", "NDCG@"))]
    return [name for name in shared if all(name in each.metrics for each in evaluations)]


def decimals(evaluations: Sequence[Evaluation], names: Sequence[str]) -> int:
    """Return the number of decimals: 3, or 4 where even the best value is below 0.1."""
    return 3 if max(each.metrics[name] for each in evaluations for name in names) >= 0.1 else 4


def cell(evaluation: Evaluation, metric: str, places: int = 3) -> tuple[str, str]:
    """Format a metric and its interval: (".206", "[.181, .232]"); the second may be empty."""
    ends = evaluation.intervals.get(metric)
    interval = f"[{short(ends[0], places)}, {short(ends[1], places)}]" if ends else ""
    return short(evaluation.metrics[metric], places), interval


def short(value: float, places: int = 3) -> str:
    """Format a number in [-1, 1] without its leading zero: .206, -.012, 1.000."""
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and "0." in text[:3] else text


@dataclass(frozen=True)
class _Cell:
    """A value and its interval; a narrow cell breaks before the bracket, never inside it."""

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
    tasks = {each.fingerprint: f"{each.split} split, {each.extent}" for each in evaluations}
    text = " | ".join(tasks.values())  # several tasks show that the rows are not comparable
    shown = any(each.intervals for each in evaluations)
    return f"{text}; {LEVEL:.0%} intervals, user bootstrap" if shown else text
