"""The whole story in one command, on MovieLens-100K with the real SmolLM2-135M."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.data.loading import load_dataset
from genrec.data.splits import leave_last_out
from genrec.evaluation.evaluate import Progress, evaluate
from genrec.evaluation.results import Evaluation
from genrec.files import CHECKPOINTS
from genrec.model.genrec import GenRec
from genrec.model.run_folder import check_folder
from genrec.recommender import Recommendation
from genrec.workflows.runs import CUTOFFS, evaluate_baselines, sampled, write_results

DATASET = "ml-100k"
HISTORY = ("Toy Story (1995)", "GoldenEye (1995)", "Star Wars (1977)")


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows at its end."""

    evaluations: list[Evaluation]
    history: tuple[str, ...]
    recommendations: list[Recommendation]
    info: dict[str, Any]
    """Of the trained model, as in its ``genrec.json``."""
    stages: dict[str, float]
    """Seconds that each stage took, in order."""


class _Stages:
    """Says what begins, and how long it took."""

    def __init__(self, count: int, say: Callable[[str], None]) -> None:
        self.count, self.say = count, say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.say(f"{len(self.seconds) + 1}/{self.count} {name} …")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.say(f"    {self.seconds[name]:.0f} s")


def run_demo(
    out: Path,
    *,
    minutes: float,
    users: int | None,
    seed: int,
    restart: bool,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> DemoResult:
    """Get data and backbone, train, evaluate on the same users, write the run folder.

    Compared are the counting baselines (the last is GenRec's own prior), the backbone as it comes,
    without a prior, and the trained model.

    Args:
        minutes: training budget.
        users: test users, or all.
        restart: drop the checkpoints of a demo that was cut off.
        say: called with one line at each stage.
        progress: called with (users done, users) while a language model is evaluated.
    """
    check_folder(out)
    if restart:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    stages = _Stages(6, say)
    how: Any = {"seed": seed, "progress": progress, "batch_rows": 64}
    with stages.stage("fetching and preparing MovieLens-100K"):
        data = load_dataset(DATASET)
        split = leave_last_out(data)
        test = sampled(split.test, users, seed)
    with stages.stage(f"fitting the counting baselines and evaluating them on {len(test)} users"):
        evaluations = evaluate_baselines(split, test, seed)
    with stages.stage("fetching SmolLM2-135M and evaluating it as it comes, without a prior"):
        untrained = GenRec(name="genrec-untrained", prior="none", seed=seed).build(split.train)
        evaluations.append(evaluate(untrained, test, CUTOFFS, **how))
        del untrained
    with stages.stage(f"training GenRec for {minutes:g} minutes, and scoring before and after"):
        model = GenRec(seed=seed).fit(split.train, split.valid, minutes=minutes, output=out)
        model.save_pretrained(out)
    with stages.stage("evaluating GenRec on the same users"):
        evaluations.append(evaluate(model, test, CUTOFFS, **how))
    with stages.stage("writing the report and recommending"):
        write_results(out, model, data, evaluations, seed)
        recommendations = model.recommend(HISTORY, k=10)
    return DemoResult(evaluations, HISTORY, recommendations, model.info, stages.seconds)
