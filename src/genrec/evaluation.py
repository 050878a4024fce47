"""One recommender, one holdout: per-user ranks, metrics with intervals, and tables that compare.

The protocol is the same for every model (docs/evaluation.md): one target per user, ranked against
the whole catalogue, intervals from a bootstrap over users.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genrec import metrics
from genrec.arrays import Floats, Integers, Items
from genrec.errors import ConfigError, DataError
from genrec.histories import Histories, Holdout
from genrec.metrics import PairedDifference
from genrec.recommender import Recommender, TopK

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Table

Progress = Callable[[int, int], None]

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
    definition: tuple[str, ...]
    """The protocol in sentences."""
    fingerprint: str = field(repr=False)
    """Digest of histories, targets and the handling of seen items. Evaluations that share it
    judged the same users on the same task, so they can be paired."""
    nats: Floats | None = field(default=None, repr=False)
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
            **({} if self.nats is None else {"nats": float(self.nats.mean())}),
            "seconds": self.seconds,
            "split": self.split,
            **self.coverage,
            "counts": dict(self.counts),
            "fingerprint": self.fingerprint,
            "definition": list(self.definition),
        }

    def table(self) -> str:
        """The metrics as text, for `print`."""
        from rich.console import Console

        text = io.StringIO()
        names = [name for name in self.metrics if not name.startswith("MRR")]
        width = 40 + 21 * len(names)
        Console(file=text, width=width, color_system=None).print(comparison_table([self]))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def evaluate(
    recommender: Recommender,
    holdout: Holdout,
    k: Sequence[int] = (5, 10),
    *,
    exclude_seen: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
    nats: bool = False,
    progress: Progress | None = None,
    batch_rows: int = 1024,
) -> Evaluation:
    """Ask a fitted `recommender` for max(k) items per user of `holdout` and measure the lists.

    seed: of the bootstrap. bootstrap: number of resamples; 0 leaves the intervals out. nats: ask
    for the targets' likelihood, too, if the recommender has one. progress: called with (users done,
    users) after each batch. batch_rows: users per `recommend_batch` call.
    Raises ConfigError for a bad setting and DataError for an empty holdout or malformed lists.
    """
    cuts = _cut_offs(k)
    if not len(holdout):
        raise DataError(f"The {holdout.name} holdout has no users; use a longer log.")
    if bootstrap < 0 or batch_rows < 1:
        raise ConfigError("evaluate needs bootstrap >= 0 and batch_rows >= 1.")
    items, seconds = _recommend_all(
        recommender, holdout.histories, max(cuts), exclude_seen, progress, batch_rows
    )
    return judge(
        recommender.name,
        items,
        holdout,
        cuts,
        seconds=seconds,
        nats=_nats(recommender, holdout) if nats else None,
        exclude_seen=exclude_seen,
        seed=seed,
        bootstrap=bootstrap,
    )


def _nats(recommender: Recommender, holdout: Holdout) -> Floats | None:
    ask = getattr(recommender, "log_likelihood", None)
    return None if ask is None else -np.asarray(ask(holdout.histories, holdout.targets))


def judge(
    name: str,
    items: Items,
    holdout: Holdout,
    k: Sequence[int],
    *,
    seconds: float,
    nats: Floats | None = None,
    exclude_seen: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
) -> Evaluation:
    """Measure lists that were made before, int32 [users, max(k)]; see :func:`evaluate`."""
    cuts = _cut_offs(k)
    ranks = metrics.target_ranks(items, holdout.targets)
    values = {f"{name}@{cut}": of(ranks, cut) for cut in cuts for name, of in METRICS.items()}
    size = len(holdout.catalogue)
    return Evaluation(
        name=name,
        split=holdout.name,
        users=len(holdout),
        k=cuts,
        items=items,
        ranks=ranks,
        metrics={name: float(each.mean()) for name, each in values.items()},
        intervals=_intervals(values, seed, bootstrap),
        spread={},
        coverage={f"coverage@{cut}": metrics.coverage(items[:, :cut], size) for cut in cuts},
        counts=_counts(items, holdout, size),
        seconds=seconds,
        definition=_definition(holdout, exclude_seen, seed, bootstrap),
        fingerprint=_fingerprint(holdout, exclude_seen),
        nats=nats,
    )


def combine(runs: Sequence[Evaluation], *, seed: int = 0, bootstrap: int = 1000) -> Evaluation:
    """Several runs of one recommender, with other seeds, as one: means over the runs.

    Intervals are of the users' mean values; ``spread`` tells how far the runs lie apart.
    Raises DataError if they did not judge the same users on the same task.
    """
    first = runs[0]
    if len({each.fingerprint for each in runs}) > 1:
        raise DataError(f"The runs of {first.name} were evaluated on different users or protocols.")
    if len(runs) == 1:
        return first
    ranks = np.stack([each.ranks for each in runs])
    values = {name: np.mean([each.values(name) for each in runs], axis=0) for name in first.metrics}
    nats = [each.nats for each in runs if each.nats is not None]
    return replace(
        first,
        items=np.stack([each.items for each in runs]),
        ranks=ranks,
        metrics={name: float(each.mean()) for name, each in values.items()},
        intervals=_intervals(values, seed, bootstrap),
        spread={
            name: float(np.std([each.metrics[name] for each in runs], ddof=1)) for name in values
        },
        coverage=_means([each.coverage for each in runs]),
        counts={name: sum(each.counts[name] for each in runs) for name in first.counts},
        seconds=float(np.mean([each.seconds for each in runs])),
        nats=np.mean(nats, axis=0) if nats else None,
    )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


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


def _cut_offs(k: Sequence[int]) -> tuple[int, ...]:
    cuts = tuple(sorted(set(k)))
    if not cuts or cuts[0] < 1:
        raise ConfigError(f"k must name cut-offs of at least 1, such as (5, 10); got {tuple(k)}.")
    return cuts


def _recommend_all(
    recommender: Recommender,
    histories: Histories,
    k: int,
    exclude_seen: bool,
    progress: Progress | None,
    batch_rows: int,
) -> tuple[Items, float]:
    users = len(histories)
    items = np.empty((users, k), np.int32)
    seconds = 0.0
    for start in range(0, users, batch_rows):
        stop = min(start + batch_rows, users)
        batch = histories.select(np.arange(start, stop))
        began = time.perf_counter()
        top = recommender.recommend_batch(batch, k, exclude_seen=exclude_seen)
        seconds += time.perf_counter() - began
        items[start:stop] = _checked(recommender.name, top, (stop - start, k))
        if progress is not None:
            progress(stop, users)
    return items, seconds


def _checked(name: str, top: TopK, shape: tuple[int, int]) -> Items:
    if top.items.shape != shape:  # NumPy would broadcast one row over all users without a word
        raise DataError(f"{name}.recommend_batch returned {top.items.shape}; asked for {shape}.")
    return top.items


def _intervals(
    values: Mapping[str, Floats], seed: int, resamples: int
) -> dict[str, tuple[float, float]]:
    if not resamples:
        return {}
    return {
        name: metrics.bootstrap_interval(each, seed, resamples, LEVEL)
        for name, each in values.items()
    }


def _counts(items: Items, holdout: Holdout, size: int) -> dict[str, int]:
    """Count what a good list never holds; see `Evaluation.counts`."""
    histories = holdout.histories
    owners = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    seen = owners * size + histories.items  # one number per (user, item)
    rows = np.arange(len(items))
    real = (items >= 0) & (items < size)
    keys = rows[:, None] * size + items
    ordered = np.sort(items, axis=1)
    same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    return {
        "invalid": int(((items < -1) | (items >= size)).sum()),
        "duplicates": int(same.sum()),
        "seen": int((np.isin(keys, seen) & real).sum()),
        "unfilled": int((items == -1).sum()),
        "repeated_targets": int(np.isin(rows * size + holdout.targets, seen).sum()),
    }


def _definition(holdout: Holdout, exclude_seen: bool, seed: int, resamples: int) -> tuple[str, ...]:
    split = (
        f"Split: {holdout.name}; one held-out target item for each of {len(holdout):,} users; "
        "the history is everything known before it."
    )
    ranking = (
        f"Full ranking: the target competes with all {len(holdout.catalogue):,} items of the "
        "catalogue; a hit is decided on the item's identity, not on its title."
    )
    seen = f"Items of the user's own history are {'left out of' if exclude_seen else 'allowed in'}"
    formulas = (
        "HR@k = 1 if rank ≤ k; NDCG@k = 1 / log2(rank + 1) if rank ≤ k (one relevant item, so "
        "the ideal is 1); MRR@k = 1 / rank if rank ≤ k; each is 0 otherwise. Means over users."
    )
    ties = "Equal scores are ordered by ascending item index."
    lines = (split, ranking, f"{seen} the list.", ties, formulas)
    if not resamples:
        return lines
    intervals = (
        f"Intervals: {LEVEL:.0%}, percentile bootstrap over users, {resamples:,} resamples, "
        f"seed {seed}. They hold the trained model fixed."
    )
    return (*lines, intervals)


def _fingerprint(holdout: Holdout, exclude_seen: bool) -> str:
    digest = hashlib.sha256(f"{holdout.name} {len(holdout.catalogue)} {exclude_seen}".encode())
    for array in (holdout.histories.offsets, holdout.histories.items, holdout.targets):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
