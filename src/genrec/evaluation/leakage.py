"""Ways in which a test's answers get into training, looked for in every comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from genrec.arrays import Floats, Integers, Items
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Split
from genrec.errors import DataError
from genrec.metrics import hit_rate, target_ranks
from genrec.recommender import Recommender

IN_LOG_ORDER = 0.5
"""Share of items whose number follows that of the item first met before them, above which numbers
are called those of the log's order. Such numbers have 1; episodes of series in a row have some."""
TWINS = 0.01
"""Share of users whose whole history another user has, above which a data set has duplicates."""
TWIN_LENGTH = 5
"""Shorter histories are the same by chance."""
RULE = 10
"""Length of the list that a numbering alone gives."""


@dataclass(frozen=True)
class Finding:
    """A leak, or something close to one that a reader should know.

    check: its short name. leak: whether results mean nothing until it is mended. text: one sentence
    with numbers and the remedy.
    """

    check: str
    leak: bool
    text: str


class LeakageError(DataError):
    """A comparison's data would let a model know its answers."""


def check_split(split: Split) -> list[Finding]:
    """Look for held-out items in training, training after the target, twins, and telling ids."""
    return [
        *_held_out_in_training(split),
        *_training_after_target(split),
        *_twins(split),
        *check_numbers(np.arange(len(split.test.catalogue)), split, "the item ids"),
    ]


def refuse_leaks(findings: Sequence[Finding]) -> None:
    """Raise LeakageError with every leak among the findings."""
    leaks = [f"{each.check}: {each.text}" for each in findings if each.leak]
    if leaks:
        raise LeakageError(
            f"{'; '.join(leaks)}. Mend the data or the split, or go on with --allow-leaks (the "
            "report will name them)."
        )


def check_numbers(numbers: Integers, split: Split, what: str) -> Iterator[Finding]:
    """Do numbers of items tell what came next?

    Integers given in the order of the log, held-out items included, make the target the next free
    number of its user ("highest + 1") wherever its item came up there first: the leak of P5's
    sequential ids (arXiv 2305.06569).

    numbers: int [items]. what: how to call them in a finding.
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
    told = f'the rule "highest number of the history + 1 to {RULE}" has HR@{RULE} {rate:.4f}'
    if in_order > IN_LOG_ORDER and certain:
        yield Finding(
            "id order",
            True,
            f"{what} are numbered in the order of the log, held-out items included: {told}; number "
            "the items by something else or at random",
        )
    elif certain and rate > 0.01:
        yield Finding("id order", False, f"{what} tell a little: {told}")


def _share_in_log_order(numbers: Integers, split: Split) -> float:
    """Share of items whose number follows that of the item that first came up just before them.

    Walks through the users one after the other, as the leak does, and through the whole log by
    time.
    """
    whole = _with_targets(split)
    walks = (np.arange(len(whole.items)), np.argsort(whole.timestamps, kind="stable"))
    shares = []
    for walk in walks:
        items, first = np.unique(whole.items[walk], return_index=True)
        in_order = numbers[items[np.argsort(first)]]
        shares.append(float((np.diff(in_order) == 1).mean()) if len(items) > 1 else 0.0)
    return max(shares)


def _with_targets(split: Split) -> Histories:
    """Test histories with their targets, and the training histories of the users not asked."""
    test, train = split.test, split.train.histories
    asked = set(test.histories.user_ids)
    others = train.select([row for row, user in enumerate(train.user_ids) if user not in asked])
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
    """The same interaction, by user, item and time, before and after the cut."""
    histories = split.train.histories
    trained = _keys(_owners(histories), histories.items, histories.timestamps)
    for holdout in (split.valid, split.test):
        if holdout.times is None:
            continue
        users = holdout.histories.user_ids
        asked = _keys(users, holdout.targets, holdout.times)
        if count := len(asked & trained):
            yield Finding(
                "held-out items in training",
                True,
                f"{count} of {len(holdout)} {holdout.name} targets are training interactions, too "
                "(same user, item and time): split again, without duplicate rows",
            )
        known = _keys(
            _owners(holdout.histories), holdout.histories.items, holdout.histories.timestamps
        )
        if count := len(asked & (known - trained)):
            yield Finding(
                "duplicates",
                True,
                f"{count} of {len(holdout)} {holdout.name} targets stand in their own history "
                "(same item and time): remove duplicate rows from the log",
            )


def _owners(histories: Histories) -> list[str]:
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    return [histories.user_ids[row] for row in rows.tolist()]


def _keys(users: Sequence[str], items: Items, times: Floats) -> set[tuple[str, int, float]]:
    return set(zip(users, items.tolist(), times.tolist(), strict=True))


def _training_after_target(split: Split) -> Iterator[Finding]:
    """Training that is younger than what is asked: of the same user, or of all in a time split."""
    train = split.train.histories
    latest = {
        user: times.max()
        for user, times in zip(
            train.user_ids, np.split(train.timestamps, train.offsets[1:-1]), strict=True
        )
        if len(times)
    }
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
                "are younger than their target: cut each history in time",
            )
        if _name(split) == "global-time" and train.timestamps.max() >= holdout.times.min():
            yield Finding(
                "training after the target", True, f"training reaches into the {holdout.name} time"
            )


def _name(split: Split) -> str:
    return split.info.name


def _twins(split: Split) -> Iterator[Finding]:
    """Users whose history, target included, is another user's: one of them may be trained on."""
    test = split.test
    rows = zip(test.histories, test.targets.tolist(), strict=True)
    whole = [(*row.tolist(), target) for row, target in rows if len(row) + 1 >= TWIN_LENGTH]
    share = 1 - len(set(whole)) / len(whole) if whole else 0.0
    if share > 0:
        yield Finding(
            "duplicate users",
            share > TWINS,
            f"{share:.2%} of the test users have the same whole history as another one: remove "
            "duplicate users",
        )


def check_fitted(model: Recommender, known: Sequence[Dataset]) -> Iterator[Finding]:
    """Was a model fitted on training data that may be learnt from, and on nothing else?

    A model tells what it has counted by ``item_counts``: interactions of each item, shape [items].
    One that keeps no counts is reported as not checked.

    Args:
        known: data sets that hold no answers; one of them has to be what the model counted.
    """
    counts = getattr(model, "item_counts", None)
    if counts is None:
        yield Finding(
            "not checked",
            False,
            f"{model.name} keeps no counts of what it was fitted on, so that it could not be "
            "checked against the training split",
        )
        return
    yield from min((check_counts(model.name, counts, part) for part in known), key=len)


def check_counts(name: str, counts: npt.NDArray[Any], train: Dataset) -> list[Finding]:
    """Was a model's count of interactions made on this training split, and nothing else?

    counts: [items] interactions as the model has them.
    """
    true = np.bincount(train.histories.items, minlength=len(train.catalogue))
    if len(counts) == len(true) and np.array_equal(counts, true):
        return []
    more = int(np.maximum(counts[: len(true)] - true[: len(counts)], 0).sum())
    what = f"{more} interactions more than" if more else "other interactions than"
    return [
        Finding(
            "fitted on other data",
            True,
            f"{name} has counted {what} this training split holds: fit it on the training split",
        )
    ]
