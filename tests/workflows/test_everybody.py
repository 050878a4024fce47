"""Recommendations for everybody: whole, resumable, each user once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alike import assert_same_lists
from conftest import make_dataset
from genrec import GenRec, Histories, leave_last_out
from genrec.cli.app import main
from genrec.data.dataset import Dataset
from genrec.errors import DataError, RunError
from genrec.recommender import TopK
from genrec.workflows.batch_job import BatchConfig
from genrec.workflows.everybody import recommend_all


@pytest.fixture(scope="module")
def run(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a prepared data set of 40 users."""
    folder = tmp_path_factory.mktemp("everybody")
    make_dataset().save(folder / "walks")
    data = Dataset.load(folder / "walks")
    model = GenRec(tiny_backbone, prior="none", dtype="float32")
    model.build(leave_last_out(data).train).save_pretrained(folder / "run")
    return folder / "run"


CONFIG = BatchConfig(k=4, shard_users=15)


def test_every_user_gets_the_list_that_recommend_gives(run: Path, tmp_path: Path) -> None:
    assert recommend_all(run, tmp_path / "out", CONFIG) == 40
    assert len(list((tmp_path / "out").iterdir())) == 3  # 15 + 15 + 10 users
    found = pl.read_parquet(tmp_path / "out")
    data, model = make_dataset(), GenRec.from_pretrained(run)
    assert found["user_id"].unique(maintain_order=True).to_list() == data.histories.user_ids
    items = np.array([model.catalogue.item_ids.index(each) for each in found["item_id"]])
    lists = TopK(items.reshape(40, 4), found["log_probability"].to_numpy().reshape(40, 4))
    assert_same_lists(lists, model.recommend_batch(data.histories, 4))
    assert found["rank"].to_list() == [1, 2, 3, 4] * 40
    assert found["title"].to_list() == [model.catalogue.titles[item] for item in items]


def test_lists_are_for_the_present_like_those_of_one_user(
    tiny_backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was popular at a user's last visit says nothing about today."""
    walks = make_dataset()
    visits = np.repeat(np.arange(40.0), walks.histories.lengths)  # one user after the other
    histories = replace(walks.histories, timestamps=visits)
    replace(walks, histories=histories).save(tmp_path / "walks")
    data = Dataset.load(tmp_path / "walks")
    model = GenRec(tiny_backbone, experts="transitions,recency", dtype="float32")
    model.build(leave_last_out(data).train).save_pretrained(tmp_path / "run")
    recommend_all(tmp_path / "run", tmp_path / "out", CONFIG)
    user = data.histories.user_ids[0]
    found = pl.read_parquet(tmp_path / "out").filter(pl.col("user_id") == user)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["recommend", str(tmp_path / "run"), "--user", user, "-k", "4", "--json"])
    one = json.loads(capsys.readouterr().out)
    assert found["item_id"].to_list() == [each["item_id"] for each in one]
    expected = np.log([each["probability"] for each in one])
    np.testing.assert_allclose(found["log_probability"], expected, atol=1e-4)


def test_a_run_of_the_hub_serves_everybody(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "genrec.workflows.everybody.local_folder", lambda name: asked.append(str(name)) or run
    )
    assert recommend_all(Path("org/run"), tmp_path / "out", CONFIG) == 40
    assert asked == ["org/run"]


def test_a_stopped_job_resumes_without_computing_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend_all(run, tmp_path / "whole", CONFIG)

    def stop(done: int, users: int) -> None:
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend_all(run, tmp_path / "out", CONFIG, progress=stop)
    assert len(list((tmp_path / "out").iterdir())) == 2
    asked: list[int] = []
    real = GenRec.recommend_batch

    def counted(self: GenRec, histories: Histories, k: int, **options: bool) -> TopK:
        asked.append(len(histories))
        return real(self, histories, k, **options)

    monkeypatch.setattr(GenRec, "recommend_batch", counted)
    recommend_all(run, tmp_path / "out", CONFIG)
    assert asked == [10]
    for file in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_another_job_never_mixes_in(run: Path, tmp_path: Path) -> None:
    recommend_all(run, tmp_path / "out", CONFIG)
    with pytest.raises(RunError, match="was made by another job"):
        recommend_all(run, tmp_path / "out", BatchConfig(k=5, shard_users=15))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no recommendations"):
        recommend_all(run, tmp_path / "mine", CONFIG)
    (tmp_path / "out" / "part-000001.parquet").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"part-000001\.parquet"):
        recommend_all(run, tmp_path / "out", CONFIG)


def test_what_a_killed_worker_left_half_written_is_removed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recommend_all(run, out, CONFIG)
    expected = sorted(out.iterdir())
    (out / ".part-000000.parquet.0a1b2c3d.partial").write_bytes(b"PAR1")
    expected[0].unlink()
    recommend_all(run, out, CONFIG)
    assert sorted(out.iterdir()) == expected


def test_histories_of_a_log(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("b", "i3", 2), ("b", "i2", 1), ("a", "i7", 1), ("a", "unknown", 2), ("c", "other", 1)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    command = ["recommend", str(run), "--users", "all", "--log", str(tmp_path / "log.csv")]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--out", str(tmp_path / "out"), "-k", "3", "--json"])
    assert not stopped.value.code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["users"] == 2  # c chose nothing that the run knows
    assert "2 of 5 events are on items that are not in the catalogue" in printed.err
    assert "1 users have no other event and get no recommendations" in printed.err
    found = pl.read_parquet(tmp_path / "out")
    model = GenRec.from_pretrained(run)
    for user, history in (("a", ["i7"]), ("b", ["i2", "i3"])):
        expected = [each.item_id for each in model.recommend(history, 3, by="id")]
        assert found.filter(pl.col("user_id") == user)["item_id"].to_list() == expected
    log.rename({"user_id": "customer"}).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="give a log with the columns user_id, item_id and times"):
        recommend_all(run, tmp_path / "o", BatchConfig(log=tmp_path / "log.csv"))
    log.with_columns(item_id=pl.lit("none of them")).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="no item of the log is in the catalogue"):
        recommend_all(run, tmp_path / "o", BatchConfig(log=tmp_path / "log.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--users", "all"], "need --users all and --out FOLDER"),
        (["--users", "some", "--out", "x"], "need --users all and --out FOLDER"),
        (["--log", "x.csv", "--user", "1"], "--users all takes only"),
        ([], "Give exactly one of"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["recommend", str(run), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_job_notices_that_an_item_was_removed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    recommend_all(copy, tmp_path / "out", CONFIG)
    model = GenRec.from_pretrained(copy)
    model.remove_items([model.catalogue.titles[0]])
    model.save_pretrained(copy)
    with pytest.raises(RunError, match="was made by another job"):
        recommend_all(copy, tmp_path / "out", CONFIG)
