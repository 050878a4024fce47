"""The demo: all steps in one command, on MovieLens-100K with SmolLM2-135M."""

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
from genrec.model.saving import check_folder
from genrec.recommender import Recommendation
from genrec.workflows.runs import CUTOFFS, evaluate_baselines, sampled, write_results

DATASET = "ml-100k"
HISTORY = ("Toy Story (1995)", "GoldenEye (1995)", "Star Wars (1977)")


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo.

    Attributes:
        evaluations: one per model, on the same users.
        history: titles of the example history, oldest first.
        recommendations: the trained model's recommendations for that history.
        info: the content of the run's ``genrec.json``.
        stages: duration of each stage in seconds, in order.
    """

    evaluations: list[Evaluation]
    history: tuple[str, ...]
    recommendations: list[Recommendation]
    info: dict[str, Any]
    stages: dict[str, float]


class _Stages:
    """Reports each stage when it begins, and its duration when it ends."""

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
    """Fetch data and backbone, train, evaluate all models on the same users and write a report.

    The models are the counting baselines, the untrained backbone without a prior, and GenRec.

    Args:
        out: run folder to write.
        minutes: training time in minutes.
        users: number of test users, drawn with ``seed``; all if ``None``.
        seed: seed of all random numbers.
        restart: delete the checkpoints of an interrupted demo first.
        say: called with one line of text when a stage begins and when it ends.
        progress: called with (users done, users) while a language model is evaluated.

    Raises:
        RunError: ``out`` is a file, or a non-empty folder that holds no run.
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
    with stages.stage("fetching SmolLM2-135M and evaluating it untrained, without a prior"):
        untrained = GenRec(name="genrec-untrained", prior="none", seed=seed)
        evaluations.append(evaluate(untrained.build(split.train), test, CUTOFFS, **how))
        del untrained
    with stages.stage(f"training GenRec for {minutes:g} minutes, with likelihood before and after"):
        model = GenRec(seed=seed).fit(split.train, split.valid, minutes=minutes, output=out)
        model.save_pretrained(out)
    with stages.stage("evaluating GenRec on the same users"):
        evaluations.append(evaluate(model, test, CUTOFFS, **how))
    with stages.stage("writing the report and recommending"):
        write_results(out, model, data, evaluations, seed)
        found = model.recommend(HISTORY, k=10)
    return DemoResult(evaluations, HISTORY, found, model.info, stages.seconds)
