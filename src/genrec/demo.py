"""The whole story in one command, on MovieLens-100K with the real SmolLM2-135M."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genrec.data import load_dataset
from genrec.evaluation import Evaluation, evaluate
from genrec.histories import Split, leave_last_out
from genrec.model import GenRec, Recommendation
from genrec.runs import (
    CUTOFFS,
    evaluate_baselines,
    record_data,
    sample_entry,
    sampled,
    save_run,
    write_results,
)

DATASET = "ml-100k"
SPLIT = "leave-last-out"
HISTORY = ("Toy Story (1995)", "GoldenEye (1995)", "Star Wars (1977)")


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows at its end."""

    evaluations: list[Evaluation]
    history: tuple[str, ...]
    recommendations: list[Recommendation]
    seconds: float


def run_demo(
    out: Path, *, minutes: float, users: int | None, seed: int, say: Callable[[str], None]
) -> DemoResult:
    """Get data and backbone, train, evaluate four models on the same users, write the run folder.

    Args:
        minutes: training budget.
        users: test users, or all.
        say: called with one line at each stage.
    """
    started = time.monotonic()
    say("MovieLens-100K: fetching and preparing")
    data = load_dataset(DATASET)
    split = leave_last_out(data)
    test = sampled(split.test, users, seed)
    evaluations = evaluate_baselines(split, test)
    say(f"genrec-untrained: the backbone as it comes, on {len(test)} test users")
    untrained = GenRec(name="genrec-untrained", prior="none", seed=seed).prepare(split.train)
    evaluations.append(evaluate(untrained, test, CUTOFFS, seed=seed))
    say(f"genrec: training for {minutes:g} minutes")
    model = _train(split, out, minutes, seed)
    say(f"genrec: evaluating on {len(test)} test users")
    evaluations.append(evaluate(model, test, CUTOFFS, seed=seed))
    recommendations = model.recommend(HISTORY, k=10)
    record_data(model, data, DATASET, SPLIT)
    save_run(model, out)
    write_results(out, model, data, evaluations, [sample_entry(HISTORY, recommendations)])
    return DemoResult(evaluations, HISTORY, recommendations, time.monotonic() - started)


def _train(split: Split, out: Path, minutes: float, seed: int) -> GenRec:
    return GenRec(seed=seed).fit(split.train, split.valid, minutes=minutes, output=out)
