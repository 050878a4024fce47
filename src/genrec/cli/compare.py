"""The command `genrec compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import (
    Dataset,
    ExcludeSeen,
    Json,
    Nll,
    Seed,
    Users,
    parse_assignments,
    split_names,
)
from genrec.cli.output import numbers, print_comparison, print_json, print_progress, progress_bar

if TYPE_CHECKING:
    from genrec.evaluation.comparison import Comparison
    from genrec.workflows.plan import ComparisonConfig

Models = Annotated[
    str,
    typer.Option(
        help="Comma-separated models: names of baselines, variants of GenRec, run folders; "
        "or `all`."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Output folder; an interrupted comparison resumes from it. Default: a folder "
        "under runs/ named after data set and split."
    ),
]
Split = Annotated[
    str,
    typer.Option(
        help="How to split the data: leave-last-out, global-time, or a folder with the tables "
        "train, valid and test. Options follow a comma, as in global-time,target=last."
    ),
]
TrainOn = Annotated[
    str,
    typer.Option(help="Training data: train+valid (everything before the test targets) or train."),
]
EvaluateOn = Annotated[
    str,
    typer.Option(
        help="Targets to predict: test, or valid to choose models and settings without using "
        "the test targets."
    ),
]
Seeds = Annotated[int, typer.Option(help="Number of seeds for each model that depends on one.")]
Minutes = Annotated[
    float, typer.Option(help="Training time in minutes for each variant of GenRec and P5.")
]
Cutoffs = Annotated[str, typer.Option("--k", help="Comma-separated cut-offs k of HR@k and NDCG@k.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting for all variants of GenRec as key=value; repeatable."),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Model that the others are compared with user by user; default: the best one."
    ),
]
HourlyCost = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Price of one hour on this machine, to report the cost of 1,000 recommendation lists.",
    ),
]
AllowLeaks = Annotated[
    bool,
    typer.Option(
        "--allow-leaks", help="Continue if a check finds a leak; the report names the leak."
    ),
]


def compare(
    dataset: Dataset,
    models: Models = "popularity,itemknn,ease,cooccurrence,pooled,sasrec,genrec",
    out: Out = None,
    split: Split = "leave-last-out",
    train_on: TrainOn = "train+valid",
    evaluate_on: EvaluateOn = "test",
    users: Users = None,
    seeds: Seeds = 1,
    minutes: Minutes = 5.0,
    cutoffs: Cutoffs = "5,10",
    assignments: Assignments = None,
    exclude_seen: ExcludeSeen = None,
    nll: Nll = False,
    reference: Reference = None,
    hourly_cost: HourlyCost = None,
    allow_leaks: AllowLeaks = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare models on one split; report tables, intervals, slices, leak checks and costs."""
    from genrec.workflows.compare import run_comparison
    from genrec.workflows.named_models import ALL
    from genrec.workflows.plan import ComparisonConfig

    plan = ComparisonConfig(
        models=ALL if models == "all" else tuple(filter(None, split_names(models))),
        split=split,
        train_on=train_on,
        evaluate_on=evaluate_on,
        k=numbers(cutoffs, "--k"),
        users=users,
        seed=seed,
        seeds=seeds,
        minutes=minutes,
        settings=parse_assignments(assignments or []),
        exclude_seen=exclude_seen,
        nll=nll,
        reference=reference,
        hourly_cost=hourly_cost,
        allow_leaks=allow_leaks,
    )
    out = out or _default_folder(dataset, split, plan)
    bar = progress_bar("evaluating targets")
    found = run_comparison(dataset, plan, out, say=print_progress, progress=bar)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found, out)


def _show(comparison: Comparison, out: Path) -> None:
    from genrec.workflows.compare import notes

    print_comparison([each.evaluation for each in comparison.entries])
    for name, reason in comparison.failures.items():
        print(f"{name} did not run: {reason}")
    for line in notes(comparison):
        print(f"note: {line}")
    print(f"full report: {out / 'report.html'}")


def _default_folder(dataset: str, split: str, plan: ComparisonConfig) -> Path:
    fitted = "-train" if plan.train_on == "train" else ""
    suffix = "" if plan.evaluate_on == "test" else f"-{plan.evaluate_on}"
    return Path("runs") / f"compare-{Path(dataset).name}-{Path(split).name}{suffix}{fitted}"
