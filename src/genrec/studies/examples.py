"""Examples of a study in words: targets on which two arms differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genrec.data.splits import Split
from genrec.studies.measure import Measured
from genrec.studies.study import Arm

SHOWN = 3
"""Targets in each direction."""
HISTORY, LIST = 5, 3
"""Most recent items of the history, and items of the lists, that are shown."""


def examples(
    split: Split, measured: Mapping[str, Sequence[Measured]], arms: Sequence[Arm]
) -> list[dict[str, Any]]:
    """Return targets that the first arm predicts much better, and much worse, than the second.

    The second arm is the first one of the same group that was measured. Titles are those of the
    data.

    Args:
        split: the data of the study.
        measured: what was measured of each arm by name.
        arms: the arms in the study's order.
    """
    group = [arm for arm in arms if arm.group == arms[0].group and arm.name in measured]
    if len(group) < 2:
        return []
    one, other = (measured[arm.name][0].arrays for arm in group[:2])
    if "nll" not in one or "nll" not in other:
        return []
    mine, theirs = np.intersect1d(one["row"], other["row"], return_indices=True)[1:]
    gain = other["nll"][theirs] - one["nll"][mine]
    order = np.argsort(-gain, kind="stable")
    titles, found = split.valid.catalogue.titles, []
    for place in [*order[:SHOWN], *order[::-1][:SHOWN]]:
        row = int(one["row"][mine[place]])
        lists = {
            arm.name: [titles[item] for item in each["items"][at][:LIST] if item >= 0]
            for arm, each, at in ((group[0], one, mine[place]), (group[1], other, theirs[place]))
        }
        found.append(
            {
                "history": [titles[item] for item in split.valid.histories[row][-HISTORY:]],
                "target": titles[split.valid.targets[row]],
                "gain": float(gain[place]),
                "lists": lists,
            }
        )
    return found
