"""Run one of the GPU experiments G1 to G6, which README.md in this folder lists.

    python3 scripts/gpu/run.py G2 --data ml-100k --data ~/kit/data/amazon-toys --out $OUT

Runs are stored in --work, on the disk of the machine, and an interrupted experiment resumes from
there. The results (a table in JSON, and the runs as archives) are written to --out. The table is
printed at the end. On a machine without a GPU everything runs on the CPU, as a dry run.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import genrec
from genrec.cli.options import parse_assignments
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, offsets_of
from genrec.evaluation.results import Evaluation, compare_paired, compare_paired_nll
from genrec.language_model.devices import choose_device
from genrec.studies.bounds import machine_rates, quickest
from genrec.studies.registry import STUDIES
from genrec.studies.runner import run_study
from genrec.studies.study import StudyConfig
from genrec.studies.synthetic import synthetic_split, synthetic_titles
from genrec.workflows.runs import evaluate_run, train_run

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]
GAINS = "gains.json"
KEPT = (
    "metrics.json",
    GAINS,
    "genrec.json",
    "config.yaml",
    "head.safetensors",
    "adapter",
    "train.log",
)
"""What is packed of a run; prior and catalogue can be fitted again."""
DEFAULT: tuple[str, dict[str, Any]] = ("default", {})
WHOLE: tuple[str, dict[str, Any]] = ("whole-history", {"context_layers": None})
"""Recipes that differ in how many layers see the history: some, or all of them."""
DEVICE_TESTS = ("language_model", "search", "training", "model")


# -- G1: agreement of the device with the CPU -----------------------------------------------------


def agreement(options: argparse.Namespace) -> Rows:
    """Compare search, likelihood and training in float32 and bfloat16 with float32 on the CPU."""
    expected = observed(options, "float32", on_cpu=True)
    rows = []
    for dtype, tolerance in (("float32", 0.01), ("bfloat16", 0.1)):
        found = observed(options, dtype, on_cpu=False)
        row = {"dtype": dtype, "device": found["device"]}
        for key in ("losses", "nats"):
            row[f"{key}_differ_by"] = float(np.abs(np.subtract(found[key], expected[key])).mean())
        pairs = zip(found["items"], expected["items"], strict=True)
        row["items_shared"] = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))
        row["pass"] = max(row["losses_differ_by"], row["nats_differ_by"]) < tolerance
        rows.append(row)
    report(options, rows)
    return [*rows, device_tests()] if not options.no_tests else rows


def observed(options: argparse.Namespace, dtype: str, *, on_cpu: bool) -> dict[str, Any]:
    """Run :func:`observe` in a separate process, with or without the GPU."""
    command = [sys.executable, __file__, *options.arguments, "--observe", dtype]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    done = subprocess.run(
        command, env={**os.environ, **hidden}, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def observe(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Train twenty steps, then recommend for some test users and score their targets."""
    split = genrec.leave_last_out(genrec.load_dataset(options.data[0]))
    few = split.train.histories.select(np.arange(min(160, len(split.train.histories))))
    train = Dataset("few", split.train.catalogue, few, split.train.provenance)
    settings = {**options.settings, "dtype": dtype, "windows_per_user": 2}
    model = genrec.GenRec(**settings).fit(train, epochs=1, progress=False)
    test = split.test.sample(min(100, len(split.test)), 0)
    assert model.training is not None
    return {
        "device": str(model.ranker.backbone.device),
        "losses": [entry["loss"] for entry in model.training.log],
        "nats": (-model.log_likelihood(test.histories, test.targets)).tolist(),
        "items": model.recommend_batch(test.histories, 10).items.tolist(),
    }


