"""Leak checks: ways in which a test's answers get into training. Every comparison runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from genrec.arrays import Integers
from genrec.data.dataset import Dataset
from genrec.data.display_titles import places_of
from genrec.data.histories import Histories
from genrec.data.splits import Holdout, Split
from genrec.errors import DataError
from genrec.metrics import hit_rate, target_ranks
from genrec.recommender import Recommender

IN_LOG_ORDER = 0.5
"""Threshold above which item numbers count as assigned in the order of the data.

It applies to the share of consecutive items, by first occurrence, with consecutive numbers. Numbers
in the order of the data have a share of 1. Consecutive episodes of a series raise the share of
ordinary numbers.
"""
TWINS = 0.01
"""Share of users with another user's whole history, above which the data has duplicates."""
FEW_TWINS = 0.0005
"""Share of such users that is worth a note."""
TWIN_LENGTH = 5
"""Shortest history that is checked for duplicates; shorter ones can coincide by chance."""
RULE = 10
"""Length of the list that item numbers alone give."""


@dataclass(frozen=True)
class Finding:
    """A leak, or a weaker problem that a reader should know about.

    Attributes:
        check: short name of the check.
        leak: whether the results are invalid until the problem is fixed.
        text: one sentence with numbers and the remedy.
    """

    check: str
    leak: bool
    text: str

    def __str__(self) -> str:
        return f"{'LEAK' if self.leak else 'note'} · {self.check}: {self.text}"


class LeakageError(DataError):
    """The data of a comparison would reveal answers to a model."""


def check_split(split: Split) -> list[Finding]:
    """Check a split for leaks.

    The checks cover held-out items in training, training after the target, duplicate users, and
    item ids that reveal the answers. What was noted when the tables of a split were read comes
    first.
    """
    return [
        *(Finding("split", False, note) for note in split.info.facts.get("notes", ())),
        *_held_out_in_training(split),
        *_training_after_target(split),
        *_twins(split),
        *check_numbers(np.arange(len(split.test.catalogue)), split, "the item ids"),
    ]


def refuse_leaks(findings: Sequence[Finding]) -> None:
    """Refuse to continue if there is a leak among the findings.

    Raises:
        LeakageError: lists every leak among the findings.
    """
    leaks = [f"{each.check}: {each.text}" for each in findings if each.leak]
    if leaks:
        raise LeakageError(
            f"{'; '.join(leaks)}. Fix the data or the split, or continue with --allow-leaks (the "
            "report will list the leaks)."
        )


def check_numbers(numbers: Integers, split: Split, what: str) -> Iterator[Finding]:
    """Check whether item numbers reveal the next item.

    Suppose that a walk through the users' histories assigns the numbers, held-out items included. A
    target that no earlier user has then gets the number after the user's highest one ("highest +
    1"). This is the leak of P5's sequential ids (arXiv 2305.06569).

    Args:
        numbers: number of each item, int [items].
        split: the split to check.
        what: name of the numbers, for the finding.
    """
    test = split.test
    ours, targets = [numbers[row] for row in test.histories], numbers[test.targets]
    highest = np.array([row.max(initial=-1) for row in ours])
    lowest = np.array([row.min(initial=0) for row in ours])
    known = highest >= 0
    up, down = int((targets == highest + 1)[known].sum()), int((targets == lowest - 1)[known].sum())
    lists = highest[:, None] + np.arange(1, RULE + 1)
    rate = hit_rate(target_ranks(lists, targets), RULE)[known].mean() if known.any() else 0.0
    certain = up > down and binomtest(up, up + down).pvalue < 0.01
    in_order = _share_in_log_order(numbers, split)
    rule = f'the rule "highest number of the history + 1 to {RULE}" has HR@{RULE} {rate:.4f}'
    if in_order > IN_LOG_ORDER and certain:
        yield Finding(
            "id order",
            True,
            f"{what} are numbered in the order of the data, held-out items included: {rule}; "
            "number the items at random, e.g. with `genrec prepare --renumber`",
        )
    elif certain and rate > 0.01:
        yield Finding("id order", False, f"{what} reveal a little about the next item: {rule}")


