"""The command `genrec study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import Json, parse_assignments
from genrec.cli.output import print_json, print_progress, print_table

if TYPE_CHECKING:
    from genrec.studies.result import StudyResult

Name = Annotated[
    str,
    typer.Argument(
        help="The study: prompts, titles, lora, backbones, signals, size, resources or words."
    ),
]
Data = Annotated[str, typer.Option(help="Name of a known data set or a prepared folder.")]
Budget = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Time limit in minutes. Arms that would not end in time are skipped; the same command "
        "continues with them.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Output folder; an interrupted study resumes from it. Default: a folder under runs/ "
        "named after study and data set."
    ),
]
Targets = Annotated[int | None, typer.Option(min=1, help="Training targets of each arm.")]
Users = Annotated[
    int | None,
    typer.Option(min=1, help="Number of held-out targets on which the arms are measured."),
]
Positions = Annotated[
    int | None, typer.Option(min=1, help="Held-out positions of each user before the test item.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds for each arm.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of GenRec for all arms as key=value; repeatable."),
]
Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        help="Run only this arm; repeatable. A name that does not exist lists all. Default: all.",
    ),
]


def study(
    name: Name,
    dataset: Data = "ml-100k",
    budget: Budget = None,
    out: Out = None,
    targets: Targets = None,
    users: Users = None,
    positions: Positions = None,
    seeds: Seeds = 1,
    assignments: Assignments = None,
    arm: Arms = None,
    as_json: Json = False,
) -> None:
    """Run an experiment on one of the open questions: variants of GenRec on the same targets."""
    from genrec.studies.registry import study_named
    from genrec.studies.runner import run_study
    from genrec.studies.study import StudyConfig

    given: dict[str, Any] = {"targets": targets, "users": users, "positions": positions}
    config = StudyConfig(
        dataset,
        seeds=seeds,
        settings=parse_assignments(assignments or []),
        arms=tuple(arm or ()),
        **{
            **study_named(name).defaults,
            **{key: value for key, value in given.items() if value is not None},
        },
    )
    out = out or Path("runs") / f"study-{name}-{Path(dataset).name}"
    found = run_study(name, config, out, minutes=budget, say=print_progress)
    if as_json:
        return print_json(found.to_json())
    return _show(found, out)


def _show(found: StudyResult, out: Path) -> None:
    header = ["arm", "NLL", "gain", "NDCG@10", "gain", "seconds"]
    rows = []
    for each in found.entries:
        cells = [each.arm.name]
        for name, places in (("nll", 3), ("NDCG@10", 4)):
            value, gain = each.value(name), each.differences.get(name)
            cells.append("–" if value is None else f"{value:.{places}f}")
            cells.append(
                ""
                if gain is None
                else f"{gain[0]:+.{places}f} [{gain[1]:+.{places}f}, {gain[2]:+.{places}f}]"
            )
        rows.append([*cells, f"{each.values['seconds']:.0f}"])
    print_table(header, rows)
    for name, reason in found.skipped.items():
        print(f"{name}: {reason}")
    print(f"full report: {out / 'report.html'}")
