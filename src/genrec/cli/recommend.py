"""`genrec recommend`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import Json
from genrec.cli.output import print_json, print_recommendations
from genrec.errors import DataError


def recommend(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    history: Annotated[
        list[str] | None, typer.Option(help="Title or item id, oldest first; repeatable.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User id of the run's data set.")] = None,
    k: Annotated[int, typer.Option("-k", help="Number of recommendations.")] = 10,
    include_seen: Annotated[
        bool, typer.Option(help="Items of the history may come again.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="Only these titles or ids; repeatable.")
    ] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Never these titles or ids; repeatable.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition on the item table, e.g. \"genres LIKE '%Comedy%'\"."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Which items of the history moved each item.")
    ] = False,
    width: Annotated[
        int | None, typer.Option(help="Beam search of this width instead of the exact search.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items after a history of titles, or for a user of the data set."""
    if (history is None) == (user is None):
        raise DataError("Give either --history TITLE (repeatable) or --user ID.")
    if k < 1:
        raise DataError(f"-k must be at least 1, got {k}.")
    from genrec.model.genrec import GenRec
    from genrec.workflows.runs import user_history

    model = GenRec.from_pretrained(run)
    entries = (history if user is None else user_history(model, run, user)) or []
    found = model.recommend(
        entries,
        k,
        exclude_seen=not include_seen,
        candidates=model.catalogue.mask(allow=allow, block=block or (), where=where),
        exact=width is None,
        width=0 if width is None else width,
    )
    reasons = model.explain(entries, [each.title for each in found]) if explain else None
    if as_json:
        rows = [asdict(each) for each in found]
        for row, influences in zip(rows, reasons or [], strict=False):
            row["because"] = [asdict(each) for each in influences]
        return print_json(rows)
    return print_recommendations(found, reasons)
