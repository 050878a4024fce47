"""The commands `genrec serve`, `keys`, `events export` and `events delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import Store, parse_assignments, split_names
from genrec.errors import GenRecError

if TYPE_CHECKING:
    from genrec.serving.events import EventStore


Run = Annotated[Path, typer.Argument(help="Run folder.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
ServedStore = Annotated[
    str | None,
    typer.Option(
        help="SQLAlchemy URL of the event store; default: a SQLite file beside the run folder."
    ),
]
ApiKeys = Annotated[
    Path | None,
    typer.Option(help="File with the hashes of the allowed API keys (see `genrec keys`)."),
]
Workers = Annotated[
    int, typer.Option(min=1, help="Number of worker processes; each one loads its own model.")
]
Engine = Annotated[
    str,
    typer.Option(
        help="local, or ray for Ray Serve, where the workers are replicas (the cluster that "
        "RAY_ADDRESS names, or a local one)."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any limit of the service as key=value, e.g. max_k=50; repeatable."),
]


def serve(
    run: Run,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    store: ServedStore = None,
    api_keys: ApiKeys = None,
    workers: Workers = 1,
    engine: Engine = "local",
    assignments: Assignments = None,
) -> None:
    """Serve a run over HTTP: a page at /, the API under /v1 and its documentation at /docs."""
    try:
        from genrec.serving.hangup import note_hangups

        note_hangups()  # the next import takes seconds
        from genrec.serving.server import serve as start
    except ImportError as error:
        raise _without_serving(error) from None

    start(
        run,
        host=host,
        port=port,
        store=store,
        api_keys=api_keys,
        workers=workers,
        engine=engine,
        limits=parse_assignments(assignments or []),
    )


def keys() -> None:
    """Make an API key and print it once, with the hash to add to the file for --api-keys."""
    from genrec.serving.security import key_hash, new_key

    key = new_key()
    print(f"key for the client:              {key}")
    print(f"line for the --api-keys file:    {key_hash(key)}")


def events_export(
    store: Store,
    out: Annotated[Path, typer.Option(help="Log file to write, .parquet or .csv.")],
    since: Annotated[
        float | None,
        typer.Option(help="Export only events from this time on, in seconds since 1970 (UTC)."),
    ] = None,
    without: Annotated[
        str, typer.Option(help="Comma-separated kinds of events to leave out, or `none`.")
    ] = "dislike,hide",
) -> None:
    """Export the stored events as a log that `genrec prepare` reads, e.g. for retraining."""
    kinds = [] if without == "none" else split_names(without)
    rows = _event_store(store).export(out, since=since, without=kinds)
    left_out = f" (without the kinds {', '.join(kinds)})" if kinds else ""
    print(f"{out}: {rows} events{left_out}; next: genrec prepare {out} --items ITEMS --out DATA")


def events_delete(store: Store, user: Annotated[str, typer.Option(help="Id of the user.")]) -> None:
    """Delete all stored events of a user."""
    print(f"deleted {_event_store(store).delete_user(user)} events of user {user}")


def _event_store(url: str) -> EventStore:
    try:
        from genrec.serving.events import EventStore
    except ImportError as error:
        raise _without_serving(error) from None
    return EventStore(url, create=False)


def _without_serving(error: ImportError) -> GenRecError:
    return GenRecError(
        f'This command needs the optional dependencies "serve" ({error.name} is missing): '
        'pip install "genrec[serve]".'
    )
