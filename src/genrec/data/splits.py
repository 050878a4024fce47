"""Splits of a data set into training data and validation and test targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np

from genrec.arrays import Floats, Integers, Ints, Items, rows_and_places
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, common_clock, count_before
from genrec.data.provenance import SplitInfo
from genrec.data.statistics import dataset_statistics
from genrec.errors import ConfigError, DataError

TARGETS = ("first", "last", "random", "successive")
"""Which of a user's items after a cut are targets; see :func:`global_time`."""


@dataclass(frozen=True, eq=False)
class Holdout:
    """Histories with one target each: the item that came next. A user may have several rows.

    Attributes:
        name: ``"valid"`` or ``"test"``.
        histories: everything before the target, one row per target.
        targets: item indices of ``catalogue``, int32 [rows].
        catalogue: the items.
        times: timestamps of the targets, float64 [rows], or ``None`` if unknown.
    """

    name: str
    histories: Histories
    targets: Items
    catalogue: Catalogue
    times: Floats | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def owners(self) -> Ints:
        """Return the number of each row's user, counted from 0, shape [rows]."""
        numbers: dict[str, int] = {}
        users = self.histories.user_ids
        return np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64)

    def sample(self, users: int, seed: int) -> Holdout:
        """Return a random sample of the users, with all their targets, in the order of the rows.

        Args:
            users: maximum number of users.
            seed: seed of the sample.

        Raises:
            ConfigError: ``users`` is below 1.
        """
        if users < 1:
            raise ConfigError(f"a sample of {users} users is empty; give 1 or more")
        owner = self.owners()
        drawn = np.random.default_rng(seed).permutation(owner.max(initial=-1) + 1)[:users]
        return self.select(np.flatnonzero(np.isin(owner, drawn)))

    def sample_targets(self, targets: int, seed: int) -> Holdout:
        """Return at most this many random rows, whoever's they are."""
        return self.select(np.sort(np.random.default_rng(seed).permutation(len(self))[:targets]))

    def select(self, rows: Ints) -> Holdout:
        """Return some of the rows."""
        times = None if self.times is None else self.times[rows]
        histories = self.histories.select(rows)
        return Holdout(self.name, histories, self.targets[rows], self.catalogue, times)


@dataclass(frozen=True, eq=False)
class Split:
    """Training data, validation targets and test targets.

    Attributes:
        train: the data that models are fitted on.
        valid: targets for early stopping and for choosing models and settings.
        test: targets for the final evaluation.
        info: how the data were split.
        known: everything before the test, one row per user. ``None`` stands for the test users'
            histories and the training histories of all others. Whoever replaces ``train`` has to
            replace it, too.
    """

    train: Dataset
    valid: Holdout
    test: Holdout
    info: SplitInfo
    known: Histories | None = None


def leave_last_out(data: Dataset, *, n: int = 1) -> Split:
    """Split off each user's last items for the test and the one before them for validation.

    The history of a target is everything before it, so that of a test target contains the
    validation item and, with several, the earlier test targets. Users with fewer than n + 2 items
    get no target, and all their items belong to the training data.

    Args:
        data: the complete data set.
        n: number of test targets of each user.

    Raises:
        ConfigError: ``n`` is below 1.
        DataError: No user has n + 2 items.
    """
    if n < 1:
        raise ConfigError(f"n={n} must be at least 1: it is the number of test targets of a user")
    histories, lengths = data.histories, data.histories.lengths
    everybody, long = np.arange(len(histories)), lengths >= n + 2
    rows = np.flatnonzero(long)
    train = histories.head(everybody, lengths - (n + 1) * long)
    facts = {f"users_with_fewer_than_{n + 2}_items": len(lengths) - len(rows)}
    first = lengths[rows] - n
    row, place = rows_and_places(np.full(len(rows), n))
    tests = rows[row], first[row] + place
    name = "leave-last-out" if n == 1 else f"leave-last-out,n={n}"
    split = split_at(data, train, [(rows, first - 1), tests], name, facts)
    return split if n == 1 else replace(split, known=histories.head(everybody, lengths - n * long))


