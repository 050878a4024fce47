"""What a model may learn from, and the questions it is asked: leave-last-out and global time."""

from __future__ import annotations

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
    """One question per row: after this history, which item came next?

    histories: all that was known before the target. targets: int32[rows], indices of `catalogue`.
    times: float64[rows], when the targets came, or None where that is unknown.
    """

    name: str
    histories: Histories
    targets: Items
    catalogue: Catalogue
    times: Floats | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, users: int, seed: int) -> Holdout:
        """At most `users` rows drawn with `seed`, in ascending order."""
        if users < 1:
            raise ConfigError(f"a sample of {users} users is empty; give 1 or more")
        drawn = np.random.default_rng(seed).permutation(len(self))[:users]
        rows = np.sort(drawn)
        times = None if self.times is None else self.times[rows]
        histories = self.histories.select(rows)
        return Holdout(self.name, histories, self.targets[rows], self.catalogue, times)


@dataclass(frozen=True, eq=False)
class Split:
    """What a model may learn from, two sets of questions, and how the data were cut."""

    train: Dataset
    valid: Holdout
    test: Holdout
    info: SplitInfo


def leave_last_out(data: Dataset) -> Split:
    """Each user's last item is the test target, the one before it the validation target.

    At test time the validation item belongs to the history. Users with fewer than three items stay
    whole in train and are asked nothing.
    """
    histories, lengths = data.histories, data.histories.lengths
    asked = np.flatnonzero(lengths >= 3)
    train = histories.head(np.arange(len(histories)), lengths - 2 * (lengths >= 3))
    short = len(lengths) - len(asked)
    facts = {"users_with_fewer_than_3_items": short}
    known = lengths[asked]
    return split_at(data, train, [(asked, known - 2), (asked, known - 1)], "leave-last-out", facts)


def global_time(data: Dataset, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """Cut the log at two points of time, the quantiles 1 - valid - test and 1 - test.

    Train holds what came before the first cut. A user's validation target is the first item between
    the cuts, the test target the first one after the second; the history is all before that cut.
    Users without history before a cut or items after it get no target, and are counted in `info`.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ConfigError(f"valid={valid}, test={test} must be positive and add up to less than 1")
    histories, times = data.histories, data.histories.timestamps
    _check_clock(data)
    cuts = np.quantile(times, [1 - valid - test, 1 - test], method="higher")
    before = [count_before(histories, cut) for cut in (*cuts, np.inf)]
    facts: dict[str, Any] = {"cuts": cuts.tolist()}
    parts = []
    for name, known, until in zip(("valid", "test"), before, before[1:], strict=False):
        active = until > known
        asked = np.flatnonzero(active & (known > 0))
        facts[f"{name}_users_without_history"] = int((active & (known == 0)).sum())
        facts[f"{name}_later_items_not_asked"] = int((until - known)[asked].sum()) - len(asked)
        parts.append((asked, known[asked]))
    rows = np.flatnonzero(before[0])
    return split_at(data, histories.head(rows, before[0][rows]), parts, "global-time", facts)


def _check_clock(data: Dataset) -> None:
    """Refuse timestamps that only count each user's items: users then share no clock."""
    if not common_clock(data.histories):
        what = "most users start at the same timestamp, so it is no common time but a position"
        raise DataError(f"{data.name}: {what}; use leave_last_out or prepare with real times")


def split_at(
    data: Dataset,
    train: Histories,
    parts: Sequence[tuple[Integers, Integers]],
    name: str,
    facts: Mapping[str, Any],
    *,
    whole: str | None = None,
) -> Split:
    """A split of `data` into `train` and two holdouts.

    Args:
        parts: rows and how many of their items are known, for valid and test; the next item is
            the target.
        name: of the split.
        facts: what JSON can hold of it.
        whole: fingerprint of what was split, that of ``data`` if not given.

    Raises:
        DataError: a holdout would be empty.
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


def before_test(split: Split) -> Dataset:
    """What may be learnt from once nothing is chosen any more: all that precedes the test targets.

    Test users keep their test history, the others their training history.
    """
    test, train = split.test.histories, split.train.histories
    asked = set(test.user_ids)
    others = train.select([row for row, user in enumerate(train.user_ids) if user not in asked])
    histories = Histories(
        np.append(test.items, others.items),
        np.append(test.offsets, test.offsets[-1] + others.offsets[1:]),
        [*test.user_ids, *others.user_ids],
        np.append(test.timestamps, others.timestamps),
    )
    provenance = replace(split.train.provenance, train_on="train+valid")
    return Dataset(split.train.name, split.train.catalogue, histories, provenance)


def one_step_earlier(split: Split) -> Split:
    """The validation targets in the place of the test's: for choices, which must not see the test.

    The training part is split in its turn for what training stops by.
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
