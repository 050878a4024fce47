"""Comparison of models on one split, with a cache of the results of each model.

The recommendations of a model are written to the output folder as soon as they are computed,
together with everything they depend on. A later run of the same comparison, or of one with more
models, computes only the missing results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.loading import load_dataset
from genrec.data.split_files import split_dataset
from genrec.data.splits import Holdout, Split, before_test, one_step_earlier
from genrec.doctor import diagnose
from genrec.errors import ConfigError, DataError, GenRecError, RunError
from genrec.evaluation.comparison import Comparison, Entry
from genrec.evaluation.evaluate import Progress, average_runs, evaluate, evaluate_lists
from genrec.evaluation.leakage import Finding, LeakageError, check_split, refuse_leaks
from genrec.evaluation.seen import choose_seen
from genrec.evaluation.slices import slices
from genrec.files import write_text
from genrec.processes import duration
from genrec.recommender import Recommender
from genrec.report import write_comparison
from genrec.workflows.kept_lists import BATCH_ROWS, KEPT, lists_of
from genrec.workflows.named_models import (
    FORMS,
    FitContext,
    ModelSpec,
    check_model,
    model_spec,
    note,
)
from genrec.workflows.plan import EVALUATE_ON, TRAIN_ON, ComparisonConfig
from genrec.workflows.runs import CUTOFFS, data_facts, sampled

RUNS = "runs"
"""Subfolder with the run folders of GenRec's variants."""


def run_comparison(
    dataset: str,
    plan: ComparisonConfig,
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Comparison:
    """Fit and evaluate all models of a plan; write comparison.json, report.html and report.md.

    Args:
        dataset: name of a known data set, or a prepared folder.
        plan: models and settings.
        out: output folder; an interrupted comparison resumes from it.
        say: called with one line of text per finding and per model.
        progress: called with (users done, users) for the current model.

    Raises:
        LeakageError: A leak check failed and the plan does not allow leaks. Leaks in the data or
            the split are found before any model is fitted.
        ConfigError: The plan names an unknown model or has an invalid setting, or no model runs.
        DataError: ``out`` holds something else, or the data set or the split cannot be read.
        RunError: A run folder was trained on other data.
    """
    specs = _contenders(plan)
    _check_folder(out)
    task, findings = _context(dataset, plan, out)
    test = sampled(task.split.test, plan.users, plan.seed)
    exclude_seen, repeats = choose_seen(task.split, test, plan.exclude_seen)
    plan = replace(plan, exclude_seen=exclude_seen)
    findings += repeats
    for finding in findings:
        say(str(finding))
    (out / KEPT).mkdir(parents=True, exist_ok=True)
    entries, failures = _entries(
        specs, lambda each: _entry(each, task, test, plan, out, progress), plan.reference, say
    )
    comparison = Comparison(
        **_conditions(task.data, task.split, test, task.fitted, plan.train_on),
        entries=entries,
        findings=findings,
        seed=plan.seed,
        hourly_cost=plan.hourly_cost,
        reference_name=plan.reference,
        failures=failures,
    )
    text = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False)
    write_text(out / "comparison.json", text)
    write_comparison(out, comparison)
    return comparison


def _entries(
    specs: Sequence[ModelSpec],
    measure: Callable[[ModelSpec], Entry],
    reference: str | None,
    say: Callable[[str], None],
) -> tuple[list[Entry], dict[str, str]]:
    """Fit and evaluate each model.

    Returns:
        The results, and why models did not run, by name. The reference must run, and so must one
        model at least.
    """
    entries, failures = [], {}
    for number, each in enumerate(specs, start=1):
        say(f"{number}/{len(specs)} {each.name} …")
        try:
            entries.append(measure(each))
        except (LeakageError, RunError):
            raise  # the comparison would be wrong, not just incomplete
        except GenRecError as error:
            if each.name == reference or (number == len(specs) and not entries):
                raise
            failures[each.name] = str(error)
            say(f"{number}/{len(specs)} {each.name} did not run: {error}")
        else:
            say(f"{number}/{len(specs)} {_line(entries[-1])}")
    return entries, failures


