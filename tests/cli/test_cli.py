"""The command line as a user meets it: exit codes, one clear message, no traceback."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from conftest import make_dataset
from genrec.cli.app import main

TINY = ["--set", "dtype=float32", "--set", "lora_rank=4", "--set", "batch_size=8"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def log_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, data = tmp_path_factory.mktemp("log"), make_dataset()
    rows = [
        (user, data.catalogue.item_ids[item], time)
        for user, history in zip(data.histories.user_ids, data.histories, strict=True)
        for time, item in enumerate(history)
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_csv(folder / "log.csv")
    items = {"item_id": data.catalogue.item_ids, "title": data.catalogue.titles}
    pl.DataFrame(items).hstack(data.catalogue.metadata).write_csv(folder / "titles.csv")
    return folder / "log.csv", folder / "titles.csv"


@pytest.fixture(scope="module")
def trained(
    log_files: tuple[Path, Path], tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("work")
    log, items = log_files
    main_ok("prepare", log, "--items", items, "--out", folder / "walks")
    out = folder / "run"
    main_ok(
        "train", folder / "walks", "--out", out, "--backbone", tiny_backbone, "--epochs", 1, *TINY
    )
    return out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "d", "--out", "o"], "interrupted; run the same command again to resume\n"),
        (["train", "d", "--restart"], "interrupted; run the command without --restart again"),
        (["evaluate", "run"], "interrupted\n"),
    ],
)
def test_an_interrupted_command_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    def interrupt(**_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr("genrec.cli.app.app", interrupt)
    code, _, shown = run(capsys, *arguments)
    assert code == 130
    assert shown.startswith(says)


def test_a_full_disk_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("genrec.cli.app.app", full)
    assert run(capsys, "train") == (2, "", "error: No space left on device\n")


def test_a_setting_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    for option, given in (("--minutes", "minutes=1"), ("--seed", "seed=4")):
        code, _, shown = run(capsys, "train", "ml-100k", "--out", "out", option, 3, "--set", given)
        assert code == 2
        assert f"{option} and --set {given.partition('=')[0]} are the same" in shown


def main_ok(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert not stop.value.code


def test_prepare_says_what_it_made(
    capsys: pytest.CaptureFixture[str], log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log, items = log_files
    code, out, _ = run(capsys, "prepare", log, "--items", items, "--out", tmp_path / "d", "--json")
    assert code == 0
    assert json.loads(out)["counts"]["users"] == 40


def test_data_list_names_families_and_with_all_their_members(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path))
    code, out, _ = run(capsys, "data", "list")
    assert code == 0
    assert "amazon-2014/CATEGORY" in out
    assert len(out.splitlines()) < 40
    assert "amazon-2018/Tools_and_Home_Improvement" in run(capsys, "data", "list", "--all")[1]


def test_recommend_prints_a_json_list(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    titles = make_dataset().catalogue.titles
    history = ["--history", titles[0], "--history", titles[1]]
    code, out, _ = run(capsys, "recommend", trained, *history, "-k", 5, "--json")
    assert code == 0
    found = json.loads(out)
    assert [sorted(each) for each in found] == [["item_id", "probability", "rank", "title"]] * 5
    assert not {each["title"] for each in found} & {titles[0], titles[1]}


def test_recommend_takes_filters_and_gives_reasons(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    titles = make_dataset().catalogue.titles
    history = ["--history", titles[0], "--history", titles[1]]
    where = ["--where", "genre = 'odd'", "--block", titles[3]]
    code, out, _ = run(
        capsys, "recommend", trained, *history, *where, "-k", 50, "--explain", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert {each["title"] for each in found} == set(titles[1::2]) - {titles[1], titles[3]}
    assert all({why["title"] for why in each["because"]} == set(titles[:2]) for each in found)
    code, out, _ = run(
        capsys, "recommend", trained, *history, "--allow", titles[7], "--width", 5, "--explain"
    )
    assert code == 0
    assert titles[7] in out
    assert "strongest effects" in out


def test_recommend_says_how_words_are_understood(
    capsys: pytest.CaptureFixture[str], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["recommend", trained, "--history", "i1", "-k", 3, "--words"]
    code, out, err = run(capsys, *asked, "Green")
    assert (code, "note:" in err) == (0, False)
    assert "Green" in out
    assert "nothing like these words" in run(capsys, *asked, "zxcv")[2]
    related = {"emerald": "green"}
    monkeypatch.setattr("genrec.GenRec.related_words", lambda model, words: related)
    assert "note: understood emerald as green" in run(capsys, *asked, "emerald")[2]


def test_training_starts_from_the_weights_of_a_run(
    capsys: pytest.CaptureFixture[str], trained: Path, tiny_backbone: str, tmp_path: Path
) -> None:
    arguments = ["train", trained.parent / "walks", "--out", tmp_path / "again", "--epochs", 0]
    arguments += ["--backbone", tiny_backbone, "--init-from", trained, *TINY, "--json"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert json.loads(out)["training"]["steps"] == 0
    assert run(capsys, "evaluate", tmp_path / "again")[0] == 0
    code, _, err = run(capsys, *arguments, "--set", "lora_alpha=8")
    assert (code, "set lora_alpha=32" in err) == (2, True)
    code, _, err = run(capsys, *arguments, "--init-from", tmp_path)
    assert (code, "give init_from the folder of a trained run" in err) == (2, True)


def test_train_notes_settings_without_effect(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    data = trained.parent / "walks"
    backbone = json.loads((trained / "genrec.json").read_text())["backbone"]["name"]
    command = ["train", data, "--out", tmp_path / "run", "--backbone", backbone, "--epochs", 0.1]
    code, _, err = run(capsys, *command, *TINY, "--set", "eval_steps=5")
    assert code == 0
    assert "eval_steps has no effect without early stopping" in err


def test_fuse_names_the_experts_and_writes_another_run(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fused"
    experts = ["--experts", "transitions, text", "--train-on", "train+valid"]
    code, printed, _ = run(capsys, "fuse", trained, *experts, "--out", out, "--json")
    assert code == 0
    assert json.loads(printed)["data"]["fitted"] == "train+valid"
    code, printed, _ = run(capsys, "recommend", out, "--user", "3", "-k", 2)
    assert code == 0
    code, _, err = run(capsys, "fuse", trained, "--experts", "svd", "--out", tmp_path / "x")
    assert (code, "Unknown expert 'svd'" in err) == (2, True)
    assert not (tmp_path / "x").exists()
    code, _, err = run(capsys, "fuse", out)
    assert (code, "fuse the run that it was made from" in err) == (2, True)


def test_recommend_for_a_user_of_the_data_set(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    code, out, _ = run(capsys, "recommend", trained, "--user", "3", "-k", 2)
    assert code == 0
    assert "probability" in out
    code, _, err = run(capsys, "recommend", trained, "--user", "nobody")
    assert (code, "'nobody'" in err) == (2, True)


def test_evaluate_writes_metrics_report_and_card(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    code, out, _ = run(capsys, "evaluate", trained, "--users", 20)
    assert code == 0
    assert "cooccurrence" in out
    metrics = json.loads((trained / "metrics.json").read_text())
    assert list(metrics) == [
        "popularity",
        "cooccurrence",
        "transitions",
        "ease",
        "pooled",
        "genrec",
    ]
    for entry in metrics.values():
        assert {"HR@5", "HR@10", "NDCG@5", "NDCG@10", "users", "intervals"} <= set(entry)
        assert entry["users"] == 20
    assert "| genrec |" in (trained / "README.md").read_text()
    assert "<html" in (trained / "report.html").read_text()


def test_a_sample_does_not_replace_results_of_more_users(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    run(capsys, "evaluate", trained, "--users", 20)
    card, metrics = trained / "README.md", trained / "metrics.json"
    card.write_text(card.read_text() + "\n## Notes\n\n- By hand.\n")
    before = card.read_text(), metrics.read_text()
    code, _, err = run(capsys, "evaluate", trained, "--users", 10)
    assert (code, "and this sample has 10, so these results were not written" in err) == (0, True)
    assert (card.read_text(), metrics.read_text()) == before
    assert run(capsys, "evaluate", trained, "--users", 30)[0] == 0
    assert card.read_text().endswith("\n## Notes\n\n- By hand.\n")
    assert json.loads(metrics.read_text())["genrec"]["users"] == 30


def test_a_new_measurement_replaces_one_under_a_former_name(
    capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    run(capsys, "evaluate", trained, "--users", 40)
    path = trained / "metrics.json"
    path.write_text(path.read_text().replace('"transitions"', '"kernel"'))
    run(capsys, "evaluate", trained, "--users", 40)
    assert {"transitions", "kernel"} & set(json.loads(path.read_text())) == {"transitions"}


def test_export_writes_a_plain_model_with_a_card(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "export", trained, "--out", tmp_path / "plain")
    assert code == 0
    assert "AutoModelForCausalLM" in out
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in (tmp_path / "plain").iterdir()
    }
    assert "corrects the prior" in (tmp_path / "plain" / "README.md").read_text()


def test_a_finished_run_can_be_trained_anew(
    capsys: pytest.CaptureFixture[str], trained: Path, tiny_backbone: str, tmp_path: Path
) -> None:
    data = trained.parent / "walks"
    arguments = ["train", data, "--out", tmp_path, "--backbone", tiny_backbone, "--epochs", 0.2]
    assert run(capsys, *arguments, *TINY)[0] == 0
    code, _, err = run(capsys, *arguments, *TINY, "--prior", "none")
    assert (code, "holds a trained model, which is replaced" in err) == (0, True)
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "prior.npz").exists()


FOUR_BITS = ("--set", "quantization=4bit", "--set", "tuning=full")


def wrong(name: str, *arguments: object, says: str) -> object:
    return pytest.param([str(argument) for argument in arguments], says, id=name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        wrong("k", "recommend", "RUN", "--history", "x", "-k", 0, says="-k must be at least 1"),
        wrong("title", "recommend", "RUN", "--history", "No Film", says="No Film"),
        wrong("no history", "recommend", "RUN", says="--history"),
        wrong(
            "column", "recommend", "RUN", "--history", "i1", "--where", "x > 1", says="columns are"
        ),
        wrong(
            "allowed", "recommend", "RUN", "--history", "i1", "--allow", "Zz", says="'Zz' is not"
        ),
        wrong("width", "recommend", "RUN", "--history", "i1", "--width", 0, says="width must be"),
        wrong("no run", "recommend", "nowhere", "--history", "x", says="not a run folder"),
        wrong("no data set", "train", "nowhere", "--out", "OUT", says="nowhere"),
        wrong("no log", "prepare", "gone.csv", "--out", "OUT", says="gone.csv"),
        wrong("setting", "train", "DATA", "--out", "OUT", "--set", "lr=1", says="'lr'"),
        wrong("recipe", "train", "DATA", "--out", "OUT", "--recipe", "best", says="'recipe'"),
        wrong("split", "train", "DATA", "--out", "OUT", "--split", "random", says="'random'"),
        wrong(
            "target",
            *("train", "DATA", "--out", "OUT", "--split", "global-time,target=next"),
            says="target='next' must be one of first, last, random",
        ),
        wrong("minutes", "train", "DATA", "--out", "OUT", "--minutes", 0, says="'minutes'"),
        wrong("option", "recommend", "RUN", "--hsitory", "x", says="--hsitory"),
        wrong("prior", "train", "DATA", "--out", "OUT", "--prior", "svd", says="Use one of auto"),
        wrong(
            "patience", "train", "DATA", "--out", "OUT", "--set", "patience=0", says="'patience'"
        ),
        wrong("4 bits", "train", "DATA", "--out", "OUT", *FOUR_BITS, says="tuning=lora"),
        wrong("no run to export", "export", "nowhere", "--out", "OUT", says="not a run folder"),
        wrong("export over it", "export", "RUN", "--out", "DATA", says="Choose a new"),
        wrong("users", "evaluate", "RUN", "--users", 0, says="users must be at least 1"),
        wrong("clash", "train", "DATA", "--out", "OUT", "--set", "split=x", says="'split'"),
        wrong("yaml", "train", "DATA", "--out", "OUT", "--set", "titles=[a", says="titles"),
        wrong("float16", "train", "DATA", "--out", "OUT", "--set", "dtype=float16", says="GPU"),
        wrong("asset", "data", "get", "ml-7", says="ml-7"),
    ],
)
def test_wrong_input_exits_2_with_one_message(
    capsys: pytest.CaptureFixture[str],
    trained: Path,
    tmp_path: Path,
    arguments: list[str],
    says: str,
) -> None:
    places = {"RUN": trained, "DATA": trained.parent / "walks", "OUT": tmp_path / "out"}
    code, _, err = run(capsys, *[places.get(argument, argument) for argument in arguments])
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_logs_without_what_they_need(
    capsys: pytest.CaptureFixture[str], log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log, items = log_files
    pl.read_csv(log).drop("timestamp").write_csv(tmp_path / "no-time.csv")
    (tmp_path / "empty.csv").write_text("")
    for name, says in (("no-time.csv", "--timestamp"), ("empty.csv", "empty")):
        code, _, err = run(
            capsys, "prepare", tmp_path / name, "--items", items, "--out", tmp_path / "out"
        )
        assert (code, name in err, says in err) == (2, True, True)
        assert not (tmp_path / "out").exists()


def test_a_run_without_its_adapter(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapter")
    code, _, err = run(capsys, "recommend", tmp_path / "run", "--history", "x")
    assert code == 2
    assert "adapter" in err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from genrec.cli.app import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'polars') if name in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 10  # generous: what it loads is the real check


def test_restart_needs_right_settings_first(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "run.json").write_text("{}")
    data = trained.parent / "walks"
    code, _, err = run(capsys, "train", data, "--out", tmp_path, "--restart", "--set", "lr=1")
    assert (code, "'lr'" in err) == (2, True)
    assert (tmp_path / "checkpoints").is_dir()


def test_unwritable_place(
    capsys: pytest.CaptureFixture[str], log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    log, items = log_files
    code, _, err = run(
        capsys, "prepare", log, "--items", items, "--out", tmp_path / "file" / "data"
    )
    assert code == 2
    assert "file" in err
    assert "Traceback" not in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.strip().count(".") == 2


def test_compare_prints_one_json_object(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    models = f"popularity,{trained}"
    data, out = trained.parent / "walks", tmp_path / "out"
    code, text, err = run(
        *(
            capsys,
            "compare",
            data,
            "--models",
            models,
            "--train-on",
            "train",
            "--out",
            out,
            "--json",
        )
    )
    assert code == 0
    found = json.loads(text)
    assert list(found["models"]) == ["popularity", "run"]
    assert found["models"]["popularity"]["HR@10"] > 0
    assert "1/2 popularity: HR@5" in err
    assert (out / "report.html").is_file()


def test_compare_names_a_planted_leak(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    rows = [(f"u{n}", f"i{n + step}", step) for n in range(9) for step in range(4)]
    columns = ["user_id", "item_id", "timestamp"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    frame.filter(pl.col("timestamp") != 2).write_csv(tmp_path / "train.csv")  # test rows, too
    frame.filter(pl.col("timestamp") == 2).write_csv(tmp_path / "valid.csv")
    frame.filter(pl.col("timestamp") == 3).write_csv(tmp_path / "test.csv")
    data = trained.parent / "walks"
    code, _, err = run(
        *(capsys, "compare", data, "--split", tmp_path, "--models", "popularity"),
        *("--out", tmp_path / "out"),
    )
    assert code == 2
    assert "held-out items in training: 9 of 9 test targets" in err
    assert "Traceback" not in err


def test_compare_says_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    data = trained.parent / "walks"
    for arguments, message in (
        (("--models", "popularty"), "did you mean 'popularity'?"),
        (("--k", "five"), "--k takes whole numbers"),
        (("--split", "by-magic"), "give leave-last-out, global-time, or a folder"),
        (("--models", "genrec", "--set", "lr=1"), "'lr'"),
        (("--models", "genrec", "--set", "seed=1"), "give --seed"),
        (("--models", "genrec", "--set", "minutes=1"), "give --minutes"),
        (("--models", "popularity", "--set", "batch_size=4"), "add one of genrec"),
    ):
        code, _, err = run(capsys, "compare", data, "--out", tmp_path / "out", *arguments)
        assert (code, message in err) == (2, True), err


def test_events_go_back_into_a_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from genrec.serving.events import Event, EventStore

    url, out = f"sqlite:///{tmp_path / 'events.db'}", tmp_path / "log.csv"
    store = EventStore(url)
    store.append([Event("ann", "i1", 1.0), Event("ann", "i2", 2.0)])
    store.append([Event("bob", "i1", 3.0), Event("ann", "i3", 4.0, kind="dislike")])
    store.close()
    assert run(capsys, "events", "delete", "--store", url, "--user", "bob")[0] == 0
    code, text, _ = run(capsys, "events", "export", "--store", url, "--out", out)
    assert (code, out.read_text().splitlines()[1:]) == (0, ["ann,i1,1.0,,view", "ann,i2,2.0,,view"])
    assert "2 events (without the kinds dislike, hide)" in text
    run(capsys, "events", "export", "--store", url, "--out", out, "--without", "none")
    assert out.read_text().splitlines()[3:] == ["ann,i3,4.0,,dislike"]
    new = tmp_path / "new" / "log.csv"
    run(capsys, "events", "export", "--store", url, "--out", new, "--without", "hide, dislike")
    assert len(new.read_text().splitlines()) == 3
    assert run(capsys, "events", "export", "--store", "nonsense", "--out", out)[0] == 2


def test_serve_is_refused_before_it_starts(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path
) -> None:
    for arguments, message in (
        ((trained, "--host", "0.0.0.0"), "give --api-keys FILE"),
        ((tmp_path,), "not a run folder"),
        ((trained, "--set", "max_kk=3"), "'max_kk'"),
        ((trained, "--set", "store=sqlite://"), "give --store"),
        ((trained, "--set", "key_hashes=[a]"), "give --api-keys"),
        ((trained, "--set", "max_k=3", "--set", "max_k=4"), "max_k is given twice"),
    ):
        code, _, err = run(capsys, "serve", *arguments)
        assert (code, message in err) == (2, True), err
    code, out, _ = run(capsys, "keys")
    assert (code, "gr_" in out) == (0, True)
