"""Runs a study: every arm in a process of its own, resumable, within a time limit."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.config import Config
from genrec.data.splits import Split
from genrec.doctor import diagnose
from genrec.errors import ConfigError, DataError, GenRecError
from genrec.evaluation.results import LEVEL
from genrec.files import UNREADABLE, is_free, read_arrays, write_arrays, write_text
from genrec.processes import duration
from genrec.studies.examples import examples
from genrec.studies.measure import Measured, measure_arm, study_split
from genrec.studies.page import write_study
from genrec.studies.registry import study_named
from genrec.studies.result import StudyResult, summarise
from genrec.studies.study import Arm, Study, StudyConfig

ARMS = "arms"
"""Subfolder with one file for each measured arm and seed."""
STUDY = "study.json"
"""File with the result."""
FORMAT = 3
"""Version of the files of measured arms; older ones are measured again."""
NO_TIME = "no time left in the budget"

Measure = Callable[[Arm, Study, StudyConfig, int], Measured]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One arm with one seed, and the file for what is measured.

    Attributes:
        arm: the variant.
        seed: the seed.
        path: the file.
        identity: what the measurement depends on, as JSON values.
    """

    arm: Arm
    seed: int
    path: Path
    identity: Mapping[str, Any]

    def kept(self) -> Measured | None:
        """Return what an earlier run measured under the same conditions, if anything."""
        try:
            arrays, head = read_arrays(self.path)
        except UNREADABLE:
            return None
        if head is None or head.get("identity") != self.identity:
            return None
        return Measured(arrays, head["values"], head["texts"])

    def keep(self, measured: Measured) -> None:
        """Write what was measured."""
        head = {"identity": self.identity, "values": measured.values, "texts": measured.texts}
        write_arrays(self.path, measured.arrays, head)