def _share_in_log_order(numbers: Integers, split: Split) -> float:
    """Return the share of consecutive items with consecutive numbers.

    Items are ordered by their first occurrence in a walk through the data. There are two walks, and
    the larger share counts: through the users one after the other, as the leak does, and through
    all interactions by time.
    """
    whole = _with_targets(split)
    walks = (np.arange(len(whole.items)), np.argsort(whole.timestamps, kind="stable"))
    shares = []
    for walk in walks:
        first = np.full(len(numbers), -1)
        first[whole.items[walk[::-1]]] = np.arange(len(walk))[::-1]  # the last write counts
        seen = np.flatnonzero(first >= 0)
        in_order = numbers[seen[np.argsort(first[seen])]]
        shares.append(float((np.diff(in_order) == 1).mean()) if len(seen) > 1 else 0.0)
    return max(shares)


def _with_targets(split: Split) -> Histories:
    """Return test histories with their targets, plus the training histories of all other users."""
    test, train = split.test, split.train.histories
    tested = set(test.histories.user_ids)
    others = train.select([row for row, user in enumerate(train.user_ids) if user not in tested])
    times = np.full(len(test), np.inf) if test.times is None else test.times
    ends = test.histories.offsets[1:]
    lengths = np.append(test.histories.lengths + 1, others.lengths)
    return Histories(
        np.append(np.insert(test.histories.items, ends, test.targets), others.items),
        np.append(0, np.cumsum(lengths)),
        [*test.histories.user_ids, *others.user_ids],
        np.append(np.insert(test.histories.timestamps, ends, times), others.timestamps),
    )


def _held_out_in_training(split: Split) -> Iterator[Finding]:
    """Find interactions (user, item, time) that are both held out and known."""
    for holdout in (split.valid, split.test):
        if holdout.times is None:
            continue
        users = holdout.histories.user_ids
        held_out = list(zip(users, holdout.targets.tolist(), holdout.times.tolist(), strict=True))
        trained = _contained(set(held_out), split.train.histories)
        if count := len(trained):
            yield Finding(
                "held-out items in training",
                True,
                f"{count} of {len(holdout)} {holdout.name} targets are training interactions, too "
                "(same user, item and time): remove duplicate rows and split again",
            )
        if count := len({held_out[row] for row in _in_own_history(holdout)} - trained):
            yield Finding(
                "duplicates",
                True,
                f"{count} of {len(holdout)} {holdout.name} targets occur in their own history "
                "(same item and time): remove duplicate rows from the data",
            )


def _in_own_history(holdout: Holdout) -> Integers:
    """Return the rows whose history holds the target, with the same time."""
    assert holdout.times is not None
    histories = holdout.histories
    row = np.repeat(np.arange(len(holdout)), histories.lengths)
    same = histories.items == holdout.targets[row]
    same &= histories.timestamps == holdout.times[row]
    return np.unique(row[same])


Interaction = tuple[str, int, float]
"""User, item and time."""


def _contained(wanted: set[Interaction], histories: Histories) -> set[Interaction]:
    """Return the interactions (user, item, time) that histories contain.

    A large log would not fit in memory as a set, so the pairs of users and items are compared
    first.
    """
    rows: dict[str, list[int]] = places_of(histories.user_ids)
    items = int(histories.items.max(initial=0)) + 1
    pairs = [row * items + i for user, i, _ in wanted if i < items for row in rows.get(user, ())]
    owners = np.repeat(np.arange(len(histories)), histories.lengths)
    hits = np.flatnonzero(np.isin(owners * items + histories.items, np.unique(pairs)))
    return wanted & {
        (histories.user_ids[owners[hit]], int(histories.items[hit]), histories.timestamps[hit])
        for hit in hits.tolist()
    }


