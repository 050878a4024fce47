"""`genrec serve`, `keys`, and `events`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import Store
from genrec.errors import GenRecError

if TYPE_CHECKING:
    from genrec.serving.events import EventStore


def serve(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to bind to.")] = 8000,
    store: Annotated[
        str | None,
        typer.Option(help="Event store, a SQLAlchemy URL; SQLite beside the run if not given."),
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File of key hashes (`genrec keys`).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes, each with a model of its own.")] = 1,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any limit as key=value; repeatable.")
    ] = None,
) -> None:
    """Serve a run: a page at /, an API under /v1 that /docs describes."""
    try:
        from genrec.serving.server import serve as start
    except ImportError as error:
        raise _without_serving(error) from None
    from genrec.config import parse_assignments

    start(
        run,
        host=host,
        port=port,
        store=store,
        api_keys=api_keys,
        workers=workers,
        limits=parse_assignments(assignments or []),
    )


def keys() -> None:
    """Make an API key: printed once, with the line for the file of hashes."""
    from genrec.serving.security import key_hash, new_key

    key = new_key()
    print(f"key, for the client:        {key}")
    print(f"line, for --api-keys FILE:  {key_hash(key)}")


def events_export(
    store: Store,
    out: Annotated[Path, typer.Option(help="Log to write, .parquet or .csv.")],
    since: Annotated[float | None, typer.Option(help="Only from this time on, seconds.")] = None,
) -> None:
    """Write the events as a log that `genrec prepare` reads: retraining closes the circle."""
    rows = _event_store(store).export(out, since=since)
    print(f"{out}: {rows} events; next: genrec prepare {out} --items ITEMS --out DATA")


def events_delete(
    store: Store, user: Annotated[str, typer.Option(help="User whose events go.")]
) -> None:
    """Remove everything that is stored of a user."""
    print(f"{_event_store(store).delete_user(user)} events of {user} removed")


def _event_store(url: str) -> EventStore:
    try:
        from genrec.serving.events import EventStore
    except ImportError as error:
        raise _without_serving(error) from None
    return EventStore(url, create=False)


def _without_serving(error: ImportError) -> GenRecError:
    return GenRecError(
        f'This needs the extra "serve" ({error.name} is missing): pip install "genrec[serve]".'
    )
