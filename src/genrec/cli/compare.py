"""`genrec compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import Json, Nll, Seed, Users
from genrec.cli.output import numbers, print_comparison, print_json, progress_bar


def compare(
    dataset: Annotated[str, typer.Argument(help="Known name or prepared folder.")],
    models: Annotated[
        str,
        typer.Option(help="Comma-separated: baselines, forms of GenRec, run folders; or `all`."),
    ] = "popularity,itemknn,ease,cooccurrence,pooled,sasrec,genrec",
    out: Annotated[
        Path | None, typer.Option(help="Folder; a comparison cut off there goes on.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="leave-last-out, global-time, or a folder with train, valid, test."),
    ] = "leave-last-out",
    train_on: Annotated[
        str, typer.Option(help="train+valid (all before the test targets) or train.")
    ] = "train+valid",
    evaluate_on: Annotated[
        str, typer.Option(help="test, or valid: to choose by, one item earlier.")
    ] = "test",
    users: Users = None,
    seeds: Annotated[int, typer.Option(help="Runs of each model that depends on a seed.")] = 1,
    minutes: Annotated[float, typer.Option(help="Training of each GenRec and P5.")] = 5.0,
    cutoffs: Annotated[str, typer.Option("--k", help="Cut-offs.")] = "5,10",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the GenRecs as key=value.")
    ] = None,
    nll: Nll = False,
    reference: Annotated[
        str | None, typer.Option(help="Model the others are paired with; else the best one.")
    ] = None,
    hourly_cost: Annotated[
        float | None, typer.Option(help="Of an hour on this machine, for costs per 1,000.")
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Go on where data or split leak.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare models on one split: tables, intervals, slices, leaks, costs, one report."""
    from genrec.config import parse_assignments
    from genrec.workflows.compare import notes
    from genrec.workflows.compare import run_comparison as run
    from genrec.workflows.named_models import ALL
    from genrec.workflows.plan import ComparisonConfig

    plan = ComparisonConfig(
        models=ALL if models == "all" else tuple(filter(None, models.split(","))),
        split=split,
        train_on=train_on,
        evaluate_on=evaluate_on,
        k=numbers(cutoffs, "--k"),
        users=users,
        seed=seed,
        seeds=seeds,
        minutes=minutes,
        settings=parse_assignments(assignments or []),
        nll=nll,
        reference=reference,
        hourly_cost=hourly_cost,
        allow_leaks=allow_leaks,
    )
    asked = "" if evaluate_on == "test" else f"-{evaluate_on}"
    out = out or Path("runs") / f"compare-{Path(dataset).name}-{Path(split).name}{asked}"
    progress = progress_bar("evaluating")
    found = run(
        dataset,
        plan,
        out,
        say=lambda line: print(line, file=sys.stderr, flush=True),
        progress=progress,
    )
    if as_json:
        return print_json(found.to_json())
    print_comparison([each.evaluation for each in found.entries])
    for line in notes(found):
        print(f"note: {line}")
    print(f"{out / 'report.html'} shows it all")
    return None
