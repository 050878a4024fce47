from __future__ import annotations

import pytest

from genrec.processes import REPORT_SECONDS, ProgressLines, stage


def test_progress_lines_estimate_the_rest(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("genrec.processes.time.monotonic", lambda: clock[0])
    report = ProgressLines("evaluated users")
    clock[0] += 500  # other stages come first
    with caplog.at_level("INFO", "genrec"):
        for _ in range(2):  # two stages with the same lines
            for done in range(10, 110, 10):
                clock[0] += 4
                report(done, 100)
    lines = [record.getMessage() for record in caplog.records]
    again = 20 + 10 * int(REPORT_SECONDS / 4)
    assert lines[:2] == [
        "evaluated users: 20 of 100, about 32 s left",
        f"evaluated users: {again} of 100, about {(100 - again) / 10 * 4:.0f} s left",
    ]
    assert lines[len(lines) // 2 :] == lines[: len(lines) // 2]


def test_a_stage_says_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "genrec"), stage("fitting"):
        pass
    begins, ends = (record.getMessage() for record in caplog.records)
    assert begins == "fitting …"
    assert ends.startswith("fitting: done in ")
