from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import genrec
from conftest import make_dataset
from genrec import GenRec, evaluate, leave_last_out
from genrec.baselines import Popularity
from genrec.collaborative.pool import PooledSASRec
from genrec.collaborative.sasrec import SASRec
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.split_files import split_dataset
from genrec.data.splits import Holdout, before_test, one_step_earlier
from genrec.errors import ConfigError, DataError, RunError
from genrec.evaluation.comparison import Comparison
from genrec.evaluation.evaluate import average_runs, evaluate_lists
from genrec.evaluation.leakage import LeakageError
from genrec.recommender import TopK
from genrec.workflows.compare import notes, run_comparison
from genrec.workflows.kept_lists import KEPT, CachedLists
from genrec.workflows.named_models import FitContext, model_spec
from genrec.workflows.plan import ComparisonConfig
from genrec.workflows.runs import run_split

MODELS = ("popularity", "cooccurrence", "ease")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "walks"
    make_dataset(users=80).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def found(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("out") / "comparison"
    return run_comparison(dataset, ComparisonConfig(MODELS, hourly_cost=3.6), out), out


def split_folder(dataset: str, folder: Path, leaked: int = 0) -> Path:
    """Leave-last-out as somebody else would hand it over, with some test rows in training."""
    data = Dataset.load(dataset)
    split, ids = leave_last_out(data), np.array(data.catalogue.item_ids)
    folder.mkdir()
    test = table(split.test.histories.user_ids, ids[split.test.targets], split.test.times)
    rows = split.train.histories
    owners = np.repeat(np.array(rows.user_ids), rows.lengths).tolist()
    train = table(owners, ids[rows.items], rows.timestamps)
    pl.concat([train, test.head(leaked)]).write_parquet(folder / "train.parquet")
    valid = table(split.valid.histories.user_ids, ids[split.valid.targets], split.valid.times)
    valid.write_csv(folder / "valid.csv")
    test.write_csv(folder / "test.csv")
    return folder


def table(users: list[str], items: np.ndarray, times: np.ndarray | None) -> pl.DataFrame:
    return pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})


def test_metrics_are_those_of_a_plain_evaluation(
    dataset: str, found: tuple[Comparison, Path]
) -> None:
    split = leave_last_out(Dataset.load(dataset))
    plain = evaluate(Popularity().fit(before_test(split)), split.test)
    entry = found[0].to_json()["models"]["popularity"]
    assert {name: entry[name] for name in plain.metrics} == plain.metrics
    assert entry["intervals"]["HR@10"] == list(plain.intervals["HR@10"])


def test_on_valid_asks_for_the_validation_targets_and_sees_no_test(
    dataset: str, tmp_path: Path
) -> None:
    parts = leave_last_out(Dataset.load(dataset))
    found = run_comparison(
        dataset, ComparisonConfig(("popularity",), evaluate_on="valid"), tmp_path
    )
    plain = evaluate(Popularity().fit(parts.train), parts.valid)
    assert found.to_json()["models"]["popularity"]["HR@10"] == plain.metrics["HR@10"]
    assert sorted(found.train.histories.items) == sorted(parts.train.histories.items)
    earlier = one_step_earlier(parts)
    assert earlier.train.histories.items.size < parts.train.histories.items.size
    with pytest.raises(ConfigError, match="test, valid"):
        run_comparison(dataset, ComparisonConfig(("popularity",), evaluate_on="dev"), tmp_path)


def test_a_run_that_learnt_the_validation_targets_is_not_judged_by_them(
    dataset: str, tmp_path: Path, tiny_backbone: str
) -> None:
    split = leave_last_out(Dataset.load(dataset))
    for data, accepted in ((split.train, True), (before_test(split), False)):
        run = tmp_path / ("train" if accepted else "both")
        GenRec(backbone=tiny_backbone, prior="none").build(data).save_pretrained(run)
        plan = ComparisonConfig((str(run),), evaluate_on="valid", users=4)
        if accepted:
            assert run_comparison(dataset, plan, tmp_path / "out").entries[0].evaluation.users == 4
        else:
            with pytest.raises(RunError, match="may have been trained on test targets"):
                run_comparison(dataset, plan, tmp_path / "out")


def test_everything_is_written_and_json_agrees(found: tuple[Comparison, Path]) -> None:
    comparison, out = found
    written = json.loads((out / "comparison.json").read_text())
    assert written == json.loads(json.dumps(comparison.to_json()))
    assert list(written["models"]) == list(MODELS)
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.json",
        "models",
        "report.html",
        "report.md",
    ]


