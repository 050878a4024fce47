"""Splits of a data set into training data and validation and test targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genrec.arrays import Floats, Integers, Items
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, common_clock, count_before
from genrec.data.provenance import SplitInfo
from genrec.data.statistics import dataset_statistics
from genrec.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Holdout:
    """Histories with one target each: the item that came next.

    Attributes:
        name: ``"valid"`` or ``"test"``.
        histories: everything before the target, one row per user.
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

    def sample(self, users: int, seed: int) -> Holdout:
        """Return a random sample of the rows.

        Args:
            users: maximum number of rows.
            seed: seed of the sample.

        Returns:
            The sample, in the order of the rows.

        Raises:
            ConfigError: ``users`` is below 1.
        """
        if users < 1:
            raise ConfigError(f"a sample of {users} users is empty; give 1 or more")
        drawn = np.random.default_rng(seed).permutation(len(self))[:users]
        rows = np.sort(drawn)
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
    """

    train: Dataset
    valid: Holdout
    test: Holdout
    info: SplitInfo


def leave_last_out(data: Dataset) -> Split:
    """Split off each user's last item for the test and the second last for validation.

    The history of a test target contains the validation item. Users with fewer than three items
    get no target, and all their items belong to the training data.

    Args:
        data: the complete data set.

    Raises:
        DataError: No user has three items.
    """
    histories, lengths = data.histories, data.histories.lengths
    rows = np.flatnonzero(lengths >= 3)
    train = histories.head(np.arange(len(histories)), lengths - 2 * (lengths >= 3))
    short = len(lengths) - len(rows)
    facts = {"users_with_fewer_than_3_items": short}
    known = lengths[rows]
    return split_at(data, train, [(rows, known - 2), (rows, known - 1)], "leave-last-out", facts)


def global_time(data: Dataset, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """Split the log at two points of time that all users share.

    The cuts are the quantiles 1 - valid - test and 1 - test of all timestamps. The training data
    are everything before the first cut. A user's validation target is the first item between the
    cuts, and the test target is the first item from the second cut on; the history of a target is
    everything before its cut. Users without a history before a cut or without an item after it get
    no target; ``info`` counts those without a history.

    Args:
        data: the complete data set, with real timestamps.
        valid: share of the interactions between the cuts.
        test: share of the interactions from the second cut on.

    Raises:
        ConfigError: The shares are not positive, or add up to 1 or more.
        DataError: The timestamps are positions, not times, or a part gets no target.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ConfigError(
            f"valid={valid} and test={test} must be positive and add up to less than 1"
        )
    histories, times = data.histories, data.histories.timestamps
    _check_clock(data)
    cuts = np.quantile(times, [1 - valid - test, 1 - test], method="higher")
    before = [count_before(histories, cut) for cut in (*cuts, np.inf)]
    facts: dict[str, Any] = {"cuts": cuts.tolist()}
    parts = []
    for name, known, until in zip(("valid", "test"), before, before[1:], strict=False):
        active = until > known
        targeted = np.flatnonzero(active & (known > 0))
        later = int((until - known)[targeted].sum()) - len(targeted)
        facts[f"{name}_users_without_history"] = int((active & (known == 0)).sum())
        facts[f"{name}_later_items_not_asked"] = later
        parts.append((targeted, known[targeted]))
    rows = np.flatnonzero(before[0])
    return split_at(data, histories.head(rows, before[0][rows]), parts, "global-time", facts)


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
        users[f"{part}_users"] = len(rows)
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


SPLITS = {"leave-last-out": leave_last_out, "global-time": global_time}


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
    """Return everything before the test targets, to fit a model whose settings are final.

    Test users keep the history of their test target, all other users their training history.
    """
    test, train = split.test.histories, split.train.histories
    tested = set(test.user_ids)
    others = train.select([row for row, user in enumerate(train.user_ids) if user not in tested])
    histories = Histories(
        np.append(test.items, others.items),
        np.append(test.offsets, test.offsets[-1] + others.offsets[1:]),
        [*test.user_ids, *others.user_ids],
        np.append(test.timestamps, others.timestamps),
        None
        if test.ratings is None or others.ratings is None
        else np.append(test.ratings, others.ratings),
    )
    provenance = replace(split.train.provenance, train_on="train+valid")
    return Dataset(split.train.name, split.train.catalogue, histories, provenance)


def one_step_earlier(split: Split) -> Split:
    """Return a split whose test targets are the validation targets of ``split``.

    It serves to choose models and settings without using the test targets. Its own validation
    targets, for early stopping, are split off the training data.
    """
    inner = SPLITS.get(split.info.name, leave_last_out)(split.train)
    provenance = replace(
        before_test(inner).provenance,
        whole=split.train.provenance.whole,
        split=split.train.provenance.split,
        train_on="before valid",
    )
    train = replace(before_test(inner), provenance=provenance)
    return Split(train, inner.test, split.valid, replace(split.info, evaluate_on="valid"))
