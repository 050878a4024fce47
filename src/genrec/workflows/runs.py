"""What the command line does with a run folder: train it, evaluate it, describe it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genrec.baselines import baselines
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.loading import load_dataset
from genrec.data.split_files import split_dataset
from genrec.data.splits import Holdout, Split
from genrec.doctor import diagnose
from genrec.errors import DataError, RunError
from genrec.evaluation.evaluate import Progress, evaluate
from genrec.evaluation.results import Evaluation
from genrec.files import CHECKPOINTS, write_text
from genrec.model.genrec import GenRec
from genrec.model.model_card import export_card, model_card
from genrec.model.run_folder import check_folder
from genrec.processes import is_main
from genrec.report import write_report

CUTOFFS = (5, 10)


SAMPLES = 3
"""Users shown in a report."""


def train_run(
    dataset: str,
    out: Path,
    settings: Mapping[str, Any],
    *,
    split: str = "leave-last-out",
    restart: bool = False,
) -> GenRec:
    """Train on a known or prepared data set and write the run folder; a cut-off run goes on.

    Args:
        settings: fields of :class:`genrec.config.Config`.
        restart: drop the checkpoints of a run that was cut off in this folder.
    """
    check_folder(out)
    model = GenRec(config=Config.create(**settings))
    parts = split_dataset(load_dataset(dataset), split)
    if restart and is_main():
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    model.fit(parts.train, parts.valid, output=out)
    model.save_pretrained(out)
    return model


def export_run(folder: Path, out: Path) -> None:
    """Write a run's language model for plain transformers, with a card that says what it is."""
    model = GenRec.from_pretrained(folder)
    model.export(out)
    prompt = model.prompt_text(model.catalogue.titles[:1], by="title")
    card = export_card(folder.name, model.info, model.ranker.config, prompt)
    write_text(out / "README.md", card)


def load_run(folder: Path) -> tuple[GenRec, Dataset]:
    """A trained run and the data set it was trained on.

    Raises:
        RunError: the data set has changed since.
    """
    model = GenRec.from_pretrained(folder)
    return model, run_dataset(model, folder)


def run_dataset(model: GenRec, folder: Path) -> Dataset:
    """The data set a run was trained on, by the reference in its ``genrec.json``."""
    noted = model.info["data"]
    if not noted.get("split"):
        raise RunError(
            f"{folder}: was not trained on a split of a data set; evaluate it in Python."
        )
    data = load_dataset(noted["source"])
    if data.fingerprint != noted["fingerprint"]:
        raise RunError(
            f"{folder}: the data set {noted['source']} is not the one this run was trained on; "
            "prepare it as before, or train again."
        )
    return data


def user_history(model: GenRec, folder: Path, user: str) -> list[str]:
    """Item ids of a user of the run's data set, oldest first.

    Raises:
        DataError: no such user.
    """
    histories = run_dataset(model, folder).histories
    if user not in histories.user_ids:
        raise DataError(f"User {user!r} is not in {model.info['data']['name']}; use --history.")
    items = histories[histories.user_ids.index(user)]
    return [model.catalogue.item_ids[item] for item in items]


def evaluate_run(
    folder: Path,
    *,
    users: int | None = None,
    seed: int = 0,
    nll: bool = False,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Evaluate a run and the counting baselines on the same test users; update its reports."""
    model, data = load_run(folder)
    split = split_dataset(data, model.info["data"]["split"])
    test = sampled(split.test, users, seed)
    evaluations = evaluate_baselines(split, test, seed, nll=nll)
    how: dict[str, Any] = {"seed": seed, "nll": nll, "progress": progress, "batch_rows": 64}
    evaluations.append(evaluate(model, test, CUTOFFS, **how))
    write_results(folder, model, data, evaluations, seed)
    return evaluations


def evaluate_baselines(
    split: Split, test: Holdout, seed: int, *, nll: bool = False
) -> list[Evaluation]:
    """Fit the counting baselines on the training split and evaluate them."""
    fitted = (each.fit(split.train) for each in baselines(len(split.train.catalogue)))
    return [evaluate(each, test, CUTOFFS, seed=seed, nll=nll) for each in fitted]


def sampled(holdout: Holdout, users: int | None, seed: int) -> Holdout:
    """All users, or a seeded sample of them."""
    if users is None or users >= len(holdout):
        return holdout
    if users < 1:
        raise DataError(f"users must be at least 1, got {users}.")
    return holdout.sample(users, seed)


def write_results(
    folder: Path,
    model: GenRec,
    data: Dataset,
    evaluations: Sequence[Evaluation],
    seed: int,
) -> None:
    """Write metrics.json, the report and the model card into the run folder."""
    entries = {evaluation.name: evaluation.to_json() for evaluation in evaluations}
    metrics = _merged(folder, entries)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2))
    card = model_card(model.info, model.ranker.config, model.catalogue, metrics)
    write_text(folder / "README.md", card)
    test = split_dataset(data, model.info["data"]["split"]).test.sample(SAMPLES, seed)
    write_report(
        folder,
        title=f"GenRec on {data.name}",
        dataset_info={"name": data.name, **_facts(data)},
        evaluations=evaluations,
        config=model.ranker.config.model_dump(mode="json"),
        training_log=model.info.get("training", {}).get("log", []),
        samples=[_sample(model, test, row) for row in range(len(test))],
        environment=diagnose().to_json(),
    )


def _facts(data: Dataset) -> dict[str, Any]:
    names = ("counts", "tie_rule", "tie_share", "repeat_share", "core")
    return data.provenance.summary(*names)


def _merged(folder: Path, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep what was measured before on the same users, such as the untrained backbone."""
    path = folder / "metrics.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    same = {entry["fingerprint"] for entry in entries.values()}
    kept = {name: entry for name, entry in before.items() if entry.get("fingerprint") in same}
    return {**kept, **entries}


def _sample(model: GenRec, test: Holdout, row: int) -> dict[str, Any]:
    """One example for the report: a test user's history, what is recommended, what was chosen."""
    history = [model.catalogue.titles[item] for item in test.histories[row]]
    shown = [
        {"title": item.title, "probability": item.probability}
        for item in model.recommend(history, by="title")
    ]
    return {
        "user": test.histories.user_ids[row],
        "history": history,
        "recommendations": shown,
        "target": model.catalogue.titles[test.targets[row]],
    }