def test_the_reference_is_the_best_and_is_paired_with_the_others(
    found: tuple[Comparison, Path],
) -> None:
    comparison = found[0]
    best = max(comparison.entries, key=lambda each: each.evaluation.metrics["NDCG@10"])
    assert comparison.reference is best
    for entry in comparison.entries:
        expected = best.evaluation.metrics["NDCG@10"] - entry.evaluation.metrics["NDCG@10"]
        assert comparison.paired(entry).difference == pytest.approx(expected)


def test_slices_of_a_group_weigh_up_to_the_whole(found: tuple[Comparison, Path]) -> None:
    comparison = found[0]
    for entry in comparison.entries:
        parts = [part for part in comparison.slices if part.group == "history"]
        means = [comparison.in_slice(entry, part, "HR@10")[0] for part in parts]
        users = [part.rows.sum() for part in parts]
        whole = entry.evaluation.metrics["HR@10"]
        assert np.average(means, weights=users) == pytest.approx(whole)


def test_popularity_recommends_the_same_to_all_and_it_shows(
    found: tuple[Comparison, Path],
) -> None:
    comparison = found[0]
    beyond = {each.name: comparison.beyond_accuracy(each) for each in comparison.entries}
    assert beyond["popularity"]["gini@5"] > beyond["cooccurrence"]["gini@5"]
    assert beyond["popularity"]["novelty@5"] < beyond["cooccurrence"]["novelty@5"]


