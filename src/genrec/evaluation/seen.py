"""Whether recommendations may hold items of the user's own history: it depends on the data."""

from __future__ import annotations

import numpy as np

from genrec.data.splits import Holdout, Split
from genrec.data.statistics import excludes_seen, repeat_share
from genrec.evaluation.leakage import Finding


def choose_seen(
    split: Split, test: Holdout, exclude_seen: bool | None
) -> tuple[bool, list[Finding]]:
    """Choose whether lists leave out items of the history, and report what that means.

    Args:
        split: the training histories decide if ``exclude_seen`` is ``None``; test targets never do.
        test: the targets that are evaluated.
        exclude_seen: the user's choice, or ``None``.

    Returns:
        Whether to leave out items of the history, and a finding if training interactions or targets
        are repeats.
    """
    share = repeat_share(split.train.histories)
    chosen = excludes_seen(share) if exclude_seen is None else exclude_seen
    repeated = _repeated(test)
    if chosen and not repeated:
        return chosen, []
    text = (
        f"{repeated} of {len(test)} targets are in the user's own history, and {share:.0%} of the "
        "training interactions repeat an earlier item. "
    )
    text += (
        "Lists leave out items of the history, so they cannot hold these targets; --include-seen "
        "(exclude_seen=False) allows them."
        if chosen
        else "Lists may hold items of the history; --exclude-seen (exclude_seen=True) leaves them "
        "out."
    )
    return chosen, [Finding("repeated items", False, text)]


def _repeated(test: Holdout) -> int:
    """Count the targets that are in their own history."""
    lengths = test.histories.lengths
    same = test.histories.items == np.repeat(test.targets, lengths)
    rows = np.repeat(np.arange(len(test)), lengths)
    return int(np.unique(rows[same]).size)
