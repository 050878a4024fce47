"""Evaluation of one recommender on one holdout: lists, ranks, metrics with intervals.

The protocol is the same for every model: targets are ranked against the whole catalogue, and
intervals come from a bootstrap over users.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from genrec import metrics
from genrec.arrays import Floats, Ints, Items
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError, NotFittedError
from genrec.evaluation.results import LEVEL, METRICS, Evaluation
from genrec.recommender import Recommender, TopK

Progress = Callable[[int, int], None]
"""A function that is called with (users done, users)."""
NLL_ROWS = 1024
"""Users whose likelihood is computed between two calls of the progress."""


def evaluate(
    recommender: Recommender,
    holdout: Holdout,
    k: Sequence[int] | int = (5, 10),
    *,
    exclude_seen: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
    nll: bool = False,
    progress: Progress | None = None,
    batch_rows: int = 1024,
) -> Evaluation:
    """Evaluate a fitted recommender on a holdout.

    Args:
        holdout: histories and targets.
        k: one or more cut-offs of the metrics; lists have max(k) items.
        exclude_seen: leave out items of the history.
        seed: seed of the bootstrap.
        bootstrap: number of resamples; 0 omits the intervals.
        nll: also measure the targets' negative log-likelihood, if the recommender has one.
        progress: called with (users done, users) after each batch of lists, and from the beginning
            again for the likelihood.
        batch_rows: users per ``recommend_batch`` call.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the holdout is empty or has another catalogue, or the lists are malformed.
    """
    cuts = _cut_offs(k)
    _check_holdout(holdout, recommender)
    if bootstrap < 0 or batch_rows < 1:
        raise ConfigError(
            f"evaluate needs bootstrap >= 0 and batch_rows >= 1, got bootstrap={bootstrap} and "
            f"batch_rows={batch_rows}."
        )
    limits = (max(cuts), exclude_seen, progress, batch_rows)
    items, seconds = _recommend_all(recommender, holdout.histories, *limits)
    return evaluate_lists(
        recommender.name,
        items,
        holdout,
        cuts,
        seconds=seconds,
        nll=_nll(recommender, holdout, progress) if nll else None,
        exclude_seen=exclude_seen,
        seed=seed,
        bootstrap=bootstrap,
        n_items=len(_catalogue_of(recommender, holdout)),
    )


def _nll(
    recommender: Recommender, holdout: Holdout, progress: Progress | None = None
) -> Floats | None:
    log_likelihood = getattr(recommender, "log_likelihood", None)
    if log_likelihood is None or not getattr(recommender, "has_likelihood", True):
        return None
    found = np.empty(len(holdout))
    for start in range(0, len(found), NLL_ROWS):
        rows = np.arange(start, min(start + NLL_ROWS, len(found)))
        found[rows] = log_likelihood(holdout.histories.select(rows), holdout.targets[rows])
        if progress is not None:
            progress(int(rows[-1]) + 1, len(found))
    return -found


def evaluate_lists(
    name: str,
    items: Items,
    holdout: Holdout,
    k: Sequence[int] | int,
    *,
    seconds: float,
    nll: Floats | None = None,
    exclude_seen: bool = True,
    seed: int = 0,
    bootstrap: int = 1000,
    n_items: int | None = None,
) -> Evaluation:
    """Evaluate lists that were computed before; see :func:`evaluate`.

    Args:
        name: name of the recommender.
        items: the lists, int32 [users, max(k)].
        holdout: histories and targets.
        k: cut-offs of the metrics.
        seconds: wall time that the lists took.
        nll: negative log-likelihood of each target, shape [users], if known.
        exclude_seen: whether the lists leave out items of the history.
        seed: seed of the bootstrap.
        bootstrap: number of resamples; 0 omits the intervals.
        n_items: size of the recommender's catalogue, if it is larger than the holdout's.
    """
    cuts, size = _cut_offs(k), len(holdout.catalogue)
    ranks = metrics.target_ranks(items, holdout.targets)
    values = {f"{name}@{cut}": of(ranks, cut) for cut in cuts for name, of in METRICS.items()}
    users = len(np.unique(owner := holdout.owners()))
    several = owner if users < len(owner) else None
    return Evaluation(
        name=name,
        split=holdout.name,
        users=users,
        k=cuts,
        items=items,
        ranks=ranks,
        metrics={name: float(each.mean()) for name, each in values.items()},
        intervals=_intervals(values, seed, bootstrap, several),
        spread={},
        coverage={f"coverage@{cut}": metrics.coverage(items[:, :cut], size) for cut in cuts},
        counts=_counts(items, holdout, n_items or size),
        seconds=seconds,
        protocol=_protocol(holdout, users, exclude_seen, seed, bootstrap),
        fingerprint=_fingerprint(holdout, exclude_seen),
        nll=nll,
        owner=several,
    )


def average_runs(runs: Sequence[Evaluation], *, seed: int = 0, bootstrap: int = 1000) -> Evaluation:
    """Average several runs of one recommender that differ in their seed.

    Intervals are over users, of each user's mean value. ``spread`` is the standard deviation over
    the runs.

    Raises:
        DataError: the runs were evaluated on different users or protocols.
    """
    first = runs[0]
    if len({each.fingerprint for each in runs}) > 1:
        raise DataError(
            f"The runs of {first.name} were evaluated on different users or protocols. Evaluate "
            "them on the same split."
        )
    if len(runs) == 1:
        return first
    ranks = np.stack([each.ranks for each in runs])
    values = {name: np.mean([each.values(name) for each in runs], axis=0) for name in first.metrics}
    nll = [each.nll for each in runs if each.nll is not None]
    return replace(
        first,
        items=np.stack([each.items for each in runs]),
        ranks=ranks,
        metrics={name: float(each.mean()) for name, each in values.items()},
        intervals=_intervals(values, seed, bootstrap, first.owner),
        spread={
            name: float(np.std([each.metrics[name] for each in runs], ddof=1)) for name in values
        },
        coverage=_means([each.coverage for each in runs]),
        counts={name: sum(each.counts[name] for each in runs) for name in first.counts},
        seconds=float(np.mean([each.seconds for each in runs])),
        nll=np.mean(nll, axis=0) if nll else None,
    )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _check_holdout(holdout: object, recommender: Recommender) -> None:
    if not isinstance(holdout, Holdout):
        raise DataError(
            f"evaluate needs a holdout such as split.test, got {type(holdout).__name__}."
        )
    if not len(holdout):
        raise DataError(f"The {holdout.name} holdout has no users. Use data with longer histories.")
    # Item indices must mean the same items; the recommender may know further ones.
    own, asked = _catalogue_of(recommender, holdout), holdout.catalogue
    if own is not asked and list(own.item_ids[: len(asked)]) != list(asked.item_ids):
        raise DataError(
            f"{recommender.name} was fitted on another catalogue ({len(own):,} items) than that of "
            f"the {holdout.name} holdout ({len(asked):,} items); fit it on the same data set."
        )


def _catalogue_of(recommender: Recommender, holdout: Holdout) -> Catalogue:
    """Return a recommender's catalogue; one loaded from a file without titles has the holdout's."""
    try:
        return cast(Catalogue, getattr(recommender, "catalogue", holdout.catalogue))
    except NotFittedError:
        return holdout.catalogue


def _cut_offs(k: Sequence[int] | int) -> tuple[int, ...]:
    cuts = (int(k),) if isinstance(k, int | np.integer) else tuple(sorted(set(k)))
    if not cuts or cuts[0] < 1:
        raise ConfigError(f"k must hold cut-offs of at least 1, such as (5, 10), got {cuts}.")
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
    if top.items.shape != shape:  # NumPy would silently broadcast one row over all users
        raise DataError(
            f"{name}.recommend_batch returned {top.items.shape} instead of {shape}. Return one row "
            "of k items per history."
        )
    return top.items


def _intervals(
    values: Mapping[str, Floats], seed: int, resamples: int, owner: Ints | None
) -> dict[str, tuple[float, float]]:
    if not resamples:
        return {}
    return {
        name: metrics.bootstrap_interval(each, seed, resamples, LEVEL, owner)
        for name, each in values.items()
    }


def _counts(items: Items, holdout: Holdout, size: int) -> dict[str, int]:
    """Count places that a good list does not have; see :attr:`Evaluation.counts`."""
    histories = holdout.histories
    owners = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    seen = owners * size + histories.items  # encodes (user, item) as one number
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


def _protocol(
    holdout: Holdout, users: int, exclude_seen: bool, seed: int, resamples: int
) -> tuple[str, ...]:
    targets = len(holdout)
    held_out = (
        f"one held-out target item for each of {users:,} users"
        if users == targets
        else f"{targets:,} held-out target items of {users:,} users, one after the other"
    )
    split = f"Split: {holdout.name}; {held_out}; the history is everything known before the target."
    ranking = (
        f"Full ranking: the target competes with all {len(holdout.catalogue):,} items of the "
        "catalogue; a hit is decided on the item's identity, not on its title."
    )
    seen = f"Items of the user's own history are {'left out of' if exclude_seen else 'allowed in'}"
    formulas = (
        "HR@k = 1 if rank ≤ k; NDCG@k = 1 / log2(rank + 1) if rank ≤ k (one relevant item, so "
        "the ideal is 1); MRR@k = 1 / rank if rank ≤ k; each is 0 otherwise. Means over targets."
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
