"""The commands `genrec train`, `evaluate`, `export` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from genrec.cli.options import (
    Dataset,
    ExcludeSeen,
    Json,
    Nll,
    Restart,
    Seed,
    Users,
    parse_assignments,
    split_names,
)
from genrec.cli.output import (
    print_comparison,
    print_json,
    print_likelihood,
    print_paired,
    print_progress,
    print_recommendations,
    progress_bar,
)

Out = Annotated[Path, typer.Option(help="Run folder to write; an interrupted run resumes from it.")]
Recipe = Annotated[
    str,
    typer.Option(help="Default settings: default, or paper for the settings of arXiv 2307.00457."),
]
Prior = Annotated[
    str | None,
    typer.Option(
        help="Prior that the language model corrects: auto, pooled, transitions, "
        "cooccurrence, popularity or none."
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Language model: a known name, a Hugging Face Hub id or a folder."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="Maximum time of the training steps in minutes, evaluation steps included. Loading, "
        "fitting the prior, and measuring the likelihood before and after come on top."
    ),
]
Epochs = Annotated[
    float | None, typer.Option(help="Maximum number of passes over the training data.")
]
InitFrom = Annotated[
    str | None,
    typer.Option(
        help="Run folder, published adapter or Hugging Face Hub id with whose weights training "
        "starts; with --epochs 0 they are used as they are."
    ),
]
Split = Annotated[
    str,
    typer.Option(
        help="How to split the data: leave-last-out, global-time, or a folder with the tables "
        "train, valid and test. Options follow a comma, as in global-time,target=last."
    ),
]
FuseOn = Annotated[
    str,
    typer.Option(
        help="Data that the experts know in the end: train, or train+valid, which refits them "
        "after the weights are found, for service and for numbers like published ones."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting of the model as key=value; repeatable."),
]


def train(
    dataset: Dataset,
    out: Out,
    recipe: Recipe = "default",
    prior: Prior = None,
    backbone: Backbone = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    init_from: InitFrom = None,
    split: Split = "leave-last-out",
    assignments: Assignments = None,
    restart: Restart = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a model on a data set and write a run folder."""
    from genrec.processes import is_main
    from genrec.workflows.runs import train_run

    flags = {"prior": prior, "backbone": backbone, "minutes": minutes}
    flags |= {"epochs": epochs, "init_from": init_from}
    settings: dict[str, Any] = {k: v for k, v in flags.items() if v is not None}
    settings |= {"seed": seed} if seed else {}
    settings |= {"recipe": recipe, **parse_assignments(assignments or [], settings)}
    if (out / "genrec.json").is_file() and is_main():
        print_progress(f"note: {out} holds a trained model, which is replaced when training ends")
    model = train_run(dataset, out, settings, split=split, restart=restart)
    if not is_main():  # only the main process of a distributed run prints
        return None
    if as_json:
        return print_json({"run": str(out), **model.info})
    print_likelihood(model.info)
    print(f"{out}: trained; next: genrec evaluate {out}")
    return None


def fuse(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    experts: Annotated[
        str | None,
        typer.Option(
            help="Experts of the prior, separated by commas, e.g. transitions,text,sasrec; those "
            "of the run if omitted. New ones are fitted."
        ),
    ] = None,
    train_on: FuseOn = "train",
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write; the run itself if omitted.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the experts of a run's prior and fit all weights on validation users, in minutes.

    The language model is not trained again.
    """
    from genrec.workflows.fuse import fuse_run

    names = None if experts is None else split_names(experts)
    model = fuse_run(run, out or run, experts=names, train_on=train_on)
    if as_json:
        return print_json({"run": str(out or run), **model.info})
    print(f"{out or run}: fused; next: genrec evaluate {out or run}")
    return None


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    users: Users = None,
    exclude_seen: ExcludeSeen = None,
    nll: Nll = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a run and baselines without a language model on its test users; write a report."""
    from genrec.workflows.runs import evaluate_run

    evaluations = evaluate_run(
        run,
        users=users,
        seed=seed,
        exclude_seen=exclude_seen,
        nll=nll,
        say=print_progress,
        progress=progress_bar("evaluating targets"),
    )
    if as_json:
        return print_json({each.name: each.to_json() for each in evaluations})
    print_comparison(evaluations)
    return print_paired(evaluations)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
) -> None:
    """Export the language model with its adapter merged in, as a transformers checkpoint."""
    from genrec.workflows.runs import export_run

    context_layers = export_run(run, out)
    if context_layers:
        print(
            f"Note: in this run only the last {context_layers} layers see a history, as one "
            "position for each title. Plain transformers runs all layers over all tokens, so its "
            "scores are not the run's."
        )
    print(f'{out}: exported; load it with AutoModelForCausalLM.from_pretrained("{out}")')


def demo(
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(help="Time of the training steps in minutes.")] = 3.0,
    users: Users = 400,
    seed: Seed = 0,
    restart: Restart = False,
) -> None:
    """Download MovieLens-100K and SmolLM2-135M, train, evaluate and recommend (5 minutes)."""
    from genrec.workflows.demo import run_demo

    result = run_demo(
        out,
        minutes=minutes,
        users=users,
        seed=seed,
        restart=restart,
        say=lambda line: print(line, flush=True),
        progress=progress_bar("evaluating targets"),
    )
    print_comparison(result.evaluations)
    print_likelihood(result.info)
    print(f"\nAfter {', '.join(result.history)}:")
    print_recommendations(result.recommendations)
    minutes_taken = sum(result.stages.values()) / 60
    print(f"\nfull report: {out / 'report.html'}; total time {minutes_taken:.1f} minutes")
    print(f'next: genrec recommend {out} --history "Fargo (1996)" -k 5')
