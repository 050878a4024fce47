from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec import metrics
from genrec.errors import ConfigError, DataError
from genrec.evaluation.results import METRICS, Evaluation, short
from genrec.report import write_report

HOSTILE = '<script>alert("x")</script> & | *bold* [link](http://example.org)\nnext line'
VOID = {"meta", "link", "rect", "line", "path"}


def evaluation(name: str, ranks: list[int], fingerprint: str = "task") -> Evaluation:
    array = np.array(ranks, np.int32)
    values = {f"{metric}@{k}": of(array, k) for k in (5, 10) for metric, of in METRICS.items()}
    return Evaluation(
        name=name,
        split="test",
        users=len(ranks),
        k=(5, 10),
        items=np.full((len(ranks), 10), -1, np.int32),
        ranks=array,
        metrics={key: float(each.mean()) for key, each in values.items()},
        intervals={key: metrics.bootstrap_interval(each, 0) for key, each in values.items()},
        spread={},
        coverage={"coverage@5": 0.25, "coverage@10": 0.5},
        counts=dict.fromkeys(("invalid", "duplicates", "seen", "unfilled", "repeated_targets"), 0),
        seconds=0.5,
        protocol=("Full ranking.", "NDCG@k = 1 / log2(rank + 1)."),
        fingerprint=fingerprint,
    )


BASE = evaluation("popularity", [0] * 30 + [1] * 10)
BEST = evaluation("genrec", [0] * 10 + [1] * 30)


def write(folder: Path, **changes: Any) -> str:
    page: dict[str, Any] = {
        "title": "A run",
        "dataset_info": {"name": "toy", "ties": {"share": 0.25}},
        "evaluations": [BASE, BEST],
        "config": {"lora": {"rank": 16}, "prior": None},
        "training_log": [{"step": 10 * n, "loss": 6 - n / 10} for n in range(1, 6)],
        "samples": [sample(["Old"], [("New", 0.5)])],
        "environment": {"python": "3.11"},
    }
    path = write_report(folder, **{**page, **changes})
    return path.read_text(encoding="utf-8")


def sample(
    history: Sequence[str], recommended: Sequence[tuple[str, float | None]], **more: str
) -> Mapping[str, Any]:
    listed = [{"title": title, "probability": p} for title, p in recommended]
    return {"history": history, "recommendations": listed, **more}