def _context(dataset: str, plan: ComparisonConfig, out: Path) -> tuple[FitContext, list[Finding]]:
    """Load and split the data, check the split for leaks, and choose the training data."""
    data = load_dataset(dataset)
    whole = split_dataset(data, plan.split)
    split = one_step_earlier(whole) if plan.evaluate_on == "valid" else whole
    findings = _checked(check_split(split), plan.allow_leaks)
    known = whole.train if plan.evaluate_on == "valid" else before_test(whole)
    alone = plan.train_on == "train"
    fitted, valid = (split.train, split.valid) if alone else (known, None)
    task = FitContext(
        data, split, fitted, known, valid, plan.settings or {}, plan.minutes, out / RUNS
    )
    return task, findings


def compare(
    models: Sequence[Recommender],
    split: Split,
    *,
    k: Sequence[int] | int = CUTOFFS,
    users: int | None = None,
    seed: int = 0,
    exclude_seen: bool | None = None,
    nll: bool = False,
    reference: str | None = None,
    allow_leaks: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compare recommenders on the test targets of one split.

    Models that are not fitted yet are fitted on ``split.train`` and stop early by ``split.valid``.

    Args:
        models: recommenders with different names.
        split: training data and targets.
        k: cut-offs of the metrics.
        users: number of test users, drawn with ``seed``; all if ``None``.
        seed: seed of the drawn users and of the bootstrap.
        exclude_seen: leave out items of the history; if ``None``, unless the log often repeats.
        nll: also measure the targets' negative log-likelihood, in nats per item.
        reference: model that the others are compared with; the best one if ``None``.
        allow_leaks: continue if a leak check fails.
        progress: called with (users done, users) while a model recommends.

    Returns:
        The comparison with metrics, intervals, paired differences and findings of the leak checks.

    Raises:
        LeakageError: A leak check of the split or of a model failed.
        ConfigError: There are no models, or two models have the same name.
    """
    _check_at_hand(models, split)
    findings = _checked(check_split(split), allow_leaks)
    test = sampled(split.test, users, seed)
    exclude_seen, repeats = choose_seen(split, test, exclude_seen)
    how: dict[str, Any] = {"exclude_seen": exclude_seen, "seed": seed, "nll": nll}
    how["progress"] = progress
    entries = [_entry_at_hand(each, split, test, k, allow_leaks, how) for each in models]
    return Comparison(
        **_conditions(split.train, split, test, split.train, "train"),
        entries=entries,
        findings=[*findings, *repeats],
        seed=seed,
        reference_name=reference,
    )


def _conditions(
    data: Dataset, split: Split, test: Holdout, fitted: Dataset, fitted_on: str
) -> dict[str, Any]:
    """Describe what all models of a comparison have in common."""
    return {
        "data": data.name,
        "split": split.info.label,
        "facts": _facts(data, split) | {"fitted_on": fitted_on},
        "test": test,
        "train": fitted,
        "slices": slices(test, fitted),
        "environment": diagnose().to_json(),
    }


def _check_at_hand(models: Any, split: Any) -> None:
    if not isinstance(split, Split):
        raise ConfigError("compare needs a split, e.g. genrec.leave_last_out(data).")
    if not isinstance(models, Sequence) or isinstance(models, str):
        raise ConfigError("compare needs a list of models, e.g. [genrec.baselines.EASE(), model].")
    for model in models:
        if not hasattr(model, "recommend_batch"):
            raise ConfigError(
                f"{model!r} is no recommender; give a model such as genrec.baselines.EASE()."
            )
    _check_names([model.name for model in models], "set the attribute name of one of them")


def _checked(findings: Iterable[Finding], allow_leaks: bool) -> list[Finding]:
    """Return the findings, or refuse if there are leaks and they are not allowed."""
    found = list(findings)
    if not allow_leaks:
        refuse_leaks(found)
    return found


def _entry_at_hand(
    model: Recommender,
    split: Split,
    test: Holdout,
    k: Sequence[int] | int,
    allow_leaks: bool,
    how: Mapping[str, Any],
) -> Entry:
    """Fit a model if needed, check it for leaks and evaluate it."""
    seconds = _fit(model, split)
    findings = list(check_model(model, split, split.train, before_test(split)))
    _checked((each for each in findings if each.check == "fitted on other data"), allow_leaks)
    found = evaluate(model, test, k, batch_rows=BATCH_ROWS, **how)
    return Entry(found, note(model), tuple(findings), seconds)


def _fit(model: Recommender, split: Split) -> float:
    """Fit a model that is not fitted yet and return the time in seconds."""
    started = time.perf_counter()
    if not getattr(model, "fitted", False):
        model.fit(split.train, split.valid)
    return time.perf_counter() - started


def _check_names(names: Sequence[str], remedy: str) -> None:
    if not names:
        raise ConfigError("A comparison needs models; name some, e.g. popularity and ease.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Two models have the name {twice[0]!r}; {remedy}.")


def _contenders(plan: ComparisonConfig) -> list[ModelSpec]:
    found = [model_spec(name) for name in dict.fromkeys(plan.models)]
    names = [each.name for each in found]
    _check_names(names, "rename one of the run folders")
    if plan.reference is not None and plan.reference not in names:
        raise ConfigError(
            f"The reference {plan.reference!r} is not one of the models; give one of "
            f"{', '.join(names)}."
        )
    if plan.train_on not in TRAIN_ON:
        raise ConfigError(f"train_on is {plan.train_on!r}; give one of {', '.join(TRAIN_ON)}.")
    if plan.evaluate_on not in EVALUATE_ON:
        raise ConfigError(
            f"evaluate_on is {plan.evaluate_on!r}; give one of {', '.join(EVALUATE_ON)}."
        )
    for name, value in (("seeds", plan.seeds), ("k", min(plan.k, default=0))):
        if value < 1:
            raise ConfigError(f"{name} is {value}; give at least 1.")
    if not plan.minutes > 0:  # NaN neither
        raise ConfigError(f"minutes is {plan.minutes:g}; give a positive number.")
    if plan.settings:
        _check_settings(plan.settings, names)
    return found


def _check_settings(settings: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse settings that are wrong, or that would change nothing."""
    for name in {"seed", "minutes"} & settings.keys():
        raise ConfigError(f"{name} cannot be a setting; give --{name} ({name}=…) instead.")
    Config.create(**settings)
    if not set(names) & set(FORMS):
        raise ConfigError(
            f"Settings ({', '.join(settings)}) are for variants of GenRec, and none of them is "
            f"compared; add one of {', '.join(FORMS)} to the models, or leave the settings out."
        )


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose a folder for the comparison.")
    if out.is_dir() and any(out.iterdir()) and not (out / KEPT).is_dir():
        raise DataError(
            f"{out} is not empty and does not hold a comparison; choose another folder."
        )


def _entry(
    each: ModelSpec,
    task: FitContext,
    test: Holdout,
    plan: ComparisonConfig,
    out: Path,
    progress: Progress | None,
) -> Entry:
    seeds = range(plan.seed, plan.seed + (plan.seeds if each.seeded else 1))
    kept = [lists_of(each, task, test, plan, seed, out, progress) for seed in seeds]
    evaluations = [
        evaluate_lists(
            each.name,
            one.items,
            test,
            plan.k,
            seconds=one.seconds,
            nll=one.nll,
            exclude_seen=bool(plan.exclude_seen),
            seed=plan.seed,
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
    times = f"fit in {duration(entry.fit_seconds)}, {duration(entry.milliseconds / 1000)} a list"
    leaks = "".join(f" · LEAK: {each.check}" for each in entry.findings if each.leak)
    return f"{entry.name}: {', '.join(shown)}; {times}{leaks}"


def _facts(data: Dataset, split: Split) -> dict[str, Any]:
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        **data_facts(data),
        "split": split.info.to_json(),
    }


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield the findings of the leak checks, one line each, for the data and for each model."""
    for finding in comparison.findings:
        yield f"{finding.check}: {finding.text}"
    for entry in comparison.entries:
        for finding in entry.findings:
            yield f"{entry.name}: {finding.check}: {finding.text}"
