"""Training, evaluation, export and reports of run folders."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genrec.baselines import baselines
from genrec.baselines.registry import OLD_NAMES
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.loading import load_dataset
from genrec.data.split_files import split_dataset
from genrec.data.splits import Holdout, Split, before_test
from genrec.doctor import diagnose
from genrec.errors import DataError, GenRecError, RunError
from genrec.evaluation.evaluate import Progress, evaluate
from genrec.evaluation.leakage import check_split
from genrec.evaluation.results import Evaluation
from genrec.evaluation.seen import choose_seen
from genrec.files import CHECKPOINTS, write_text
from genrec.model.genrec import GenRec
from genrec.model.model_card import export_card, model_card, notes_of
from genrec.model.saving import TRAINING_LOG, check_folder
from genrec.processes import is_main, log, stage
from genrec.recommender import recommendations
from genrec.report import write_report
from genrec.workflows.named_models import fit_on, run_state

CUTOFFS = (5, 10)


SAMPLES = 3
"""Number of example users in a report."""


def train_run(
    dataset: str,
    out: Path,
    settings: Mapping[str, Any],
    *,
    split: str = "leave-last-out",
    restart: bool = False,
) -> GenRec:
    """Train on a data set and write the run folder; an interrupted run resumes.

    Args:
        dataset: name of a known data set, or a prepared folder.
        out: run folder to write.
        settings: fields of :class:`genrec.config.Config`.
        split: name of a split.
        restart: delete the checkpoints of an interrupted run first.

    Raises:
        RunError: ``out`` is a file, or a non-empty folder that holds no run.
        ConfigError: A setting is unknown or invalid.
        DataError: The data set or the split cannot be read.
    """
    check_folder(out)
    model = GenRec(config=Config.create(**settings))
    unused = sorted({"eval_steps", "eval_users"} & settings.keys())
    if unused and model.config.patience is None and is_main():
        log.warning(
            "note: %s has no effect without early stopping; set patience, e.g. --set patience=4",
            " and ".join(unused),
        )
    parts = split_dataset(load_dataset(dataset), split)
    if restart and is_main():
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    with logged(out / TRAINING_LOG):
        for finding in check_split(parts) if is_main() else ():
            log.warning("%s", finding)
        model.fit(parts.train, parts.valid, output=out)
        model.save_pretrained(out)
    return model


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append the announced stages to a file, with times, in the main process.

    Wrong input leaves neither the file nor its folder behind.
    """
    if not is_main():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    level = log.level
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    except GenRecError:
        if os.listdir(path.parent) == [path.name]:
            path.unlink()
            path.parent.rmdir()
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)


def export_run(folder: Path, out: Path) -> int | None:
    """Export the language model of a run as a transformers checkpoint with a model card.

    Returns:
        The number of the run's context layers, which plain transformers does not know; ``None`` if
        all layers read all tokens.

    Raises:
        RunError: ``folder`` holds no complete run, or ``out`` exists.
    """
    model = GenRec.from_pretrained(folder)
    model.export(out)
    prompt = model.prompt_text(model.catalogue.titles[:1], by="title")
    card = export_card(folder.name, model.info, model.ranker.config, prompt)
    write_text(out / "README.md", card)
    states = model.ranker.states
    return None if states is None else states.split.context_layers


def load_run(folder: Path) -> tuple[GenRec, Dataset]:
    """Load a run and the data set that it was trained on.

    Raises:
        RunError: The run cannot be read, or its data set has changed.
    """
    model = GenRec.from_pretrained(folder)
    return model, run_dataset(model, folder)


def run_dataset(model: GenRec, folder: Path) -> Dataset:
    """Load the data set that a run was trained on, as recorded in its ``genrec.json``.

    Raises:
        RunError: The run was not trained on a split, or the data set has changed.
    """
    noted = model.info["data"]
    if not noted.get("split"):
        raise RunError(
            f"{folder}: the run was not trained on a split of a data set, so this command does not "
            "know its test targets; evaluate it in Python with genrec.evaluate."
        )
    data = load_dataset(noted["source"])
    if data.fingerprint != noted["fingerprint"]:
        raise RunError(
            f"{folder}: the data set {noted['source']} has changed since this run was trained; "
            "prepare it as before, or train again."
        )
    return data


def run_split(model: GenRec, data: Dataset) -> Split:
    """Split the data set of a run as the run recorded it.

    Raises:
        RunError: The tables of the split have changed.
    """
    noted = model.info["data"]
    split = split_dataset(data, noted["split"])
    if not split.info.has_tables_of(noted):
        raise RunError(
            f"{noted['split']}: the tables of this split have changed since the run was trained; "
            "restore them, or train again."
        )
    return split


def user_history(
    model: GenRec, folder: Path, user: str
) -> tuple[list[str], list[float | None] | None]:
    """Return the item ids in the history of a user of the run's data set, oldest first.

    Returns:
        The ids, and the rating of each, ``None`` if the data have none.

    Raises:
        DataError: The data set has no such user.
        RunError: The data set has changed since the run was trained.
    """
    histories = run_dataset(model, folder).histories
    if user not in histories.user_ids:
        raise DataError(
            f"User {user!r} is not in the data set {model.info['data']['name']}; give the items "
            "with --history."
        )
    row = histories.user_ids.index(user)
    ids = [model.catalogue.item_ids[item] for item in histories[row]]
    ratings = histories.ratings_of(row)
    if ratings is None:
        return ids, None
    return ids, [None if math.isnan(each) else each for each in ratings.tolist()]


