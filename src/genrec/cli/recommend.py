"""The command `genrec recommend`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import ExcludeSeen, Json
from genrec.cli.output import (
    print_json,
    print_progress,
    print_recommendations,
    progress_bar,
)
from genrec.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrec.arrays import Mask
    from genrec.data.catalogue import By, Catalogue
    from genrec.model.genrec import GenRec
    from genrec.recommender import Influence, Recommendation


Run = Annotated[
    str, typer.Argument(help="Run folder, or ORG/NAME of a run on the Hugging Face Hub.")
]
History = Annotated[
    list[str] | None,
    typer.Option(help="Title or id of an item in the history, oldest first; repeatable."),
]
HistoryId = Annotated[
    list[str] | None,
    typer.Option(help="Id of an item in the history, oldest first; repeatable."),
]
Words = Annotated[
    str | None,
    typer.Option(help="What the user asks for, e.g. 'a light comedy from the nineties'."),
]
Rating = Annotated[
    list[float] | None,
    typer.Option(
        help="The user's rating of each item in the history, in the same order; repeatable. "
        "Ratings count if the run was trained with them."
    ),
]
User = Annotated[
    str | None,
    typer.Option(help="Id of a user in the run's data set, whose history is used."),
]
Users = Annotated[
    str | None,
    typer.Option(
        "--users",
        help="`all` recommends for every user, of the run's data set or of --log, and writes a "
        "folder of Parquet files; an interrupted job resumes.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        help="With --users all: a log with the users' histories, item ids as in training."
    ),
]
Out = Annotated[Path | None, typer.Option(help="With --users all: the output folder.")]
Engine = Annotated[
    str,
    typer.Option(help="With --users all: local, or ray for a Ray cluster (RAY_ADDRESS)."),
]
Workers = Annotated[int, typer.Option(min=1, help="With --engine ray: number of workers.")]
K = Annotated[int, typer.Option("-k", help="Number of recommendations.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Recommend only items with this title or id; repeatable."),
]
AllowId = Annotated[
    list[str] | None, typer.Option(help="Recommend only items with this id; repeatable.")
]
Block = Annotated[
    list[str] | None,
    typer.Option(help="Never recommend the item with this title or id; repeatable."),
]
BlockId = Annotated[
    list[str] | None, typer.Option(help="Never recommend the item with this id; repeatable.")
]
Where = Annotated[
    str | None,
    typer.Option(
        help="Recommend only items that meet this SQL condition on the item table, e.g. "
        "\"genres LIKE '%Comedy%'\"."
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Show the history items that changed the log-probability of each "
        "recommendation most, in nats.",
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        help="Replace the exact search by a beam search that keeps this many nodes per level."
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a run on the Hugging Face Hub.")
]


ONE_OF = (
    "Give exactly one of --history TITLE (repeatable), --history-id ID (repeatable), --user ID and "
    "--users all. With --words, none of them is needed."
)
ONLY = "--users all takes only --log, --out, --engine, --workers, -k, --exclude-seen and --json."
UNKNOWN = "note: the catalogue has nothing like these words, so they change nothing"
UNRATED = "note: --rating changes nothing, because this run was trained without ratings"
FEW = "note: only {} of the {:,} items can be recommended here"
FEW_BEAMS = "note: only {} of the generated titles can be recommended here"
REPEATED = (
    "note: the training histories often repeat items, so lists may hold items of the history; "
    "--exclude-seen leaves them out"
)


def recommend(
    run: Run,
    history: History = None,
    history_id: HistoryId = None,
    rating: Rating = None,
    words: Words = None,
    user: User = None,
    users: Users = None,
    log: Log = None,
    out: Out = None,
    engine: Engine = "local",
    workers: Workers = 1,
    k: K = 10,
    exclude_seen: ExcludeSeen = None,
    allow: Allow = None,
    allow_id: AllowId = None,
    block: Block = None,
    block_id: BlockId = None,
    where: Where = None,
    explain: Explain = False,
    width: Width = None,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Recommend the next items for a history, for one user of the run's data set, or for all."""
    if (users, out, log, engine, workers) != (None, None, None, "local", 1):
        alone = (history, history_id, rating, words, user, allow, allow_id, block, block_id)
        if any(given is not None for given in (*alone, where, width, revision)) or explain:
            raise DataError(ONLY)
        config = {"k": k, "exclude_seen": exclude_seen, "log": log}
        return _for_all(run, users, out, config, engine, workers, as_json)
    _check_one(history, history_id, user, words, k)
    from genrec.model.genrec import GenRec

    model = GenRec.from_pretrained(run, revision=revision)
    _print_notes(model, exclude_seen, words, rating)
    by: By = "either" if history is not None else "id"
    entries, ratings = _entries(model, run, history, history_id, rating, user)
    candidates = _candidates(model.catalogue, allow, allow_id, block, block_id, where)
    asked: dict[str, Any] = {"ratings": ratings, "words": words, "by": by}
    beam: dict[str, Any] = {} if width is None else {"exact": False, "width": width}
    limits: dict[str, Any] = {"exclude_seen": exclude_seen, "candidates": candidates}
    found = model.recommend(entries, k, **asked, **limits, **beam)
    if len(found) < k:
        few = FEW_BEAMS if model.config.decoding == "beam" else FEW
        print_progress(few.format(len(found), len(model.catalogue)))
    reasons = _reasons(model, entries, found, asked) if explain else None
    return (_print_found if as_json else print_recommendations)(found, reasons)