def global_time(
    data: Dataset,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    target: str = "first",
    until: float = 1.0,
) -> Split:
    """Split the log at two points of time that all users share.

    The cuts are the quantiles 1 - valid - test and 1 - test of all timestamps. The training data
    are everything before the first cut. A user has one validation target, an item between the cuts,
    and one test target, an item from the second cut on; with ``target="successive"``, every item
    there is a target. The history of a target is everything before it. Users without a history
    before a cut or without an item after it get no target; ``info`` counts those without a history.

    Which item is the target can change the order of models ("Time to Split", arXiv 2507.16289).

    Args:
        data: the complete data set, with real timestamps.
        valid: share of the interactions between the cuts.
        test: share of the interactions from the second cut on.
        target: which of the items after a cut is a user's target: ``"first"``, ``"last"``,
            ``"random"``, drawn with seed 0, or ``"successive"`` for each of them in turn.
        until: share of the log that is used, from its beginning. Smaller shares move both cuts back
            in time, so that several of them make a rolling evaluation.

    Raises:
        ConfigError: A share is out of range, or ``target`` is unknown.
        DataError: The timestamps are positions, not times, or a part gets no target.
    """
    name = _checked_name(valid, test, target, until)
    _check_clock(data)
    histories, shares = data.histories, np.array([1 - valid - test, 1 - test])
    cuts = np.quantile(histories.timestamps, until * shares, method="higher")
    end = np.inf if until == 1 else np.quantile(histories.timestamps, until, method="higher")
    before = [count_before(histories, cut) for cut in (*cuts, end)]
    facts: dict[str, Any] = {"cuts": cuts.tolist()}
    rng, parts = np.random.default_rng(0), []
    for part, known, stop in zip(("valid", "test"), before, before[1:], strict=False):
        active = stop > known
        targeted = np.flatnonzero(active & (known > 0))
        facts[f"{part}_users_without_history"] = int((active & (known == 0)).sum())
        parts.append(_places(target, targeted, known[targeted], stop[targeted], rng))
        if target != "successive":
            later = stop[targeted] - known[targeted] - 1
            facts[f"{part}_later_items_not_asked"] = int(later.sum())
    rows, shown = np.flatnonzero(before[0]), np.flatnonzero(before[1])
    split = split_at(data, histories.head(rows, before[0][rows]), parts, name, facts)
    return replace(split, known=histories.head(shown, before[1][shown]))


def _places(
    target: str, rows: Ints, first: Integers, stop: Integers, rng: np.random.Generator
) -> tuple[Ints, Integers]:
    """Return the row and the place of each target among the items ``first:stop`` of each row."""
    if target == "successive":
        row, place = rows_and_places(stop - first)
        return rows[row], first[row] + place
    return rows, {"first": first, "last": stop - 1, "random": rng.integers(first, stop)}[target]


def _checked_name(valid: float, test: float, target: str, until: float) -> str:
    """Return the name of a split by time with all options that are not the usual ones."""
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ConfigError(
            f"valid={valid} and test={test} must be positive and add up to less than 1"
        )
    if not 0 < until <= 1:
        raise ConfigError(f"until={until} must be more than 0 and at most 1")
    if target not in TARGETS:
        raise ConfigError(f"target={target!r} must be one of {', '.join(TARGETS)}")
    options = {"valid": (valid, 0.1), "test": (test, 0.1), "target": (target, "first")}
    options |= {"until": (until, 1.0)}
    others = [f"{key}={value}" for key, (value, usual) in options.items() if value != usual]
    return ",".join(("global-time", *others))


def _check_clock(data: Dataset) -> None:
    """Raise an error if the timestamps are positions within each history and not times."""
    if not common_clock(data.histories):
        reason = "most users start at the same timestamp, so it is no common time but a position"
        remedy = "use leave_last_out, or prepare the data with real times"
        raise DataError(f"{data.name}: {reason}; {remedy}")


def split_at(
    data: Dataset,
    train: Histories,
    parts: Sequence[tuple[Integers, Integers]],
    name: str,
    facts: Mapping[str, Any],
    *,
    whole: str | None = None,
) -> Split:
    """Build a split from training histories and the positions of the targets.

    Args:
        data: the complete data set.
        train: histories of the training data.
        parts: for valid and for test, the rows with a target and the number of items in the history
            of each; the next item is the target.
        name: name of the split.
        facts: details that JSON can hold.
        whole: fingerprint of the complete data set; that of ``data`` if ``None``.

    Raises:
        DataError: Validation or test would be empty.
    """
    histories, holdouts, users = data.histories, [], {}
    for part, (rows, known) in zip(("valid", "test"), parts, strict=True):
        if len(rows) == 0:
            remedy = "use more data, smaller k-core minima or another split"
            raise DataError(f"{data.name}: the {name} {part} set is empty; {remedy}")
        places = histories.offsets[rows] + known
        targets, times = histories.items[places], histories.timestamps[places]
        holdouts.append(Holdout(part, histories.head(rows, known), targets, data.catalogue, times))
        users[f"{part}_users"] = len(np.unique(rows))
        if len(rows) > users[f"{part}_users"]:
            users[f"{part}_targets"] = len(rows)
    info = SplitInfo(name, {**facts, **users})
    statistics = dataset_statistics(train, len(data.catalogue))
    provenance = replace(
        data.provenance,
        preparation={**data.provenance.preparation, **statistics},
        whole=data.fingerprint if whole is None else whole,
        split=info,
    )
    valid, test = holdouts
    return Split(Dataset(data.name, data.catalogue, train, provenance), valid, test, info)