def device_tests() -> dict[str, Any]:
    """Run the tests of the packages that compute on the device."""
    files = [str(ROOT / "tests" / name) for name in DEVICE_TESTS]
    command = [sys.executable, "-m", "pytest", "-m", "not e2e", "-p", "no:cacheprovider", *files]
    if importlib.util.find_spec("xdist"):
        command += ["-n", "8", "--dist", "loadfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() or done.stderr.splitlines() or ["no output"]
    print("\n".join(lines[-100:]))
    return {"tests": lines[-1], "pass": done.returncode == 0}


# -- G2, G3: training and evaluation --------------------------------------------------------------


def train_default(options: argparse.Namespace) -> Rows:
    """Measure training speed against the paper's recipe, then train the default recipe."""
    command = [str(ROOT / "benchmarks" / "training.py"), "--json", "--data", options.data[0]]
    command += ["--minutes", str(min(0.5, options.minutes))]
    command += ["--backbone", options.backbone or "smollm2-135m"]
    command += ["--batches", str(options.batches)]
    speed = json.loads(subprocess.check_output([sys.executable, *command]))
    return [{"name": "speed", **speed}, *trained(options, *DEFAULT)]


def train_others(options: argparse.Namespace) -> Rows:
    """Train with the history seen in all layers, without a prior, and in the paper's recipe."""
    return [
        *trained(options, *WHOLE),
        *trained(options, "no-prior", {"prior": "none"}),
        *trained(options, "paper", {"recipe": "paper"}),
    ]


def trained(options: argparse.Namespace, name: str, settings: dict[str, Any]) -> Rows:
    """Train, evaluate and pack one recipe on each data set; finished steps are skipped."""
    rows = []
    for data in options.data:
        label = label_of(options, data, name)
        out = options.work / label
        if not (out / "metrics.json").is_file():
            if not (out / "genrec.json").is_file():
                train_run(data, out, {**settings, **options.settings, "minutes": options.minutes})
            found = evaluate_run(out, users=options.users, nll=settings.get("recipe") != "paper")
            (out / GAINS).write_text(json.dumps(gains(found), indent=2))
        pack(options.out / f"{label}.tar.gz", out, KEPT)
        rows.append(row_of(out, label))
        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def gains(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, list[float]]]:
    """Return what the run gains over each baseline, with paired 95 % intervals, by metric."""
    run = evaluations[-1]
    found: dict[str, dict[str, list[float]]] = {}
    for other in evaluations[:-1]:
        found[other.name] = {"NDCG@10": list(compare_paired(run, other, "NDCG@10"))}
        if (lower := compare_paired_nll(run, other)) is not None:
            found[other.name]["nats"] = list(lower)
    return found


def label_of(options: argparse.Namespace, data: str, name: str) -> str:
    """Return the name of a run, which differs with its settings and its training time."""
    given = json.dumps([options.settings, options.minutes], sort_keys=True, default=str)
    return f"{Path(data).name}-{name}-{hashlib.sha256(given.encode()).hexdigest()[:6]}"