class Page(HTMLParser):
    """Tags must close in order; text and addresses are collected."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "action")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data.strip()}"


def test_html_is_well_formed_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    source = write(tmp_path)
    page = Page(source)
    assert page.addresses == ["data:,"]
    assert "script" not in page.tags
    assert "@import" not in source
    assert "url(" not in source
    assert "default-src 'none'" in source
    assert "http" not in page.text


def test_html_shows_numbers_intervals_and_definitions(tmp_path: Path) -> None:
    text = Page(write(tmp_path)).text
    low, high = BEST.intervals["HR@10"]
    assert ".750" in text  # 30 of 40 users
    assert f"[{short(low)}, {short(high)}]" in text
    for part in (*BEST.protocol, "ties.share", "0.25", "lora.rank", "16", "3.11", "12.5 ms"):
        assert part in text  # .5 s / 40 users = 12.5 ms


@pytest.mark.parametrize("place", ["title", "model", "history", "list", "target", "config"])
def test_titles_come_out_as_text(tmp_path: Path, place: str) -> None:
    titles = {key: HOSTILE if key == place else "fine" for key in ("history", "list", "target")}
    changes: dict[str, Any] = {
        "samples": [sample([titles["history"]], [(titles["list"], 1.0)], target=titles["target"])],
    }
    if place == "title":
        changes["title"] = HOSTILE
    if place == "model":
        changes["evaluations"] = [BASE, evaluation(HOSTILE, [1, 0], "other task")]
    if place == "config":
        changes["config"] = {HOSTILE: HOSTILE}
    page = Page(write(tmp_path, **changes))
    assert "script" not in page.tags
    assert '<script>alert("x")</script> & |' in page.text
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "\nnext line" not in markdown
    assert r"&lt;script&gt;" in markdown
    assert r"& \| \*bold\* \[link\]" in markdown.replace("&amp;", "&")


def test_markdown_tables_are_rectangular(tmp_path: Path) -> None:
    write(tmp_path, config={HOSTILE: HOSTILE})
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    assert len(tables) == 5  # results, paired, data, configuration, environment
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "| genrec | **.750** \\[" in markdown
    assert "1. New, 50.00" in markdown


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (BASE, "better"),
        (evaluation("rival", [1] * 40), "worse"),
        (evaluation("twin", BEST.ranks.tolist()), "no difference shown"),
        (evaluation("elsewhere", [1, 0], "another task"), "not comparable"),
    ],
)
def test_the_last_model_is_compared_user_by_user(
    tmp_path: Path, other: Evaluation, verdict: str
) -> None:
    write(tmp_path, evaluations=[other, BEST])
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    row = next(line for line in markdown.splitlines() if line.endswith(f"| {verdict} |"))
    assert row.startswith(f"| {other.name} |")


def test_loss_curve_spans_its_box_and_skips_what_is_not_a_number(tmp_path: Path) -> None:
    log = [
        {"step": 10, "loss": 4.0},
        {"step": 20, "loss": math.nan},
        {"step": 30, "loss": 2.0},
        {"step": 20, "eval_loss": 3.0},
        {"step": 30, "train_runtime": 9.0},
    ]
    source = write(tmp_path, training_log=log)
    assert 'd="M0.00 0.00L100.00 100.00"' in source  # highest first loss, lowest last
    assert 'd="M50.00 50.00h0"' in source  # one validation point, half-way
    assert "nan" not in Page(source).text


def test_long_logs_are_thinned_but_end_where_they_end(tmp_path: Path) -> None:
    source = write(tmp_path, training_log=[{"step": n, "loss": 1 / n} for n in range(1, 10_001)])
    paths = re.findall(r' d="([^"]+)"', source)
    assert [path.count("L") + 1 for path in paths] == [80]
    text = Page(source).text
    assert "training loss, last 0.0001" in text
    assert "10,000" in text


def test_everything_but_the_results_may_be_missing(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"dataset_info": {}, "config": {}, "environment": {}}
    source = write(tmp_path, **empty, training_log=[], samples=[], evaluations=[BASE])
    text = Page(source).text
    for heading in ("Training", "Paired differences", "recommends", "Configuration"):
        assert heading not in text
    with pytest.raises(ConfigError, match="at least one evaluation"):
        write(tmp_path, evaluations=[])


def test_samples_mark_the_target_and_fold_long_histories(tmp_path: Path) -> None:
    films = [f"Film {n}." for n in range(1, 21)]
    shown = [
        sample(films, [("Hit", 0.25), ("Other", 0.0002)], user="7", target="Hit"),
        sample(["A"], [("B", None)], target="Missed one"),
    ]
    text = Page(write(tmp_path, samples=shown)).text
    assert "User 7: history" in text
    assert "Sample 2: history" in text
    assert "8 older" in text
    assert "Film 8." not in text
    assert "Film 9." in text
    assert text.count("chosen next") == 1
    assert "not in this list: Missed one" in text
    assert "25.00\u202f%" in text
    assert "0.02\u202f%" in text


def test_a_sample_without_its_keys_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Sample 1 of the report lacks 'recommendations'"):
        write(tmp_path / "new", samples=[{"history": []}])
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="run is a file"):
        write(tmp_path / "run")


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep" / "run"
    write(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md"]
    (tmp_path / "plain").touch()
    plain = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((folder / "report.html").stat().st_mode) == plain
    before = (folder / "report.html").read_text(encoding="utf-8")

    def refuse(source: str, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write(folder, title="Another")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md"]
    assert (folder / "report.html").read_text(encoding="utf-8") == before
