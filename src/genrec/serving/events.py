"""What users did, in a database: SQLite at hand, PostgreSQL by its URL."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
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

from genrec.errors import ConfigError, DataError
from genrec.files import replacing
from genrec.serving.problems import StoreError

T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"
KEY_SECONDS = 86_400
"""How long an idempotency key is remembered."""
BUSY_SECONDS = 10
"""How long SQLite waits for another writer."""
CONFLICTS = 5
"""Tries of a write that another process got in the way of."""
EXPORT_ROWS = 50_000

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
    """An idempotency key came again with other events."""


@dataclass(frozen=True)
class Event:
    """One thing that a user did; ``timestamp`` in seconds, ``event_id`` unique for the user."""

    user_id: str
    item_id: str
    timestamp: float
    kind: str = "view"
    rating: float | None = None
    event_id: str | None = None


class EventStore:
    """Events by user. What a method has returned from is committed and on the disk.

    Safe for threads and for several processes on one database.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Open a database and bring it to this version's form.

        Args:
            url: of SQLAlchemy, e.g. ``sqlite:///events.db`` or ``postgresql+psycopg://…``.
            create: make the file of a SQLite database that is not there.

        Raises:
            ConfigError: the URL is none, or its driver is not installed.
            StoreError: the database cannot be reached, or belongs to a newer version.
        """
        self._engine = _engine(url)
        file = self._engine.url.database
        if not create and self._engine.dialect.name == "sqlite" and not Path(file or "").is_file():
            raise StoreError(f"event store {self._engine.url!r}: there is no such file.")
        self._try(lambda: _migrate(self._engine))

    def append(
        self, events: Sequence[Event], *, idempotency_key: str | None = None
    ) -> tuple[int, int]:
        """Store events of one user, all or none; those whose ``event_id`` is known are left out.

        Returns:
            How many were stored and how many were known. An idempotency key that came before
            returns what it returned then, and nothing is stored.

        Raises:
            IdempotencyError: the key came with other events.
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
        """A user's latest events, oldest first, but for those of some kinds."""
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
        """Remove everything that is stored of a user; returns the number of events."""

        def write(connection: sa.Connection) -> int:
            connection.execute(sa.delete(KEYS).where(KEYS.c.user_id == user_id))
            return connection.execute(sa.delete(EVENTS).where(EVENTS.c.user_id == user_id)).rowcount

        return self._write(write)

    def export(self, path: Path, *, since: float | None = None) -> int:
        """Write a log that ``genrec prepare`` reads, Parquet or CSV; returns its rows.

        Args:
            since: only events with this timestamp or a later one.

        Raises:
            DataError: another suffix than .parquet or .csv.
        """
        if path.suffix not in (".parquet", ".csv"):
            raise DataError(f"{path}: events go to a .parquet or a .csv file.")
        frame = pl.concat([_empty(), *self._try(lambda: list(self._parts(since)))])
        with replacing(path) as partial:
            frame.write_csv(partial) if path.suffix == ".csv" else frame.write_parquet(partial)
        return frame.height

    def _parts(self, since: float | None) -> Iterator[pl.DataFrame]:
        columns = [EVENTS.c[name] for name in _empty().columns]
        query = sa.select(*columns).order_by(EVENTS.c.id)
        if since is not None:
            query = query.where(EVENTS.c.timestamp >= since)
        with self._engine.connect().execution_options(yield_per=EXPORT_ROWS) as connection:
            for rows in connection.execute(query).partitions():
                yield pl.DataFrame([tuple(row) for row in rows], _empty().schema, orient="row")

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            StoreError: there is none.
        """

        def ask() -> None:
            with self._engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))

        self._try(ask)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _write(self, write: Callable[[sa.Connection], T]) -> T:
        """Run a transaction, again if another one got in its way."""

        def attempt() -> T:
            with self._engine.begin() as connection:
                return write(connection)

        for left in reversed(range(CONFLICTS)):
            try:
                return self._try(attempt, passing=sa.exc.OperationalError if left else ())
            except sa.exc.OperationalError:
                time.sleep(0.05)
        raise AssertionError("the last try raises")

    def _try(self, call: Callable[[], T], passing: Any = ()) -> T:
        try:
            return call()
        except passing:
            raise
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise StoreError(f"event store {self._engine.url!r}: {reason}") from None


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return sa.create_engine(
            parsed, pool_pre_ping=True, pool_size=10, connect_args={"connect_timeout": 10}
        )
    except (ArgumentError, NoSuchModuleError, ImportError, TypeError) as error:
        hint = 'pip install "genrec[postgres]" for postgresql+psycopg://…'
        raise ConfigError(f"the event store's URL cannot be used ({error}); {hint}") from None


def _sqlite(url: sa.URL) -> sa.Engine:
    """Write-ahead log, and a commit is on the disk before it returns."""
    options: dict[str, Any] = {}
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"event store {url!r}: {error.strerror}") from None
    else:  # one connection, or each thread would have a database of its own
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
            # Processes that start together take turns.
            postgres = engine.dialect.name == "postgresql"
            turn = "SELECT pg_advisory_xact_lock(7201967)" if postgres else "BEGIN IMMEDIATE"
            connection.execute(sa.text(turn))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"event store {engine.url!r}: was made by a newer GenRec ({error}); install that."
        ) from None


def _insert(connection: sa.Connection, events: Sequence[Event]) -> int:
    """Insert what is not known; returns how many rows that were."""
    now = time.time()
    rows = [{**asdict(event), "received_at": now} for event in events]
    insert = _dialect(connection).insert(EVENTS).on_conflict_do_nothing().returning(EVENTS.c.id)
    return sum(connection.scalar(insert.values(row)) is not None for row in rows)


def _claim(connection: sa.Connection, user: str, key: str, body: str) -> tuple[int, int] | None:
    """Take a key: None if it was free, or what it returned when it came before."""
    connection.execute(sa.delete(KEYS).where(KEYS.c.received_at < time.time() - KEY_SECONDS))
    row = {"user_id": user, "key": key, "body": body, "accepted": 0, "duplicates": 0}
    row["received_at"] = time.time()
    insert = _dialect(connection).insert(KEYS).on_conflict_do_nothing().returning(KEYS.c.key)
    if connection.scalar(insert.values(row)) is not None:
        return None
    where = (KEYS.c.user_id == user) & (KEYS.c.key == key)
    known = connection.execute(sa.select(KEYS).where(where)).one()
    if known.body != body:
        raise IdempotencyError(f"The idempotency key {key!r} came before with other events.")
    return int(known.accepted), int(known.duplicates)


def _dialect(connection: sa.Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _digest(events: Sequence[Event]) -> str:
    """Of what the client decides; times that it leaves to us may differ from try to try."""
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
