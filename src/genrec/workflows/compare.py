"""None"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genrec._version import __version__
from genrec.data.dataset import Dataset
from genrec.data.loading import load_dataset
from genrec.data.split_files import split_dataset
from genrec.data.splits import Holdout, Split, before_test, one_step_earlier
from genrec.doctor import diagnose
from genrec.errors import ConfigError, DataError
from genrec.evaluation.comparison import Comparison, Entry
from genrec.evaluation.evaluate import Progress, average_runs, evaluate, evaluate_lists
from genrec.evaluation.leakage import check_split, refuse_leaks
from genrec.evaluation.slices import slices
from genrec.files import write_text
from genrec.report import write_comparison
from genrec.workflows.kept_lists import CachedLists
from genrec.workflows.named_models import FitContext, ModelSpec, check_model, model_spec, note
from genrec.workflows.plan import FITS, PARTS, ComparisonConfig
from genrec.workflows.runs import sampled

KEPT = "models"
"""Folder of what each model recommended."""


RUNS = "runs"
"""Folder of GenRec's runs."""


BATCH_ROWS = 64


FAST_BATCH_ROWS = 1024
"""Users that are asked about between two signs of progress."""


def compare(
    dataset: str,
    plan: ComparisonConfig,
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Comparison:
    """Fit and evaluate all models of a plan; write comparison.json, report.html and report.md.

    say: called with a line for each model. progress: with (users done, users) of the current one.
    Raises LeakageError where the data or the split give answers away, before anything is fitted.
    """
    contenders = _contenders(plan)
    _check_folder(out)
    data = load_dataset(dataset)
    whole = split_dataset(data, plan.split)
    split = one_step_earlier(whole) if plan.on == "valid" else whole
    findings = check_split(split)
    if not plan.allow_leaks:
        refuse_leaks(findings)
    for finding in findings:
        say(f"{'LEAK' if finding.leak else 'note'} · {finding.check}: {finding.text}")
    test = sampled(split.test, plan.users, plan.seed)
    (out / KEPT).mkdir(parents=True, exist_ok=True)
    alone = plan.fit == "train"
    known = whole.train if plan.on == "valid" else before_test(whole)
    fitted, valid = (split.train, split.valid) if alone else (known, None)
    task = FitContext(data, split, fitted, valid, plan.settings or {}, plan.minutes, out / RUNS)
    entries = []
    for number, each in enumerate(contenders, start=1):
        entries.append(_entry(each, task, test, plan, out, progress))
        say(f"{number}/{len(contenders)} {_line(entries[-1])}")
    comparison = Comparison(
        data=data.name,
        split=", ".join(str(split.info[key]) for key in ("split", "asked") if key in split.info),
        facts=_facts(data, split) | {"fitted_on": plan.fit},
        test=test,
        train=fitted,
        slices=slices(test, fitted),
        entries=entries,
        findings=findings,
        environment=diagnose().to_json(),
        seed=plan.seed,
        price=plan.price,
        reference_name=plan.reference,
    )
    text = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False)
    write_text(out / "comparison.json", text)
    write_comparison(out, comparison)
    return comparison


def _contenders(plan: ComparisonConfig) -> list[ModelSpec]:
    found = [model_spec(name) for name in dict.fromkeys(plan.models)]
    names = [each.name for each in found]
    if not names:
        raise ConfigError("A comparison needs models, e.g. --models popularity,ease.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Two models are called {twice[0]!r}; rename one of the run folders.")
    if plan.reference is not None and plan.reference not in names:
        raise ConfigError(f"The reference {plan.reference!r} is none of {', '.join(names)}.")
    if plan.fit not in FITS:
        raise ConfigError(f"fit is {plan.fit!r}; give one of {', '.join(FITS)}.")
    if plan.on not in PARTS:
        raise ConfigError(f"on is {plan.on!r}; give one of {', '.join(PARTS)}.")
    if plan.seeds < 1 or plan.minutes <= 0 or min(plan.k, default=0) < 1:
        raise ConfigError("seeds and k must be at least 1, and minutes positive.")
    return found


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name another folder for the comparison.")
    if out.is_dir() and any(out.iterdir()) and not (out / KEPT).is_dir():
        raise DataError(f"{out} is not empty and no comparison; name another folder.")


def _entry(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    out: Path,
    progress: Progress | None,
) -> Entry:
    seeds = range(plan.seed, plan.seed + (plan.seeds if each.seeded else 1))
    kept = [_kept(each, task, test, plan, seed, out, progress) for seed in seeds]
    evaluations = [
        evaluate_lists(
            each.name, one.items, test, plan.k, seconds=one.seconds, nats=one.nats, seed=plan.seed
        )
        for one in kept
    ]
    return Entry(
        evaluation=average_runs(evaluations, seed=plan.seed),
        note=kept[0].note,
        findings=tuple(kept[0].findings),
        fit_seconds=float(np.mean([one.fit_seconds for one in kept])),
    )


def _line(entry: Entry) -> str:
    evaluation = entry.evaluation
    figures = [f"{name} {value:.4f}" for name, value in evaluation.metrics.items()]
    shown = [each for each in figures if not each.startswith("MRR")]
    times = f"fit {entry.fit_seconds:.1f} s, {entry.milliseconds:.3g} ms a list"
    leaks = "".join(f" · LEAK: {each.check}" for each in entry.findings if each.leak)
    return f"{entry.name}: {', '.join(shown)}; {times}{leaks}"


def _facts(data: Dataset, split: Split) -> dict[str, Any]:
    names = ("counts", "tie_rule", "tie_share", "repeat_share", "core")
    own = {name: data.info[name] for name in names if name in data.info}
    return {"name": data.name, "fingerprint": data.fingerprint, **own, "split": split.info}


def _kept(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    seed: int,
    out: Path,
    progress: Progress | None,
) -> CachedLists:
    identity = {
        "genrec": __version__,
        "data": task.data.fingerprint,
        "split": task.split.info,
        "fit": plan.fit,
        "test": _digest(test),
        "k": max(plan.k),
        "nats": plan.nats,
        **each.identity(task, seed),
    }
    path = out / KEPT / f"{each.name}-seed{seed}.npz"
    if (known := CachedLists.load(path, identity)) is not None:
        return known
    made = _make(each, task, test, plan, seed, progress)
    made.save(path, identity)
    return made


def _digest(test: Holdout) -> str:
    users = "\n".join(test.histories.user_ids)
    return hashlib.sha256(users.encode() + test.targets.tobytes()).hexdigest()[:16]


def _make(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    seed: int,
    progress: Progress | None,
) -> CachedLists:
    started = time.perf_counter()
    model = each.fit(task, seed)
    fit_seconds = time.perf_counter() - started
    findings = list(check_model(model, task))
    if (
        any(finding.check == "fitted on other data" for finding in findings)
        and not plan.allow_leaks
    ):
        refuse_leaks(findings)
    rows = BATCH_ROWS if each.slow else FAST_BATCH_ROWS
    made = evaluate(
        model,
        test,
        [max(plan.k)],
        bootstrap=0,
        nats=plan.nats,
        progress=progress if each.slow else None,
        batch_rows=rows,
    )
    return CachedLists(made.items, made.nats, made.seconds, fit_seconds, note(model), findings)


def notes(comparison: Comparison) -> Iterator[str]:
    """What must be read with the table: leaks of the data and of models."""
    for finding in comparison.findings:
        yield f"{finding.check}: {finding.text}"
    for entry in comparison.entries:
        for finding in entry.findings:
            yield f"{entry.name}: {finding.check}: {finding.text}"
