from __future__ import annotations

from pathlib import Path

import pytest

import genrec
from conftest import make_dataset
from genrec.baselines import Popularity
from genrec.data.dataset import Dataset
from genrec.data.interactions import Interactions, read_interactions
from genrec.data.splits import Split, leave_last_out
from genrec.evaluation.seen import choose_seen


def played(folder: Path, songs: int, plays: int) -> Split:
    """20 users who play `songs` songs of their own in turn, each user `plays` times."""
    rows = [
        f"u{user},s{(user + play % songs) % 20},{play},Song {(user + play % songs) % 20}"
        for user in range(20)
        for play in range(plays)
    ]
    log = folder / "log.csv"
    log.write_text("user,item,time,title\n" + "\n".join(rows) + "\n")
    found: Interactions = read_interactions(log)
    return leave_last_out(Dataset.from_interactions(found, name="songs"))


@pytest.mark.parametrize(
    ("songs", "plays", "given", "exclude"),
    [
        (3, 9, None, False),  # training: 7 plays, 4 of them repeats
        (3, 9, True, True),
        (3, 9, False, False),
        (6, 6, None, True),  # nothing repeats
        (7, 9, None, True),  # only the validation and test targets repeat
    ],
)
def test_training_decides_whether_lists_hold_the_history(
    tmp_path: Path, songs: int, plays: int, given: bool | None, exclude: bool
) -> None:
    split = played(tmp_path, songs, plays)
    chosen, findings = choose_seen(split, split.test, given)
    assert chosen is exclude
    repeats = 20 if plays > songs else 0
    assert [each.leak for each in findings] == ([] if exclude and not repeats else [False])
    for each in findings:
        assert f"{repeats} of 20 targets are in the user's own history" in each.text
        assert ("--include-seen" in each.text) is exclude


def test_a_comparison_with_repeats_finds_them_and_says_so(tmp_path: Path) -> None:
    split = played(tmp_path, 3, 9)
    found = genrec.compare([Popularity()], split, k=(20,))
    assert found.entries[0].evaluation.metrics["HR@20"] == 1.0  # twenty songs in all
    assert [each.check for each in found.findings] == ["repeated items"]
    allowed = genrec.compare([Popularity()], split, k=(20,), exclude_seen=False)
    assert allowed.entries[0].evaluation.metrics == found.entries[0].evaluation.metrics
    without = genrec.compare([Popularity()], split, k=(20,), exclude_seen=True)
    assert without.entries[0].evaluation.metrics["HR@20"] == 0.0
    assert "left out of" in " ".join(without.entries[0].evaluation.protocol)
    assert "allowed in" in " ".join(found.entries[0].evaluation.protocol)


def test_data_without_repeats_have_no_note() -> None:
    split = leave_last_out(make_dataset())
    assert choose_seen(split, split.test, None) == (True, [])
