"""The event store: what users did, in an SQLite or PostgreSQL database."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util.exc import CommandError
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from genrec.data.event_kinds import DISLIKES
from genrec.errors import ConfigError, DataError
from genrec.files import replacing
from genrec.serving.problems import StoreError

T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"
KEY_SECONDS = 86_400
"""Lifetime of an idempotency key in seconds."""
BUSY_SECONDS = 10
"""Maximum time in seconds that SQLite waits for another writer."""
CONFLICTS = 5
"""Maximum number of attempts of a write that conflicts with another process."""
EXPORT_ROWS = 50_000
"""Rows that an export reads from the database at once."""

METADATA = sa.MetaData()
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("user_id", sa.String(256), nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("timestamp", sa.Double, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("rating", sa.Double),
    sa.Column("event_id", sa.String(256)),
    sa.UniqueConstraint("user_id", "event_id"),
    sa.Index("events_by_user", "user_id", "timestamp", "id"),
)
KEYS = sa.Table(
    "idempotency_keys",
    METADATA,
    sa.Column("user_id", sa.String(256), primary_key=True),
    sa.Column("key", sa.String(256), primary_key=True),
    sa.Column("body", sa.String(64), nullable=False),
    sa.Column("accepted", sa.Integer, nullable=False),
    sa.Column("duplicates", sa.Integer, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
)


class IdempotencyError(DataError):
    """An idempotency key was used again with other events."""


@dataclass(frozen=True)
class Event:
    """One action of a user on an item.

    Attributes:
        user_id: the user.
        item_id: the item.
        timestamp: time of the action, in seconds since 1970.
        kind: kind of the action, such as ``"view"`` or ``"like"``.
        rating: the rating, or ``None``.
        event_id: the client's id of the event, unique per user, or ``None``.
    """

    user_id: str
    item_id: str
    timestamp: float
    kind: str = "view"
    rating: float | None = None
    event_id: str | None = None


class EventStore:
    """A database of events.

    When a method returns, its changes are committed and on the disk. A store may be used by several
    threads, and a database by several processes.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open a database and migrate it to the schema of this version.

        Args:
            url: SQLAlchemy URL, e.g. ``sqlite:///events.db`` or ``postgresql+psycopg://…``.
            create: create the file of a SQLite database if it is missing.

        Raises:
            ConfigError: The URL is invalid, or its driver is not installed.
            StoreError: The database cannot be reached, or a newer version of GenRec wrote it.
        """
        self._engine = _engine(url, create)
        # An in-memory database has one connection, which one thread at a time may use.
        shared = isinstance(self._engine.pool, sa.StaticPool)
        self._alone = threading.RLock() if shared else nullcontext()
        self._try(lambda: _migrate(self._engine))

    def append(
        self, events: Sequence[Event], *, idempotency_key: str | None = None
    ) -> tuple[int, int]:
        """Store events of one user in one transaction.

        Args:
            events: events of the same user; one whose ``event_id`` is stored already is skipped.
            idempotency_key: the client's key of this call. If the key was used before, nothing is
                stored and the earlier result is returned.

        Returns:
            The number of stored events and the number of skipped duplicates.

        Raises:
            IdempotencyError: The key was used before with other events.
            StoreError: The database cannot be written.
        """
        if not events:
            return 0, 0
        body = _digest(events)

        def write(connection: sa.Connection) -> tuple[int, int]:
            user = events[0].user_id
            if idempotency_key is not None:
                known = _claim(connection, user, idempotency_key, body)
                if known is not None:
                    return known
            accepted = _insert(connection, events)
            result = accepted, len(events) - accepted
            if idempotency_key is not None:
                where = (KEYS.c.user_id == user) & (KEYS.c.key == idempotency_key)
                values = dict(zip(("accepted", "duplicates"), result, strict=True))
                connection.execute(sa.update(KEYS).where(where).values(values))
            return result

        return self._write(write)

    def history(
        self, user_id: str, limit: int = 200, *, without: Sequence[str] = ()
    ) -> list[Event]:
        """Return the latest events of a user, oldest first.

        Args:
            user_id: the user.
            limit: maximum number of events.
            without: kinds of events to leave out.
        """
        columns = [EVENTS.c[name] for name in Event.__dataclass_fields__]
        latest = (
            sa.select(*columns)
            .where(EVENTS.c.user_id == user_id, EVENTS.c.kind.not_in(without))
            .order_by(EVENTS.c.timestamp.desc(), EVENTS.c.id.desc())
            .limit(limit)
        )

        def read() -> list[Event]:
            with self._engine.connect() as connection:
                return [Event(*row) for row in connection.execute(latest)][::-1]

        return self._try(read)

    def delete_user(self, user_id: str) -> int:
        """Delete all data of a user and return the number of deleted events."""

        def write(connection: sa.Connection) -> int:
            connection.execute(sa.delete(KEYS).where(KEYS.c.user_id == user_id))
            return connection.execute(sa.delete(EVENTS).where(EVENTS.c.user_id == user_id)).rowcount

        return self._write(write)

    def export(
        self, path: Path, *, since: float | None = None, without: Sequence[str] = DISLIKES
    ) -> int:
        """Write the events as a log that ``genrec prepare`` reads.

        Args:
            path: file to write, .parquet or .csv.
            since: export only events with this timestamp or a later one, in seconds since 1970.
            without: kinds of events to leave out; a user's history does not contain dislikes.

        Returns:
            The number of events.

        Raises:
            DataError: The file has another suffix, or ``since`` is NaN.
        """
        if since is not None and math.isnan(since):
            raise DataError("since is no number; give seconds since 1970.")
        if path.suffix not in (".parquet", ".csv"):
            raise DataError(f"{path}: events are exported to a .parquet or a .csv file; rename it.")
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.concat([_empty(), *self._try(lambda: list(self._parts(since, without)))])
        with replacing(path) as partial:
            frame.write_csv(partial) if path.suffix == ".csv" else frame.write_parquet(partial)
        return frame.height

    def _parts(self, since: float | None, without: Sequence[str]) -> Iterator[pl.DataFrame]:
        columns = [EVENTS.c[name] for name in _empty().columns]
        query = sa.select(*columns).where(EVENTS.c.kind.not_in(without)).order_by(EVENTS.c.id)
        if since is not None:
            query = query.where(EVENTS.c.timestamp >= since)
        with self._engine.connect().execution_options(yield_per=EXPORT_ROWS) as connection:
            for rows in connection.execute(query).partitions():
                yield pl.DataFrame([tuple(row) for row in rows], _empty().schema, orient="row")

    def ping(self) -> None:
        """Check that the database answers.

        Raises:
            StoreError: The database does not answer.
        """

        def ask() -> None:
            with self._engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))

        self._try(ask)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _write(self, write: Callable[[sa.Connection], T]) -> T:
        """Run a transaction and retry it if it conflicts with another one."""

        def attempt() -> T:
            with self._engine.begin() as connection:
                return write(connection)

        for left in reversed(range(CONFLICTS)):
            try:
                return self._try(attempt, passing=sa.exc.OperationalError if left else ())
            except sa.exc.OperationalError:
                time.sleep(0.05)
        raise AssertionError("the last attempt raises an error")

    def _try(self, call: Callable[[], T], passing: Any = ()) -> T:
        try:
            with self._alone:
                return call()
        except passing:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise StoreError(f"event store {self._engine.url!r}: {reason}") from None


def _engine(url: str, create: bool) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed, create)
        return sa.create_engine(
            parsed, pool_pre_ping=True, pool_size=10, connect_args={"connect_timeout": 10}
        )
    except (ArgumentError, NoSuchModuleError, ImportError, TypeError) as error:
        hint = 'pip install "genrec[postgres]" for postgresql+psycopg://…'
        if "://" not in url:
            hint = f"a file is named as sqlite:///{url}"
        raise ConfigError(f"the event store's URL cannot be used ({error}); {hint}") from None


def _sqlite(url: sa.URL, create: bool) -> sa.Engine:
    """Create an engine for SQLite with a write-ahead log and durable commits."""
    options: dict[str, Any] = {}
    if not create and not Path(url.database or "").is_file():
        raise StoreError(f"event store {url!r}: no such file; check the URL given by --store.")
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"event store {url!r}: {error.strerror}") from None
    else:  # with one connection per thread, each thread would get its own in-memory database
        options["poolclass"] = sa.StaticPool
    arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=arguments, **options)

    @sa.event.listens_for(engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _migrate(engine: sa.Engine) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    try:
        with engine.begin() as connection:
            # The lock serialises the migrations of processes that start at the same time.
            postgres = engine.dialect.name == "postgresql"
            turn = "SELECT pg_advisory_xact_lock(7201967)" if postgres else "BEGIN IMMEDIATE"
            connection.execute(sa.text(turn))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"event store {engine.url!r}: the database was made by a newer GenRec ({error}); "
            "install that version."
        ) from None


def _insert(connection: sa.Connection, events: Sequence[Event]) -> int:
    """Insert events that are not stored yet and return their number."""
    now = time.time()
    rows = [{**asdict(event), "received_at": now} for event in events]
    insert = _dialect(connection).insert(EVENTS).on_conflict_do_nothing().returning(EVENTS.c.id)
    return sum(connection.scalar(insert.values(row)) is not None for row in rows)


def _claim(connection: sa.Connection, user: str, key: str, body: str) -> tuple[int, int] | None:
    """Reserve an idempotency key.

    Returns:
        ``None`` if the key is new, else the result of its first use.
    """
    connection.execute(sa.delete(KEYS).where(KEYS.c.received_at < time.time() - KEY_SECONDS))
    row = {"user_id": user, "key": key, "body": body, "accepted": 0, "duplicates": 0}
    row["received_at"] = time.time()
    insert = _dialect(connection).insert(KEYS).on_conflict_do_nothing().returning(KEYS.c.key)
    if connection.scalar(insert.values(row)) is not None:
        return None
    where = (KEYS.c.user_id == user) & (KEYS.c.key == key)
    known = connection.execute(sa.select(KEYS).where(where)).one()
    if known.body != body:
        raise IdempotencyError(
            f"The idempotency key {key!r} was used before with other events; use a new key."
        )
    return int(known.accepted), int(known.duplicates)


def _dialect(connection: sa.Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _digest(events: Sequence[Event]) -> str:
    """Hash the fields that the client sets.

    Timestamps are left out, because the service sets missing ones anew at each attempt.
    """
    rows = [[e.user_id, e.item_id, e.kind, e.rating, e.event_id] for e in events]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _empty() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Float64,
            "rating": pl.Float64,
            "kind": pl.String,
        }
    )
