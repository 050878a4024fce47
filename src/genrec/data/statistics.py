"""Statistics of histories: counts, tied timestamps and repeated items."""

from __future__ import annotations

import numpy as np

from genrec.data.histories import Histories, distinct_pairs

REPEATS = 0.1
"""Share of repeated training interactions from which on lists include the history by default.

People watch a film once, but they play a song or buy milk again.
"""


def excludes_seen(share: float) -> bool:
    """Return whether lists leave out the history by default, given the share of repeats."""
    return share < REPEATS


def dataset_statistics(histories: Histories, items: int) -> dict[str, object]:
    """Compute the statistics that ``dataset.json`` records.

    Args:
        histories: one row per user.
        items: number of items in the catalogue.

    Returns:
        ``counts`` (users, items, interactions, density), ``tie_share`` (share of users whose last
        two timestamps are equal, and of interactions whose timestamp equals that of a neighbour in
        the same history) and ``repeat_share`` (share of interactions with an item that the user
        had before).
    """
    users, interactions, times = len(histories), len(histories.items), histories.timestamps
    density = interactions / (users * items)
    rows = np.repeat(np.arange(users), histories.lengths)
    ties = np.zeros(interactions + 1, dtype=bool)  # ties[i]: interactions i - 1 and i are tied
    ties[1:-1] = (times[1:] == times[:-1]) & (rows[1:] == rows[:-1])
    tied_last = ties[histories.offsets[1:] - 1]
    shares = {"users_with_tied_last": tied_last, "interactions": ties[1:] | ties[:-1]}
    return {
        "counts": {"users": users, "items": items, "interactions": interactions}
        | {"density": density},
        "tie_share": {what: float(tied.mean()) for what, tied in shares.items()},
        "repeat_share": repeat_share(histories),
    }


def repeat_share(histories: Histories) -> float:
    """Return the share of interactions with an item that the user had before."""
    return 1 - distinct_pairs(histories) / len(histories.items)