def evaluate_run(
    folder: Path,
    *,
    users: int | None = None,
    seed: int = 0,
    exclude_seen: bool | None = None,
    nll: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Evaluate a run and the counting baselines on the same test users and write the reports.

    Args:
        folder: run folder. metrics.json, the report and the model card are written into it, unless
            it holds results of more users.
        users: number of test users, drawn with ``seed``; all if ``None``.
        seed: seed of the drawn users and of the bootstrap.
        exclude_seen: whether lists leave out items of the user's history; if ``None``, they do
            unless the training histories often repeat items.
        nll: also measure the negative log-likelihood of the targets.
        say: called with one line of text per finding.
        progress: called with (users done, users) while the run is evaluated.

    Returns:
        One evaluation per model; the run is the last one.

    Raises:
        RunError: The run cannot be read, or its data set has changed.
    """
    state = run_state(folder)
    model, data = load_run(folder)
    split = run_split(model, data)
    test = sampled(split.test, users, seed)
    exclude, repeats = choose_seen(split, test, exclude_seen)
    for finding in repeats:
        say(f"note: {finding.check}: {finding.text}")
    if nll:  # before the work
        model.ranker.check_offered(test.targets)
    how: dict[str, Any] = {"seed": seed, "nll": nll, "exclude_seen": exclude}
    with stage("fitting the baselines and evaluating them"):
        whole = model.info["data"].get("fitted") == "train+valid"
        evaluations = evaluate_baselines(split, test, whole=whole, **how)
    with stage(f"evaluating {model.name} on {len(test)} users"):
        evaluations.append(evaluate(model, test, CUTOFFS, progress=progress, batch_rows=64, **how))
    if reason := _unwritable(folder, model, evaluations[-1], state):
        say(f"note: {reason}, so these results were not written")
    else:
        write_results(folder, model, data, evaluations, seed, exclude_seen=exclude)
    return evaluations


def _unwritable(folder: Path, model: GenRec, found: Evaluation, state: int) -> str | None:
    """Return why results are not written into a run folder, if there is a reason."""
    measured = _users_measured(folder, model.name)
    if measured > found.users:
        return f"{folder} holds results of {measured} users, and this sample has {found.users}"
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written"
    if run_state(folder) != state:
        return f"{folder} holds another model by now"
    return None


def _users_measured(folder: Path, name: str) -> int:
    """Return the number of test users of the results in a run folder."""
    return int(_metrics_of(folder).get(name, {}).get("users", 0))


def _metrics_of(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def evaluate_baselines(
    split: Split,
    test: Holdout,
    seed: int,
    *,
    whole: bool = False,
    exclude_seen: bool = True,
    nll: bool = False,
) -> list[Evaluation]:
    """Fit the counting baselines and evaluate them on ``test``.

    They know the training data, or with ``whole`` everything before the test targets.
    """
    data = before_test(split) if whole else None
    fitted = (fit_on(each, split, data) for each in baselines(len(split.train.catalogue)))
    how: dict[str, Any] = {"seed": seed, "exclude_seen": exclude_seen, "nll": nll}
    return [evaluate(each, test, CUTOFFS, **how) for each in fitted]


def sampled(holdout: Holdout, users: int | None, seed: int) -> Holdout:
    """Return the holdout, or a random sample of ``users`` rows drawn with ``seed``.

    Raises:
        DataError: ``users`` is below 1.
    """
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
    *,
    exclude_seen: bool = True,
) -> None:
    """Write metrics.json, the report and the model card into a run folder.

    Args:
        folder: run folder.
        model: the run.
        data: the data set that the run was trained on.
        evaluations: one per model.
        seed: seed of the example users.
        exclude_seen: whether the lists of the examples leave out items of the history.
    """
    entries = {evaluation.name: evaluation.to_json() for evaluation in evaluations}
    metrics = _merged(folder, entries)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2))
    card = model_card(model.info, model.ranker.config, model.catalogue, metrics)
    write_text(folder / "README.md", card + notes_of(folder / "README.md"))
    test = run_split(model, data).test.sample(SAMPLES, seed)
    write_report(
        folder,
        title=f"GenRec on {data.name}",
        dataset_info={"name": data.name, **data_facts(data)},
        evaluations=evaluations,
        config=model.ranker.config.model_dump(mode="json"),
        training_log=model.info.get("training", {}).get("log", []),
        samples=[_sample(model, test, row, exclude_seen) for row in range(len(test))],
        environment=diagnose().to_json(),
    )


def data_facts(data: Dataset) -> dict[str, Any]:
    """Return the facts about the preparation of a data set that reports show."""
    names = ("counts", "tie_rule", "tie_share", "repeat_share", "core")
    return data.provenance.summary(*names)


def _merged(folder: Path, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Merge the new metrics with earlier ones that were measured on the same users."""
    same = {entry["fingerprint"] for entry in entries.values()}
    kept = {
        name: entry
        for name, entry in _metrics_of(folder).items()
        if entry.get("fingerprint") in same and OLD_NAMES.get(name) not in entries
    }
    return {**kept, **entries}


def _sample(model: GenRec, test: Holdout, row: int, exclude_seen: bool) -> dict[str, Any]:
    """Build an example for the report: a test user's history, recommendations and target."""
    history = [model.catalogue.titles[item] for item in test.histories[row]]
    # As in the evaluation: with the times and ratings of the history.
    found = model.recommend_batch(test.histories.select([row]), 10, exclude_seen=exclude_seen)
    shown = [
        {"title": item.title, "probability": item.probability}
        for item in recommendations(model.catalogue, found.items[0], found.scores[0])
    ]
    return {
        "user": test.histories.user_ids[row],
        "history": history,
        "recommendations": shown,
        "target": model.catalogue.titles[test.targets[row]],
    }
