"""What the command line does with a run folder: train it, evaluate it, describe it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genrec.baselines import BASELINES
from genrec.data import load_dataset
from genrec.doctor import diagnose
from genrec.errors import DataError, RunError
from genrec.evaluation import Evaluation, Progress, evaluate
from genrec.histories import Dataset, Holdout, Split, global_time, leave_last_out
from genrec.model import CHECKPOINTS, GenRec, Recommendation
from genrec.report import write_report

SPLITS = {"leave-last-out": leave_last_out, "global-time": global_time}
CUTOFFS = (5, 10)


def split_dataset(data: Dataset, name: str) -> Split:
    """Split by the name that the command line and ``genrec.json`` use."""
    if name not in SPLITS:
        raise DataError(f"Unknown split {name!r}; known are {', '.join(SPLITS)}.")
    return SPLITS[name](data)


def train_run(
    dataset: str,
    out: Path,
    *,
    split: str = "leave-last-out",
    progress: bool = True,
    **settings: Any,
) -> GenRec:
    """Train on a known or prepared data set and write the run folder; a cut-off run goes on.

    Args:
        settings: fields of :class:`genrec.config.Config`.
    """
    model = GenRec(**settings)
    data = load_dataset(dataset)
    parts = split_dataset(data, split)
    model.fit(parts.train, parts.valid, output=out, progress=progress)
    record_data(model, data, dataset, split)
    save_run(model, out)
    return model


def record_data(model: GenRec, data: Dataset, source: str, split: str) -> None:
    """Note in ``genrec.json`` what was trained on, so that the run can be evaluated again."""
    folder = Path(source)
    model.info["data"] = {
        "name": data.name,
        "source": str(folder.resolve()) if folder.is_dir() else source,
        "fingerprint": data.fingerprint,
        "split": split,
        "tie_rule": data.info.get("tie_rule"),
        "tie_share": data.info.get("tie_share"),
        "counts": data.info.get("counts"),
    }


def save_run(model: GenRec, out: Path, evaluations: Sequence[Evaluation] = ()) -> None:
    """Write the run folder, with its model card."""
    model.save_pretrained(out)
    write_text(out / "README.md", model_card(model, evaluations))


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


def drop_checkpoints(folder: Path) -> None:
    """Forget a run that was cut off; a finished run in the folder stays until it is replaced."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def evaluate_run(
    folder: Path, *, users: int | None = None, seed: int = 0, progress: Progress | None = None
) -> list[Evaluation]:
    """Evaluate a run and the counting baselines on the same test users; update its reports."""
    model, data = load_run(folder)
    split = split_dataset(data, model.info["data"]["split"])
    test = sampled(split.test, users, seed)
    evaluations = evaluate_baselines(split, test)
    evaluations.append(evaluate(model, test, CUTOFFS, seed=seed, progress=progress, batch_rows=64))
    write_results(folder, model, data, evaluations, samples=[])
    return evaluations


def evaluate_baselines(split: Split, test: Holdout) -> list[Evaluation]:
    """Fit the counting baselines on the training split and evaluate them."""
    return [evaluate(kind().fit(split.train), test, CUTOFFS) for kind in BASELINES]


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
    samples: Sequence[dict[str, Any]],
) -> None:
    """Write metrics.json, the report and the model card into the run folder."""
    entries = {evaluation.name: evaluation.to_json() for evaluation in evaluations}
    write_text(folder / "metrics.json", json.dumps(entries, indent=2))
    write_text(folder / "README.md", model_card(model, evaluations))
    log = model.training.log if model.training else []
    write_report(
        folder,
        title=f"GenRec on {data.name}",
        dataset_info={"name": data.name, **_facts(data)},
        evaluations=evaluations,
        config=model.config.model_dump(mode="json"),
        training_log=log,
        samples=samples,
        environment=diagnose().to_json(),
    )


def _facts(data: Dataset) -> dict[str, Any]:
    names = ("counts", "tie_rule", "tie_share", "repeat_share", "core")
    return {name: data.info[name] for name in names if name in data.info}


def sample_entry(
    history: Sequence[str], recommendations: Sequence[Recommendation]
) -> dict[str, Any]:
    """One example for the report."""
    shown = [{"title": item.title, "probability": item.probability} for item in recommendations]
    return {"history": list(history), "recommendations": shown}


def model_card(model: GenRec, evaluations: Sequence[Evaluation]) -> str:
    """README.md of a run folder: what it is, how it was made, how good it is, how to use it."""
    info, config = model.info, model.config
    data, training = info["data"], info.get("training", {})
    versions = ", ".join(f"{name} {number}" for name, number in info.get("versions", {}).items())
    lines = f"""# GenRec on {data["name"]}

Recommends the next item by generating its title with {config.backbone} (recipe {config.recipe},
prior {config.prior}), exactly over {len(model.catalogue)} items.

- data: {data["name"]}, split {data.get("split")}, ties {data.get("tie_rule")}, fingerprint
  `{data["fingerprint"][:16]}`
- training: {training.get("steps")} steps, {training.get("targets")} targets,
  {training.get("seconds")} s, seed {config.seed}
- adapter: LoRA rank {config.lora_rank}, alpha {config.lora_alpha}, in `adapter/` (plain PEFT files)
- versions: {versions}
- written: {datetime.now(UTC):%Y-%m-%d}
""".splitlines()
    lines.append("")
    if evaluations:
        lines += ["| model | HR@10 | NDCG@10 | users |", "|---|---|---|---|"]
        lines += [
            f"| {e.name} | {e.metrics['HR@10']:.4f} | {e.metrics['NDCG@10']:.4f} | {e.users} |"
            for e in evaluations
        ]
        lines += [
            "",
            "Full ranking over the catalogue, seen items left out; see `report.html`.",
            "",
        ]
    lines += ["```python", "import genrec", 'model = genrec.GenRec.from_pretrained("this folder")']
    return "\n".join([*lines, f"model.recommend([{model.catalogue.titles[0]!r}], k=5)", "```", ""])


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