def _print_notes(
    model: GenRec, exclude_seen: bool | None, words: str | None, ratings: list[float] | None
) -> None:
    """Say that lists may repeat items, which words stand for others, and what has no effect."""
    if ratings and model.ranker.config.ratings == "none":
        print_progress(UNRATED)
    if exclude_seen is None and not model.excludes_seen:
        print_progress(REPEATED)
    if words is None:
        return
    related = [f"{word} as {near}" for word, near in model.related_words(words).items()]
    if related:
        print_progress(f"note: understood {', '.join(related)}")
    elif not model.known_words(words):
        print_progress(UNKNOWN)


def _check_one(
    history: list[str] | None,
    history_id: list[str] | None,
    user: str | None,
    words: str | None,
    k: int,
) -> None:
    given = sum(each is not None for each in (history, history_id, user))
    if given > 1 or (not given and words is None):
        raise DataError(ONE_OF)
    if k < 1:
        raise DataError(f"-k must be at least 1, got {k}.")


def _entries(
    model: GenRec,
    run: str,
    history: list[str] | None,
    history_id: list[str] | None,
    rating: list[float] | None,
    user: str | None,
) -> tuple[Sequence[str], Sequence[float | None] | None]:
    """Return the history that the options give, and its ratings."""
    from genrec.workflows.runs import user_history

    if user is not None:
        if rating:
            raise DataError("--rating belongs to --history; the data set has those of --user.")
        return user_history(model, Path(run), user)
    return history if history is not None else history_id or [], rating


def _for_all(
    run: str,
    users: str | None,
    out: Path | None,
    settings: dict[str, Any],
    engine: Any,
    workers: int,
    as_json: bool,
) -> None:
    if users != "all" or out is None:
        raise DataError("Recommendations for all users need --users all and --out FOLDER.")
    from genrec.workflows.batch_job import BatchConfig
    from genrec.workflows.everybody import recommend_all

    count = recommend_all(
        Path(run),
        out,
        BatchConfig(**settings),
        engine=engine,
        workers=workers,
        say=print_progress,
        progress=progress_bar("recommending for users"),
    )
    if as_json:
        return print_json({"users": count, "out": str(out)})
    return print(f"{count:,} users: {out}")


def _print_found(
    found: Sequence[Recommendation], reasons: Sequence[Sequence[Influence]] | None
) -> None:
    rows = [asdict(each) for each in found]
    for row, influences in zip(rows, reasons or [], strict=False):
        row["because"] = [asdict(each) for each in influences]
    print_json(rows)


def _reasons(
    model: GenRec,
    entries: Sequence[str],
    found: Sequence[Recommendation],
    asked: dict[str, Any],
) -> list[list[Influence]]:
    ids = model.catalogue.item_ids
    names = [ids[item] for item in model.catalogue.indices(entries, by=asked["by"])]
    return model.explain(names, [each.item_id for each in found], **{**asked, "by": "id"})


def _candidates(
    catalogue: Catalogue,
    allow: list[str] | None,
    allow_id: list[str] | None,
    block: list[str] | None,
    block_id: list[str] | None,
    where: str | None,
) -> Mask:
    """Return the items that the options allow, bool [items]."""
    candidates = catalogue.mask(block=block or (), where=where)
    candidates &= catalogue.mask(block=block_id or (), by="id")
    if allow is not None or allow_id is not None:
        candidates &= catalogue.mask(allow=allow or ()) | catalogue.mask(
            allow=allow_id or (), by="id"
        )
    return candidates
