"""Models × one split → a comparison: fitted one after the other, kept, and taken up again.

What a model recommended is kept in the output folder as soon as it is known, with everything that
it depends on; the same comparison, or a longer one, then computes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec._version import __version__
from genrec.arrays import Floats, Items
from genrec.comparison import Comparison, Entry
from genrec.contenders import Contender, Task, check_model, contender, note
from genrec.data import load_dataset
from genrec.doctor import diagnose
from genrec.errors import ConfigError, DataError
from genrec.evaluation import Progress, combine, evaluate, judge
from genrec.files import UNREADABLE, read_arrays, write_arrays, write_text
from genrec.histories import Dataset, Holdout, Split
from genrec.leakage import Finding, check_split, refuse_leaks
from genrec.report import write_comparison
from genrec.runs import CUTOFFS, sampled
from genrec.slices import slices
from genrec.splits import before_test, one_step_earlier, split_dataset

FITS = ("train+valid", "train")
PARTS = ("test", "valid")
KEPT = "models"
"""Folder of what each model recommended."""
RUNS = "runs"
"""Folder of GenRec's runs."""
BATCH_ROWS = 64
FAST_BATCH_ROWS = 1024
"""Users that are asked about between two signs of progress."""


@dataclass(frozen=True)
class Plan:
    """Settings of a comparison.

    Attributes:
        models: names of baselines and forms of GenRec, or run folders.
        split: name of a split, or a folder with train, valid and test.
        on: "test", or "valid" for choosing models and settings: everything is one item earlier,
            the validation targets are asked for and nothing of the test is looked at.
        fit: "train+valid": once settings are chosen, everything before the test targets is learnt
            from, as in production; "train": the custom of papers, validation says when to stop.
        k: cut-offs.
        users: test users, drawn by ``seed``; all if None.
        seeds: runs of each model that depends on a seed: ``seed``, ``seed + 1``, …
        minutes: training of each form of GenRec and of P5.
        settings: of GenRec's forms.
        nats: ask models with a distribution for the likelihood of the targets, too.
        reference: the model the others are paired with; the best one if None.
        price: of an hour on this machine, for the cost of 1,000 lists.
        allow_leaks: go on where the data or the split leak, and say so in the report.
    """

    models: tuple[str, ...]
    split: str = "leave-last-out"
    on: str = "test"
    fit: str = "train+valid"
    k: tuple[int, ...] = CUTOFFS
    users: int | None = None
    seed: int = 0
    seeds: int = 1
    minutes: float = 5.0
    settings: Mapping[str, Any] | None = None
    nats: bool = False
    reference: str | None = None
    price: float | None = None
    allow_leaks: bool = False


def compare(
    dataset: str,
    plan: Plan,
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
    task = Task(data, split, fitted, valid, plan.settings or {}, plan.minutes, out / RUNS)
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


def _contenders(plan: Plan) -> list[Contender]:
    found = [contender(name) for name in dict.fromkeys(plan.models)]
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
    each: Contender,
    task: Task,
    test: Holdout,
    plan: Plan,
    out: Path,
    progress: Progress | None,
) -> Entry:
    seeds = range(plan.seed, plan.seed + (plan.seeds if each.seeded else 1))
    kept = [_kept(each, task, test, plan, seed, out, progress) for seed in seeds]
    evaluations = [
        judge(
            each.name, one.items, test, plan.k, seconds=one.seconds, nats=one.nats, seed=plan.seed
        )
        for one in kept
    ]
    return Entry(
        evaluation=combine(evaluations, seed=plan.seed),
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


# -- what is kept of each model ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Kept:
    """What one fitted model said: lists int32 [users, k], nats [users] or None, times, findings."""

    items: Items
    nats: Floats | None
    seconds: float
    fit_seconds: float
    note: str
    findings: list[Finding]

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write one npz file, all of it or nothing."""
        head = {
            "identity": identity,
            "seconds": self.seconds,
            "fit_seconds": self.fit_seconds,
            "note": self.note,
            "findings": [vars(each) for each in self.findings],
        }
        nats = {} if self.nats is None else {"nats": self.nats}
        write_arrays(path, {"items": self.items, **nats}, head)

    @classmethod
    def load(cls, path: Path, identity: Mapping[str, Any]) -> Kept | None:
        """What :meth:`save` wrote, or None where there is nothing of this identity."""
        if not path.is_file():
            return None
        try:
            arrays, head = read_arrays(path)
            items, nats = arrays["items"], arrays.get("nats")
        except UNREADABLE:
            return None  # damaged: made again
        if head.pop("identity") != json.loads(json.dumps(identity)):
            return None
        findings = [Finding(**each) for each in head.pop("findings")]
        return cls(items=items, nats=nats, findings=findings, **head)


def _kept(
    each: Contender,
    task: Task,
    test: Holdout,
    plan: Plan,
    seed: int,
    out: Path,
    progress: Progress | None,
) -> Kept:
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
    if (known := Kept.load(path, identity)) is not None:
        return known
    made = _make(each, task, test, plan, seed, progress)
    made.save(path, identity)
    return made


def _digest(test: Holdout) -> str:
    users = "\n".join(test.histories.user_ids)
    return hashlib.sha256(users.encode() + test.targets.tobytes()).hexdigest()[:16]


def _make(
    each: Contender, task: Task, test: Holdout, plan: Plan, seed: int, progress: Progress | None
) -> Kept:
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
    return Kept(made.items, made.nats, made.seconds, fit_seconds, note(model), findings)


def notes(comparison: Comparison) -> Iterator[str]:
    """What must be read with the table: leaks of the data and of models."""
    for finding in comparison.findings:
        yield f"{finding.check}: {finding.text}"
    for entry in comparison.entries:
        for finding in entry.findings:
            yield f"{entry.name}: {finding.check}: {finding.text}"
