"""The data of a study: training histories, and late positions that are held out of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.arrays import Floats32, Ints, rows_and_places
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout, Split, split_at
from genrec.errors import DataError

MIN_HISTORY = 2
"""Fewest training items of a user whose positions are held out."""
FEW_USERS = 3000
"""Number of users below which one target each shows only large differences."""
LIKED = 4.0
"""Lowest rating of an item that its user liked, on a scale of 1 to 5."""


def hold_out_positions(
    data: Dataset, positions: int | None = None, *, liked: bool = False
) -> Split:
    """Hold out the last positions of each user before the test item.

    The validation targets of the split are these positions, so its holdout has several rows per
    user. The last item of each user, the test target of the leave-last-out split, is used for
    nothing; only users of fewer than three items, who have no such target, are kept whole. Several
    positions per user make small differences visible on few users.

    Args:
        data: the complete data set.
        positions: held-out positions of each user, fewer where the history is short; if ``None``,
            3 in data of fewer than 3,000 users, else 1.
        liked: leave out targets that their user did not like.

    Raises:
        DataError: No user has enough items, or there are no ratings.
    """
    lengths = data.histories.lengths
    if positions is None:
        positions = 3 if len(lengths) < FEW_USERS else 1
    held = np.clip(lengths - 1 - MIN_HISTORY, 0, positions)
    train = data.histories.head(
        np.arange(len(lengths)), np.where(lengths > MIN_HISTORY, lengths - 1 - held, lengths)
    )
    rows, place = rows_and_places(held)
    known = (lengths - 1 - held)[rows] + place
    if liked:
        ratings = known_ratings(data.histories, data.name)
        wanted = ratings[data.histories.offsets[rows] + known] >= LIKED
        rows, known = rows[wanted], known[wanted]
    tested = np.flatnonzero(held)
    parts = [(rows, known), (tested, lengths[tested] - 1)]
    return split_at(data, train, parts, "late-positions", {"positions": positions})


@dataclass(frozen=True)
class HeldOut:
    """The held-out targets on which an arm is measured.

    Attributes:
        holdout: the targets with their histories.
        rows: the number of each target in the study.
    """

    holdout: Holdout
    rows: Ints


def drawn(valid: Holdout, users: int) -> HeldOut:
    """Draw held-out targets. A smaller draw is a part of every larger one.

    Args:
        valid: all held-out targets.
        users: number of targets.
    """
    users = min(users, len(valid))
    rows = np.sort(np.random.default_rng(0).permutation(len(valid))[:users])
    return HeldOut(valid.select(rows), rows)


def known_ratings(histories: Histories, name: str) -> Floats32:
    """Return the rating of each interaction, NaN where it is unknown.

    Raises:
        DataError: The data have no ratings.
    """
    if histories.ratings is None or np.isnan(histories.ratings).all():
        raise DataError(f"{name} has no ratings; run this study on data with ratings.")
    return histories.ratings