def pack(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Pack some files and folders of a folder; few and small files come back from the machine."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in names:
            if (folder / name).exists():
                tar.add(folder / name, f"{folder.name}/{name}")


def row_of(run: Path, label: str) -> dict[str, Any]:
    """Return the row of a run for the table of results."""
    training = json.loads((run / "genrec.json").read_text())["training"]
    found = json.loads((run / "metrics.json").read_text())
    return {
        "name": label,
        "targets": training["targets"],
        "seconds": training["seconds"],
        "targets_per_second": round(training["targets"] / training["seconds"], 1),
        **{name: [round(found[name][key], 4) for key in ("HR@10", "NDCG@10")] for name in found},
        "gain_over_pooled": json.loads((run / GAINS).read_text()).get("pooled"),
    }


# -- G4: search -----------------------------------------------------------------------------------


def search_speed(options: argparse.Namespace) -> Rows:
    """Measure the search of two trained runs, of which one sees the history in all layers."""
    rows: Rows = []
    for recipe in (DEFAULT, WHOLE):
        rows.append(searched(options, *recipe))
        report(options, rows)
    return rows


def searched(options: argparse.Namespace, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run the search benchmark on a trained run, with a lower bound of the time of each batch."""
    run = options.work / label_of(options, options.data[0], name)
    if not (run / "genrec.json").is_file():
        own = {**settings, **options.settings, "minutes": options.minutes}
        train_run(options.data[0], run, own)
    command = [str(ROOT / "benchmarks" / "search.py"), "--json", "--run", str(run)]
    command += ["--data", options.data[0], "--dtype", "auto", "--only", "clicks"]
    command += ["--only", "generate", "--only", "batches"]
    command += [part for size in options.batch for part in ("--batch", str(size))]
    command += [part for beams in options.beams for part in ("--hf-beams", str(beams))]
    found = json.loads(subprocess.check_output([sys.executable, *command]))
    model, limits = genrec.GenRec.from_pretrained(run), ceilings()
    layers = sum(
        weight.numel() for weight in model.ranker.backbone.causal_lm.get_decoder().parameters()
    )
    layers -= model.ranker.backbone.output_weight.numel()
    for row in found["batches"]:
        arithmetic = 2 * layers * row["tokens"] / limits["flops_per_second"]
        reading = layers * model.ranker.backbone.output_weight.itemsize / limits["bytes_per_second"]
        row["floor_seconds"] = max(arithmetic, reading)
        row["ratio_to_floor"] = row["seconds"] / row["floor_seconds"]
    return {"name": f"search, {name}", **limits, **found}


def ceilings() -> dict[str, float]:
    """Measure the device's rates of a square matrix product and of a copy, per second."""
    rates = machine_rates(torch.bfloat16 if choose_device().type == "cuda" else torch.float32)
    return {"flops_per_second": rates.flops, "bytes_per_second": rates.bytes}


# -- G5: studies ----------------------------------------------------------------------------------


def studies(options: argparse.Namespace) -> Rows:
    """Run the studies of the paper's open questions at full size, as many as the time allows."""
    rows, started = [], time.monotonic()
    for name in options.study or STUDIES:
        left = options.minutes - (time.monotonic() - started) / 60
        if left <= 0:
            rows.append({"name": name, "skipped": "no time left"})
            continue
        config = StudyConfig(
            options.data[0],
            targets=options.targets,
            users=options.users or 20_000,
            settings=options.settings,
        )
        folder = options.work / f"study-{name}"
        found = run_study(name, config, folder, minutes=left, say=print)
        names = [path.name for path in folder.iterdir()]
        pack(options.out / f"{folder.name}.tar.gz", folder, names)
        for each in found.entries:
            accuracy = {key: round(value[0], 4) for key, value in each.means.items()}
            rows.append({"name": f"{name}: {each.arm.name}", **accuracy, **each.values})
    return rows


# -- G6: scale ------------------------------------------------------------------------------------


def scale(options: argparse.Namespace) -> Rows:
    """Measure training on a large log and reading the titles of a large catalogue."""
    like = genrec.load_dataset(options.data[0])
    rows = [large_log(options, like)]
    report(options, rows)
    return [*rows, titles_read(options, like)]


def large_log(options: argparse.Namespace, like: Dataset) -> dict[str, Any]:
    """Measure training throughput and memory on synthetic data in the shape of MovieLens-25M."""
    started = time.perf_counter()
    users, items = int(162_541 * options.share), max(50, int(62_423 * options.share))
    data = synthetic(users, items, 153.8, like.catalogue.titles)
    made = time.perf_counter()
    model = genrec.GenRec(**options.settings)
    model.fit(data, minutes=options.minutes, progress=False)
    done = model.info["training"]
    some = data.histories.select(np.arange(64))
    cuda = torch.cuda.is_available()
    return {
        "name": "scale",
        "users": users,
        "items": items,
        "interactions": len(data.histories.items),
        "making_seconds": made - started,
        "fitting_seconds_before_training": time.perf_counter() - made - done["seconds"],
        "targets_per_second": done["targets"] / done["seconds"],
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "seconds_for_64_users": quickest(lambda: model.recommend_batch(some, 10), 3),
    }


def titles_read(options: argparse.Namespace, like: Dataset) -> dict[str, Any]:
    """Measure how long a large catalogue's titles take to read, and a request afterwards."""
    split = synthetic_split(genrec.leave_last_out(like), options.titles, 0)
    started = time.perf_counter()
    model = genrec.GenRec(**{**options.settings, "prior": "popularity"}).build(split.train)
    built, states = time.perf_counter(), model.ranker.states
    assert states is not None, "titles are not read once with context_layers=null"
    states.read()
    read = time.perf_counter() - built
    some = split.valid.histories.select(np.arange(1))
    return {
        "name": f"{options.titles} titles",
        "building_seconds": built - started,
        "reading_seconds": read,
        "titles_per_second": options.titles / read,
        "states_gb": states.table.nbytes / 1e9,
        "seconds_for_a_user": quickest(lambda: model.recommend_batch(some, 10), 3),
    }


def synthetic(users: int, items: int, mean: float, like: list[str]) -> Dataset:
    """Make a data set of random interactions that follow a popularity curve.

    Args:
        users: number of users.
        items: number of items.
        mean: mean number of interactions per user.
        like: titles of whose words those of the items are made.
    """
    random = np.random.default_rng(0)
    lengths = np.maximum(2, random.lognormal(np.log(mean) - 0.5, 1.0, users).astype(np.int64))
    share = 1 / np.arange(10, items + 10)
    drawn = random.choice(items, size=int(lengths.sum()), p=share / share.sum()).astype(np.int32)
    times = np.arange(len(drawn), dtype=np.float64)
    histories = Histories(drawn, offsets_of(lengths), [str(user) for user in range(users)], times)
    titles = synthetic_titles(like, items, random)
    catalogue = Catalogue([str(n) for n in range(items)], titles, pl.DataFrame({"n": range(items)}))
    return Dataset("synthetic", catalogue, histories)


ENTRIES: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "G1": agreement,
    "G2": train_default,
    "G3": train_others,
    "G4": search_speed,
    "G5": studies,
    "G6": scale,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entry", choices=ENTRIES, help="the experiment to run")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--work", type=Path, default=Path.home() / "genrec-runs", help="folder for the runs"
    )
    parser.add_argument(
        "--data",
        action="append",
        help="name or folder of a data set; repeatable; ml-100k if omitted",
    )
    parser.add_argument("--backbone", help="name of the language model; the default if omitted")
    parser.add_argument(
        "--minutes", type=float, default=2, help="minutes of each training (G5: of all)"
    )
    parser.add_argument("--users", type=int, help="number of evaluated users; all if omitted")
    parser.add_argument(
        "--batches", type=int, default=12, help="G2: number of batches that are timed one by one"
    )
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 8, 64, 512],
        help="G4: numbers of users per batch",
    )
    parser.add_argument(
        "--beams", type=int, nargs="+", default=[10, 50], help="G4: numbers of beams of HF generate"
    )
    parser.add_argument(
        "--targets", type=int, default=500_000, help="G5: training targets of each arm"
    )
    parser.add_argument(
        "--study", action="append", choices=STUDIES, help="G5: a study; repeatable; all if omitted"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="G6: size as a share of MovieLens-25M"
    )
    parser.add_argument(
        "--titles", type=int, default=1_000_000, help="G6: titles of the largest catalogue"
    )
    parser.add_argument("--no-tests", action="store_true", help="G1: skip the tests")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting of the model; repeatable",
    )
    parser.add_argument("--observe", metavar="DTYPE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    options.data = options.data or ["ml-100k"]
    options.settings = parse_assignments(options.set)
    if options.backbone is not None:  # else arms of a study may have one of their own
        options.settings["backbone"] = options.backbone
    if options.observe:
        print(json.dumps(observe(options, options.observe)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    options.started = time.perf_counter()
    report(options, ENTRIES[options.entry](options))


def report(options: argparse.Namespace, rows: Rows) -> None:
    """Write the results so far with the command and the device, and print them."""
    cuda = torch.cuda.is_available()
    result = {
        "entry": options.entry,
        "command": options.arguments,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "wall_seconds": round(time.perf_counter() - options.started, 1),
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "rows": rows,
    }
    (options.out / f"{options.entry}.json").write_text(json.dumps(result, indent=2))
    print(json.dumps({**result, "rows": len(rows)}))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