SPLITS: Mapping[str, Callable[..., Split]] = {
    "leave-last-out": leave_last_out,
    "global-time": global_time,
}


_READERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}
"""How an option's value is read from text, by the type of the argument, and what it must be."""


def is_split_name(text: str) -> bool:
    """Return whether a text names a split, with or without options."""
    return text.partition(",")[0] in SPLITS


def split_by_name(data: Dataset, text: str) -> Split:
    """Split a data set by the name of a split and its options.

    Args:
        data: the complete data set.
        text: such as ``"leave-last-out"`` or ``"global-time,target=last,until=0.9"``. The options
            are the keyword arguments of the function in :data:`SPLITS`.

    Raises:
        ConfigError: An option is unknown or its value is invalid.
    """
    name, *options = (part.strip() for part in text.split(","))
    known = signature(SPLITS[name]).parameters
    given: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in known or key == "data" or not value:
            names = ", ".join(key for key in known if key != "data") or "none"
            raise ConfigError(f"split {text!r}: {option!r} is no option of {name}; it has {names}.")
        if key in given:
            raise ConfigError(f"split {text!r}: {key} is given twice; keep one of them.")
        read, what = _READERS[known[key].annotation]
        try:
            given[key] = read(value)
        except ValueError:
            raise ConfigError(f"split {text!r}: {key} must be {what}, got {value!r}.") from None
    return SPLITS[name](data, **given)


def hold_out_last(
    train: Dataset, share: float = 0.1, seed: int = 0, least: int = 1
) -> tuple[Dataset, Holdout]:
    """Hold the last item of some users out of training data, for early stopping and weights.

    Args:
        train: the training data.
        share: share of the users with two or more items.
        least: fewest users, as far as there are so many.
        seed: seed of the draw.

    Returns:
        The training data without these items, and the items as targets.
    """
    histories, lengths = train.histories, train.histories.lengths
    long = np.flatnonzero(lengths > 1)
    count = min(len(long), max(least, math.ceil(len(long) * share)))
    users = np.sort(np.random.default_rng(seed).permutation(long)[:count])
    lengths[users] -= 1
    before = histories.head(np.arange(len(histories)), lengths)
    places = histories.offsets[users] + lengths[users]
    targets, times = histories.items[places], histories.timestamps[places]
    holdout = Holdout("held out", before.select(users), targets, train.catalogue, times)
    return replace(train, histories=before), holdout


def with_targets(
    train: Dataset, valid: Holdout | None, seed: int = 0, least: int = 1
) -> tuple[Dataset, Holdout]:
    """Return training data and validation targets, which are held out if there are none.

    Args:
        train: the training data.
        valid: validation targets, or ``None``.
        seed: seed of :func:`hold_out_last`.
        least: fewest users whose last item is held out.
    """
    if valid is not None and len(valid):
        return train, valid
    return hold_out_last(train, seed=seed, least=least)


def before_test(split: Split) -> Dataset:
    """Return everything before the test, to fit a model whose settings are final.

    In a split by time that is everything before the second cut. Otherwise test users keep the
    history of their test target, and all other users their training history.
    """
    histories = known_by_user(split) if split.known is None else split.known
    provenance = replace(split.train.provenance, train_on="train+valid")
    return Dataset(split.train.name, split.train.catalogue, histories, provenance)


def known_by_user(split: Split) -> Histories:
    """Return the test users' histories and the training histories of all other users."""
    test, train = split.test.histories, split.train.histories
    tested = set(test.user_ids)
    others = train.select([row for row, user in enumerate(train.user_ids) if user not in tested])
    return Histories(
        np.append(test.items, others.items),
        np.append(test.offsets, test.offsets[-1] + others.offsets[1:]),
        [*test.user_ids, *others.user_ids],
        np.append(test.timestamps, others.timestamps),
        None
        if test.ratings is None or others.ratings is None
        else np.append(test.ratings, others.ratings),
    )


def one_step_earlier(split: Split) -> Split:
    """Return a split whose test targets are the validation targets of ``split``.

    It serves to choose models and settings without using the test targets. Its own validation
    targets, for early stopping, are split off the training data.
    """
    name = split.info.name if is_split_name(split.info.name) else "leave-last-out"
    # The log has ended already, and a user has one validation target.
    options = [part for part in name.split(",") if not part.startswith(("until=", "n="))]
    inner = split_by_name(split.train, ",".join(options))
    provenance = replace(
        before_test(inner).provenance,
        whole=split.train.provenance.whole,
        split=split.train.provenance.split,
        train_on="before valid",
    )
    train = replace(before_test(inner), provenance=provenance)
    info = replace(split.info, evaluate_on="valid")
    return Split(train, inner.test, split.valid, info, known=split.train.histories)