def _training_after_target(split: Split) -> Iterator[Finding]:
    """Find training later than a target: of the same user, or of anyone in a time split."""
    train = split.train.histories
    filled = np.flatnonzero(train.lengths)
    last = np.maximum.reduceat(train.timestamps, train.offsets[filled]) if len(filled) else ()
    latest = dict(zip((train.user_ids[row] for row in filled), last, strict=True))
    for holdout in (split.valid, split.test):
        if holdout.times is None:
            continue
        users = zip(holdout.histories.user_ids, holdout.times.tolist(), strict=True)
        late = sum(latest.get(user, -np.inf) > time for user, time in users)
        if late:
            yield Finding(
                "training after the target",
                True,
                f"{late} of {len(holdout)} {holdout.name} users have training interactions that "
                "are later than their target: split each history by time",
            )
        if split.info.kind == "global-time" and train.timestamps.max() >= holdout.times.min():
            yield Finding(
                "training after the target",
                True,
                f"some training interactions are as late as the first {holdout.name} target: split "
                "all users at one point in time",
            )


def _twins(split: Split) -> Iterator[Finding]:
    """Find users with the same history and target as another user, who may be in training."""
    test = split.test
    rows = zip(test.histories, test.targets, strict=True)
    whole = [
        hashlib.sha256(np.append(row, target).tobytes()).digest()
        for row, target in rows
        if len(row) + 1 >= TWIN_LENGTH
    ]
    share = 1 - len(set(whole)) / len(whole) if whole else 0.0
    if share >= FEW_TWINS:
        yield Finding(
            "duplicate users",
            share > TWINS,
            f"{share:.2%} of the test users have the same whole history as another user: remove "
            "duplicate users",
        )


def check_fitted(model: Recommender, known: Sequence[Dataset]) -> Iterator[Finding]:
    """Check that a model was fitted on permitted training data and on nothing else.

    A model reports what it was fitted on as ``item_counts``, the interactions of each item, shape
    [items]. A model without counts is reported as not checked.

    Args:
        model: the fitted model.
        known: data sets without answers; the model's counts must match one of them.
    """
    counts = getattr(model, "item_counts", None)
    if counts is None:
        yield Finding(
            "not checked",
            False,
            f"{model.name} does not report item counts, so it could not be checked against the "
            "training split",
        )
        return
    yield from min((check_counts(model.name, counts, part) for part in known), key=len)


def check_same_training(model: Recommender, fitted: Dataset) -> Iterator[Finding]:
    """Check that a model was fitted on as many interactions as the others of a comparison.

    Args:
        model: the fitted model.
        fitted: the training data of the other models.
    """
    counts = getattr(model, "item_counts", None)
    counts = None if counts is None else counts[: len(fitted.catalogue)]
    own, others = 0 if counts is None else int(np.sum(counts)), len(fitted.histories.items)
    if own and own < others:
        yield Finding(
            "fitted on less data",
            False,
            f"{model.name} was fitted on {own:,} interactions, other models on {others:,}, which "
            "puts it at a disadvantage: compare with --train-on train",
        )
    elif own > others:
        yield Finding(
            "fitted on more data",
            False,
            f"{model.name} was fitted on {own:,} interactions, other models on {others:,}, which "
            "gives it an advantage: compare with --train-on train+valid",
        )


def check_counts(name: str, counts: npt.NDArray[Any], train: Dataset) -> list[Finding]:
    """Check that a model's item counts are those of a training split.

    Args:
        name: the model's name, for the finding.
        counts: interactions of each item as the model reports them, shape [items].
        train: the training split.
    """
    true = np.bincount(train.histories.items, minlength=len(train.catalogue))
    counts = counts[: len(true)]  # items that were added later have no interactions of their own
    if np.array_equal(counts, true):
        return []
    more = int(np.maximum(counts - true[: len(counts)], 0).sum())
    what = f"{more} interactions more than" if more else "other interactions than"
    return [
        Finding(
            "fitted on other data",
            True,
            f"{name} was fitted on {what} this training split holds: fit it on the training split",
        )
    ]