def run_study(
    name: str,
    config: StudyConfig,
    out: Path,
    *,
    minutes: float | None = None,
    say: Say = lambda line: None,
    measure: Measure | None = None,
) -> StudyResult:
    """Run a study and write study.json, report.html, report.md and its plots.

    Arms that an earlier call measured under the same conditions are not measured again.

    Args:
        name: name of the study.
        config: its settings.
        out: output folder; an interrupted study resumes from it.
        minutes: time limit. Arms that would not end in time are skipped, except for the first one;
            the same command continues with them.
        say: called with one line of text per arm.
        measure: measures an arm; in a process of its own if ``None``.

    Raises:
        ConfigError: There is no study or arm of that name, a setting is wrong, or none of the arms
            runs.
        DataError: The data cannot be read or lack what the study needs, or ``out`` holds something
            else.
    """
    study = study_named(name)
    Config.create(**config.settings)  # a wrong setting would fail in every arm
    if not is_free(out) and not (out / ARMS).is_dir():
        raise DataError(f"{out} is not empty and holds no study. Choose another output folder.")
    split = study_split(config, liked=study.liked)
    arms = _chosen(study, config, split)
    (out / ARMS).mkdir(parents=True, exist_ok=True)
    jobs = _jobs(arms, config, split.train.provenance.whole, out)
    measured, skipped = _measured(
        jobs, study, config, None if minutes is None else 60 * minutes, say, measure
    )
    entries = summarise(arms, measured, paired=study.paired)
    if not entries:
        arm, reason = next(iter(skipped.items()))
        raise ConfigError(f"No arm of the study {name} could be measured. {arm}: {reason}")
    facts = _facts(split, config, study)
    shown = examples(split, measured, arms) if study.paired else []
    result = StudyResult(study, entries, skipped, facts, shown)
    write_text(out / STUDY, json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")
    write_study(out, result)
    return result


def _chosen(study: Study, config: StudyConfig, split: Split) -> list[Arm]:
    arms = list(study.arms(split))
    known = [arm.name for arm in arms]
    unknown = sorted(set(config.arms) - set(known))
    if unknown:
        raise ConfigError(
            f"The study {study.name} has no arm {unknown[0]!r}. Use some of "
            f"{'; '.join(map(repr, known))}."
        )
    return [arm for arm in arms if not config.arms or arm.name in config.arms]


def _jobs(arms: Sequence[Arm], config: StudyConfig, whole: str | None, out: Path) -> list[Job]:
    shared = {**asdict(config), "settings": dict(config.settings), "data": whole}
    shared["format"] = FORMAT
    for key in ("arms", "seeds", "dataset"):  # they do not change what an arm measures
        del shared[key]
    jobs = []
    for seed in range(config.seeds):
        for arm in arms:
            own = arm.to_json()
            own.pop("group")
            own.pop("x")
            identity = json.loads(json.dumps({**shared, "arm": own, "seed": seed}))
            jobs.append(Job(arm, seed, out / ARMS / f"{_file(arm.name)}-{seed}.npz", identity))
    return jobs


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _measured(
    jobs: Sequence[Job],
    study: Study,
    config: StudyConfig,
    seconds: float | None,
    say: Say,
    measure: Measure | None,
) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Measure every job for which there is time.

    Returns:
        What was measured by arm, and the arms without a result with the reason.
    """
    measured: dict[str, list[Measured]] = {}
    skipped: dict[str, str] = {}
    started = time.monotonic()
    for number, job in enumerate(jobs, start=1):
        name = job.arm.name
        found = job.kept()
        if found is None and name in skipped:
            continue
        if found is None:
            late = time.monotonic() - started + _expected(job.arm, jobs, measured)
            if seconds is not None and measured and late > seconds:
                skipped[name] = NO_TIME
                continue
            say(f"{number}/{len(jobs)} {name} …")
            try:
                found = (measure or _in_own_process)(job.arm, study, config, job.seed)
            except (GenRecError, BrokenProcessPool) as error:
                skipped[name] = str(error) or "the process ended, perhaps for lack of memory"
                say(f"{number}/{len(jobs)} {name} did not run: {skipped[name]}")
                continue
            job.keep(found)
        measured.setdefault(name, []).append(found)
        say(f"{number}/{len(jobs)} {name}: {_line(found)}")
    left = {name: why for name, why in skipped.items() if name not in measured}
    if late_ones := sum(why == NO_TIME for why in left.values()):
        say(f"{late_ones} arms: {NO_TIME}; the same command continues with them")
    return measured, left


def _expected(arm: Arm, jobs: Sequence[Job], measured: Mapping[str, Sequence[Measured]]) -> float:
    """Return the expected seconds of an arm: its own with another seed, or those of like arms."""
    if arm.name in measured:
        return measured[arm.name][0].values["seconds"]
    arms = {job.arm.name: job.arm for job in jobs}
    like = [
        runs[0].values["seconds"]
        for name, runs in measured.items()
        if (arms[name].effort, arms[name].group) == (arm.effort, arm.group)
    ]
    every = [runs[0].values["seconds"] for runs in measured.values()]
    return float(np.max(like or every or [0.0]))


def _in_own_process(arm: Arm, study: Study, config: StudyConfig, seed: int) -> Measured:
    """Measure an arm in a new process, whose peak memory is the arm's own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_by_name, arm, study.name, config, seed, os.getpid()).result()


def _by_name(arm: Arm, study: str, config: StudyConfig, seed: int, parent: int) -> Measured:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    return measure_arm(arm, study_named(study), config, seed)


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone; it would compute for nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _line(found: Measured) -> str:
    ranks = found.arrays["rank"]
    gains = np.where(ranks > 0, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0)
    nll = f"nll {found.arrays['nll'].mean():.3f}, " if "nll" in found.arrays else ""
    return f"{nll}NDCG@10 {gains.mean():.4f}, {duration(found.values['seconds'])}"


def _facts(split: Split, config: StudyConfig, study: Study) -> dict[str, Any]:
    train = split.train
    data = {
        "dataset": train.name,
        "fingerprint": train.provenance.whole,
        "users": len(train.histories),
        "items": len(train.catalogue),
        "positions": split.info.facts["positions"],
        "training_interactions": len(train.histories.items),
        "held_out_targets": min(config.users, len(split.valid)),
        **train.provenance.summary("tie_rule", "tie_share"),
        **({} if study.facts is None else study.facts(split)),
    }
    return {
        "data": data,
        "config": {**asdict(config), "settings": dict(config.settings)},
        "environment": diagnose().to_json(),
        "level": LEVEL,
    }
