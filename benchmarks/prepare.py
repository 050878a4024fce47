"""Time and memory of a large log: python benchmarks/prepare.py [--rows N …] [--pool] [--train].

The log is synthetic and has the shape of MovieLens-25M. Each step runs in a process of its own,
whose peak memory is measured: `genrec prepare` on a Parquet and on a CSV file, reading the data
set, the split, its leak checks and the fit of the transitions. With --pool, all experts of the
default prior are fitted and weighed. With --train, the language model reads the titles and is
trained for half a minute.

With several numbers of rows a straight line through the two smallest predicts the largest one and
100 M rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import genrec
from genrec.data.dataset import Dataset
from output import show
from synthetic_log import ROWS, write_log

SECONDS, GIB = 90.0, 4.0
"""Limits of `genrec prepare` for 25 M rows on two cores."""
PROJECTED = 100_000_000
TRAINING_MINUTES = 0.5
WRITE = "write"


def write(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    logs = {kind: write_log(folder, rows, seed, kind)[0] for kind in ("parquet", "csv")}
    return {f"{kind}_mib": log.stat().st_size / 2**20 for kind, log in logs.items()}


def prepare(folder: Path, kind: str) -> None:
    read = genrec.read_interactions(folder / f"ratings.{kind}", items=folder / f"movies.{kind}")
    Dataset.from_interactions(read, name="synthetic").save(folder / "data")


def load(folder: Path) -> Dataset:
    return Dataset.load(folder / "data")


def check(folder: Path) -> None:
    from genrec.evaluation.leakage import check_split

    check_split(genrec.leave_last_out(load(folder)))


def transitions(folder: Path) -> None:
    from genrec.collaborative.transitions import TransitionPrior

    data = load(folder)
    TransitionPrior().fit(data.histories, len(data.catalogue))


def pool(folder: Path) -> dict[str, Any]:
    from genrec.collaborative.pool import PooledPrior

    split = genrec.leave_last_out(load(folder))
    prior = PooledPrior().fit(split.train, split.valid)
    return {"experts": ", ".join(expert.name for expert in prior.experts)}


def train(folder: Path) -> dict[str, Any]:
    data = load(folder)
    started = time.perf_counter()
    model = genrec.GenRec(prior="transitions")
    model.fit(data, minutes=TRAINING_MINUTES, progress=False)
    done = model.info["training"]
    return {
        "fit_before_training_seconds": time.perf_counter() - started - done["seconds"],
        "targets_per_second": done["targets"] / done["seconds"],
    }


STEPS: dict[str, Callable[[Path], Any]] = {
    "prepare_parquet": lambda folder: prepare(folder, "parquet"),
    "prepare_csv": lambda folder: prepare(folder, "csv"),
    "load": load,
    "split": lambda folder: genrec.leave_last_out(load(folder)),
    "split_and_check": check,
    "transitions": transitions,
    "pool": pool,
    "train": train,
}
OPTIONAL = ("pool", "train")
"""Steps that take long and run if they are asked for."""


def measured(step: str, folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """Run a step in a process of its own; return its time, its peak memory and its facts."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    command += ["--rows", str(rows), "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run_step(options: argparse.Namespace) -> None:
    """Run a step in this process and print its measurements."""
    started = time.perf_counter()
    # Writing has a process of its own, too, because a child begins with the peak of its parent.
    if options.step == WRITE:
        found = write(options.folder, *options.rows, options.seed)
    else:
        found = STEPS[options.step](options.folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    facts = found if isinstance(found, dict) else {}
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_gib": peak, **facts}))


def run(rows: int, seed: int, optional: Collection[str]) -> dict[str, Any]:
    """Measure every step on a log of some size."""
    found: dict[str, Any] = {"rows": rows}
    steps = [step for step in STEPS if step not in OPTIONAL or step in optional]
    with tempfile.TemporaryDirectory() as name:
        for step in (WRITE, *steps):
            for key, value in measured(step, Path(name), rows, seed).items():
                found[f"{step}_{key}"] = value
    both = ("prepare_parquet", "prepare_csv")
    found["prepare_within_limits"] = all(
        found[f"{step}_seconds"] <= SECONDS and found[f"{step}_peak_gib"] <= GIB for step in both
    )
    return found


def projection(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Predict times and memory at the largest number of rows and at 100 M from the two smallest."""
    first, second, *_, last = sorted(results, key=lambda found: found["rows"])
    predicted = {}
    for key in (key for key in first if key.endswith(("_seconds", "_gib"))):
        slope = (second[key] - first[key]) / (second["rows"] - first["rows"])
        predicted[f"{key}_predicted"] = first[key] + slope * (last["rows"] - first["rows"])
        predicted[f"{key}_measured"] = last[key]
        predicted[f"{key}_100m"] = first[key] + slope * (PROJECTED - first["rows"])
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[ROWS], help="numbers of interactions"
    )
    parser.add_argument("--pool", action="store_true", help="also fit the default prior")
    parser.add_argument("--train", action="store_true", help="also train the language model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--step", choices=(WRITE, *STEPS), help="run only this step, in this process"
    )
    parser.add_argument("--folder", type=Path, help="folder with the files of that step")
    options = parser.parse_args()
    if options.step:
        return run_step(options)
    optional = [step for step in OPTIONAL if getattr(options, step)]
    results = [run(rows, options.seed, optional) for rows in options.rows]
    if len(results) > 2:
        results.append(projection(results))
    if len(results) == 1 or not options.json:
        for found in results:
            show(found, options.json)
    else:
        show({"sizes": results}, as_json=True)
    return None


if __name__ == "__main__":
    main()