def test_a_model_without_any_list_is_compared_too(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a language model that writes no title of the catalogue."""

    def empty(_: Any, histories: Histories, k: int, **__: Any) -> TopK:
        shape = (len(histories), k)
        return TopK(np.full(shape, -1, np.int32), np.full(shape, -np.inf))

    monkeypatch.setattr(Popularity, "recommend_batch", empty)
    found = run_comparison(dataset, ComparisonConfig(("popularity", "ease")), tmp_path / "out")
    entry = json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]["popularity"]
    assert (entry["HR@10"], entry["coverage@10"], entry["unfilled_rate"]) == (0, 0, 1)
    assert "gini@10" not in entry
    assert found.reference.name == "ease"
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| 0.0% | – | – |" in report


def test_costs_follow_from_time_and_price(found: tuple[Comparison, Path]) -> None:
    for entry in found[0].entries:
        cost = found[0].cost(entry)
        # 1,000 lists take as many seconds as one takes milliseconds; 3.6 an hour is .001 a second.
        assert cost["cost_per_1000"] == pytest.approx(cost["seconds_per_1000"] * 0.001)


def test_what_is_known_is_not_computed_again(
    dataset: str, found: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, out = found

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("genrec.workflows.named_models.ModelSpec.fit", refuse)
    again = run_comparison(dataset, ComparisonConfig(MODELS, hourly_cost=3.6), out)
    assert again.to_json()["models"] == first.to_json()["models"]
    with pytest.raises(AssertionError, match="fitted again"):
        run_comparison(dataset, ComparisonConfig((*MODELS, "transitions")), out)
    with pytest.raises(AssertionError, match="fitted again"):
        run_comparison(dataset, ComparisonConfig(MODELS, users=20), out)


def test_weights_to_begin_with_are_a_part_of_what_is_known(tmp_path: Path) -> None:
    begun = tmp_path / "adapter"
    begun.mkdir()
    (begun / "adapter_model.safetensors").write_bytes(b"1")
    none: Any = None

    def identity(**settings: str) -> dict[str, Any]:
        context = FitContext(none, none, none, none, None, settings, 1, tmp_path)
        return model_spec("genrec").identity(context, 0)

    first = identity(init_from=str(begun))
    (begun / "adapter_model.safetensors").write_bytes(b"2")
    assert identity(init_from=str(begun)) != first
    assert "init_from" not in identity()


def test_a_damaged_record_is_made_again(dataset: str, tmp_path: Path) -> None:
    first = run_comparison(dataset, ComparisonConfig(("popularity",)), tmp_path)
    (path,) = (tmp_path / KEPT).iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again = run_comparison(dataset, ComparisonConfig(("popularity",)), tmp_path)
    assert np.array_equal(again.entries[0].evaluation.items, first.entries[0].evaluation.items)
    assert CachedLists.load(path, {"another": "model"}) is None


@pytest.mark.slow
def test_several_seeds_are_averaged_and_their_spread_is_told(dataset: str, tmp_path: Path) -> None:
    found = run_comparison(dataset, ComparisonConfig(("popularity", "sasrec"), seeds=2), tmp_path)
    once, twice = found.entries
    assert (once.runs, twice.runs) == (1, 2)
    runs = [
        evaluate_lists("sasrec", items, found.test, (5, 10), seconds=1.0)
        for items in twice.evaluation.items
    ]
    mean = np.mean([run.metrics["NDCG@10"] for run in runs])
    assert twice.evaluation.metrics["NDCG@10"] == pytest.approx(mean)
    assert twice.evaluation.spread["NDCG@10"] == pytest.approx(
        abs(runs[0].metrics["NDCG@10"] - runs[1].metrics["NDCG@10"]) / 2**0.5
    )
    assert np.allclose(
        average_runs(runs).values("HR@5"), (runs[0].values("HR@5") + runs[1].values("HR@5")) / 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("train_on", ["train", "train+valid"])
def test_sasrec_is_first_fitted_once(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train_on: str
) -> None:
    split, fits = leave_last_out(Dataset.load(dataset)), []
    expected = []
    for model in (PooledSASRec(3), SASRec(seed=3)):
        model.fit(split.train, split.valid)
        if train_on == "train+valid":
            model.refit(before_test(split))
        expected.append(model.recommend_batch(split.test.histories, 10).items)
    fit = SASRec.fit

    def counted(*arguments: Any) -> SASRec:
        fits.append(fit(*arguments))
        return fits[-1]

    monkeypatch.setattr(SASRec, "fit", counted)
    plan = ComparisonConfig(("pooled-sasrec", "sasrec"), train_on=train_on, seed=3)
    entries = run_comparison(dataset, plan, tmp_path / "out").entries
    assert len(fits) == 1
    for entry, items in zip(entries, expected, strict=True):
        assert np.array_equal(entry.evaluation.items, items)
    assert entries[1].fit_seconds > 0.01  # the time of the shared fit counts for both


def test_forms_of_genrec_take_part_and_their_runs_are_kept(
    dataset: str, tmp_path: Path, tiny_backbone: str
) -> None:
    settings = {"backbone": tiny_backbone, "dtype": "float32", "epochs": 0.5, "lora_rank": 4}
    models = ("genrec-zero-shot", "genrec", "cooccurrence")
    plan = ComparisonConfig(
        models, settings=settings, users=10, nll=True, reference="genrec", train_on="train"
    )
    found = run_comparison(dataset, plan, tmp_path)
    assert "not trained" in found.entries[0].note
    assert "targets" in found.entries[1].note
    assert all(each.nll is not None and (each.nll > 0).all() for each in found.entries)
    assert found.paired_nll(found.entries[2]) is not None
    run = tmp_path / "runs" / "genrec-seed0"
    alone = run_comparison(
        dataset, ComparisonConfig((str(run),), users=10, train_on="train"), tmp_path / "of-the-run"
    )
    assert np.array_equal(alone.entries[0].evaluation.items, found.entries[1].evaluation.items)
    mixed = ComparisonConfig(("popularity", str(run)), users=10)
    noted = run_comparison(dataset, mixed, tmp_path / "mixed").entries[1].findings
    assert [each.check for each in noted] == ["fitted on less data"]
    assert not alone.entries[0].findings
    other = split_folder(dataset, tmp_path / "split")
    with pytest.raises(RunError, match="may have been trained on test targets"):
        run_comparison(dataset, ComparisonConfig((str(run),), split=str(other)), tmp_path / "other")


def test_a_split_of_ones_own_is_read(dataset: str, tmp_path: Path) -> None:
    data = Dataset.load(dataset)
    folder = split_folder(dataset, tmp_path / "split")
    ours, theirs = leave_last_out(data), split_dataset(data, str(folder))
    rows = {user: row for row, user in enumerate(theirs.test.histories.user_ids)}
    for row, user in enumerate(ours.test.histories.user_ids):
        other = rows[user]
        assert theirs.test.targets[other] == ours.test.targets[row]
        assert theirs.test.histories[other].tolist() == ours.test.histories[row].tolist()
        assert theirs.valid.histories[other].tolist() == ours.valid.histories[row].tolist()


def test_a_split_of_ones_own_keeps_ratings_and_is_known_by_its_content(
    dataset: str, tmp_path: Path
) -> None:
    data, folder = Dataset.load(dataset), split_folder(dataset, tmp_path / "split")
    before = split_dataset(data, str(folder)).info.facts["fingerprint"]
    assert split_dataset(data, str(folder)).info.facts["fingerprint"] == before
    valid = pl.read_csv(folder / "valid.csv", infer_schema=False)
    items = pl.Series("item_id", valid["item_id"].to_list()[::-1])
    valid.with_columns(items).write_csv(folder / "valid.csv")
    assert split_dataset(data, str(folder)).info.facts["fingerprint"] != before
    for part in ("valid", "test"):
        rated = pl.read_csv(folder / f"{part}.csv", infer_schema=False)
        rated.with_columns(rating=pl.lit("4.5")).write_csv(folder / f"{part}.csv")
    rated = pl.read_parquet(folder / "train.parquet").with_columns(rating=pl.lit(4.5))
    rated.write_parquet(folder / "train.parquet")
    ratings = split_dataset(data, str(folder)).train.histories.ratings
    assert ratings is not None
    assert (ratings == 4.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "valid.csv").unlink(),
            "one of valid.parquet, .* holds none of them",
        ),
        (
            lambda folder: (folder / "valid.csv").write_text("user_id,item_id,timestamp\n0,zz,1\n"),
            "item 'zz' is not in the data set walks",
        ),
    ],
)
def test_a_broken_split_is_named(
    dataset: str, tmp_path: Path, change: object, message: str
) -> None:
    folder = split_folder(dataset, tmp_path / "split")
    change(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        split_dataset(Dataset.load(dataset), str(folder))


def test_a_leak_stops_before_anything_is_fitted(dataset: str, tmp_path: Path) -> None:
    folder = split_folder(dataset, tmp_path / "split", leaked=5)
    out = tmp_path / "out"
    with pytest.raises(LeakageError, match="5 of 80 test targets are training interactions"):
        run_comparison(dataset, ComparisonConfig(MODELS, split=str(folder)), out)
    assert not out.exists()
    found = run_comparison(
        dataset, ComparisonConfig(MODELS, split=str(folder), allow_leaks=True), out
    )
    assert any("held-out items in training" in line for line in notes(found))
    assert "Leak: </" not in (out / "report.html").read_text()
    assert "held-out items in training" in (out / "report.html").read_text()


def test_p5s_numbers_are_named_as_a_leak_and_not_as_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.choice(400, size=5, replace=False).tolist() for _ in range(120)]
    walk = make_dataset()
    names = [f"Title {n}" for n in range(400)]
    catalogue = type(walk.catalogue)(
        [f"i{n}" for n in range(400)], names, pl.DataFrame({"x": [0] * 400})
    )
    folder = tmp_path / "tail"
    Dataset("tail", catalogue, Histories.from_lists(rows)).save(folder)
    plan = ComparisonConfig(("p5-sequential", "popularity"), minutes=0.02)
    found = run_comparison(str(folder), plan, tmp_path / "out")
    assert [each.leaks for each in found.entries] == [True, False]
    assert found.reference.name == "popularity"
    assert "p5-sequential: id order" in "\n".join(notes(found))
    assert "scratch" in found.entries[0].note


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ComparisonConfig(("popularty",)), "popularty"),
        (ComparisonConfig(()), "needs models"),
        (ComparisonConfig(("popularity",), reference="ease"), "'ease' is not one of .* popularity"),
        (ComparisonConfig(("popularity",), train_on="test"), "one of train"),
        (ComparisonConfig(("popularity",), k=(0,)), "at least 1"),
    ],
)
def test_a_wrong_plan_is_refused(
    dataset: str, tmp_path: Path, plan: ComparisonConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_comparison(dataset, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_left_alone(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="does not hold a comparison"):
        run_comparison(dataset, ComparisonConfig(MODELS), tmp_path)


class Page(HTMLParser):
    """Collects addresses, scripts and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.scripts = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        names = ("src", "href", "action", "data")
        self.outside += [v for k, v in attrs if k in names and v and not v.startswith("data:")]


def test_the_report_asks_nobody_for_anything_and_escapes_titles(
    dataset: str, tmp_path: Path
) -> None:
    data = Dataset.load(dataset)
    titles = [f"<script>alert({n})</script> | {n}" for n in range(len(data.catalogue))]
    hostile = type(data.catalogue)(data.catalogue.item_ids, titles, data.catalogue.metadata)
    folder = tmp_path / "hostile"
    Dataset("hostile", hostile, data.histories).save(folder)
    run_comparison(str(folder), ComparisonConfig(MODELS), tmp_path / "out")
    source = (tmp_path / "out" / "report.html").read_text()
    page = Page(source)
    assert (page.outside, page.scripts) == ([], 0)
    assert "&lt;script&gt;alert(" in source
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    cells = [line.count(" |") for line in lines if line.startswith("| Model")]
    assert len(cells) >= 2


def test_models_at_hand_are_compared(tiny_backbone: str) -> None:
    split = leave_last_out(make_dataset())
    model = genrec.GenRec(tiny_backbone, prior="popularity", dtype="float32").build(split.train)
    models = [Popularity(), genrec.baselines.EASE(), model]
    found = genrec.compare(models, split, k=(5,), nll=True)
    assert [entry.name for entry in found.entries] == ["popularity", "ease", "genrec"]
    plain = evaluate(Popularity().fit(split.train), split.test, (5,))
    assert found.entries[0].evaluation.metrics == plain.metrics
    assert found.entries[1].nll is None
    assert all(name in found.table() for name in ("popularity", "ease", "genrec", "HR@5"))
    cheat = genrec.baselines.EASE().fit(make_dataset())
    with pytest.raises(LeakageError, match="fitted on other data"):
        genrec.compare([cheat], split)
    assert genrec.compare([cheat], split, allow_leaks=True).entries[0].leaks
    with pytest.raises(ConfigError, match="set the attribute name"):
        genrec.compare([Popularity(), Popularity()], split)


class Constant:
    """A recommender of one's own with the least that a comparison needs; it has no `fitted`."""

    name = "constant"

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Constant:
        self.items = len(train.catalogue)
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        items = np.tile(np.arange(k, dtype=np.int32), (len(histories), 1))
        return TopK(items, np.zeros(items.shape))


def test_a_recommender_of_ones_own_is_fitted_first() -> None:
    split, model = leave_last_out(make_dataset()), Constant()
    assert genrec.compare([model], split, k=5).entries[0].name == "constant"
    assert model.items == len(split.train.catalogue)


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [
        ([], leave_last_out(make_dataset()), "needs models"),
        (["popularity"], leave_last_out(make_dataset()), "'popularity' is no recommender"),
        (Popularity(), leave_last_out(make_dataset()), "needs a list of models"),
        ([Popularity()], make_dataset(), "needs a split"),
    ],
)
def test_wrong_arguments_are_named(models: Any, data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        genrec.compare(models, data)


def test_a_model_that_refuses_is_a_row_of_the_table(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.collaborative.matrix.MAX_DENSE_ITEMS", 5)
    lines: list[str] = []
    plan = ComparisonConfig(("ease", "popularity"))
    found = run_comparison(dataset, plan, tmp_path / "out", say=lines.append)
    assert [each.name for each in found.entries] == ["popularity"]
    assert "items" in found.failures["ease"]
    assert any("ease did not run: " in line for line in lines)
    assert found.to_json()["failures"] == found.failures
    for page in ("report.html", "report.md"):
        text = (tmp_path / "out" / page).read_text(encoding="utf-8")
        assert "did not run" in text
    for models, reference in ((("ease",), None), (("ease", "popularity"), "ease")):
        again = ComparisonConfig(models, reference=reference)
        with pytest.raises(ConfigError):
            run_comparison(dataset, again, tmp_path / "other")


def test_a_run_is_not_tested_on_a_split_that_was_made_anew(
    dataset: str, tmp_path: Path, tiny_backbone: str
) -> None:
    data, folder = Dataset.load(dataset), split_folder(dataset, tmp_path / "split")
    split = split_dataset(data, str(folder))
    model = GenRec(tiny_backbone, prior="none", dtype="float32").build(split.train)
    assert len(run_split(model, data).test) == len(split.test)
    shutil.rmtree(folder)
    split_folder(dataset, folder, leaked=3)
    with pytest.raises(RunError, match="the tables of this split have changed"):
        run_split(model, data)
    model.save_pretrained(tmp_path / "run")
    plan = ComparisonConfig((str(tmp_path / "run"),), split=str(folder), allow_leaks=True)
    with pytest.raises(RunError, match="may have been trained on test targets"):
        run_comparison(dataset, plan, tmp_path / "out")
