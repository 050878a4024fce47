from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from conftest import make_dataset
from genrec.data.dataset import Dataset
from genrec.data.interactions import read_interactions
from genrec.errors import ConfigError, DataError
from genrec.serving.events import Event, EventStore, IdempotencyError, StoreError

WRITER = """
import sys
from genrec.serving.events import Event, EventStore
store = EventStore(sys.argv[1])
for number in range(1000):
    store.append([Event(sys.argv[2], f"item {number}", float(number))])
    print(number, flush=True)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'events.db'}"
    server: Any = request.getfixturevalue("postgres")
    return str(server.url)


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    opened = EventStore(url)
    yield opened
    opened.close()


@pytest.fixture
def user() -> str:
    return uuid.uuid4().hex  # the server is shared by all tests


def test_a_history_is_in_the_order_of_time(store: EventStore, user: str) -> None:
    assert store.append([Event(user, "b", 2.0), Event(user, "a", 1.0, "like", 5.0)]) == (2, 0)
    store.append([Event(user, "c", 2.0)])
    assert [each.item_id for each in store.history(user)] == ["a", "b", "c"]
    assert [each.item_id for each in store.history(user, 2)] == ["b", "c"]
    assert store.history(user)[0] == Event(user, "a", 1.0, "like", 5.0)
    assert store.history(f"{user} not") == []


def test_an_event_id_is_stored_once(store: EventStore, user: str) -> None:
    event = Event(user, "a", 1.0, event_id="once")
    assert store.append([event]) == (1, 0)
    assert store.append([event, Event(user, "b", 2.0)]) == (1, 1)
    assert store.append([Event(f"{user} other", "a", 1.0, event_id="once")]) == (1, 0)
    assert len(store.history(user)) == 2


def test_an_idempotency_key_stores_once_and_answers_alike(store: EventStore, user: str) -> None:
    events = [Event(user, "a", 1.0), Event(user, "b", 2.0)]
    assert store.append(events, idempotency_key="k") == (2, 0)
    assert store.append(events, idempotency_key="k") == (2, 0)
    assert len(store.history(user)) == 2
    with pytest.raises(IdempotencyError, match="'k' was used before"):
        store.append([Event(user, "c", 3.0)], idempotency_key="k")
    assert len(store.history(user)) == 2


def test_a_race_for_one_key_is_won_once(store: EventStore, user: str) -> None:
    answers: list[tuple[int, int]] = []

    def write() -> None:
        answers.append(store.append([Event(user, "a", 1.0)], idempotency_key="race"))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(1, 0)] * 8
    assert len(store.history(user)) == 1


def test_two_stores_on_one_database_see_each_other(url: str, store: EventStore, user: str) -> None:
    other = EventStore(url)
    other.append([Event(user, "a", 1.0)])
    assert [each.item_id for each in store.history(user)] == ["a"]
    other.close()


def test_deleting_a_user_leaves_nothing_and_nobody_else_out(store: EventStore, user: str) -> None:
    store.append([Event(user, "a", 1.0)], idempotency_key="k")
    store.append([Event(f"{user} other", "a", 1.0)])
    assert store.delete_user(user) == 1
    assert store.delete_user(user) == 0
    assert store.history(user) == []
    assert store.append([Event(user, "z", 1.0)], idempotency_key="k") == (1, 0)  # key gone, too
    assert len(store.history(f"{user} other")) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_export_is_prepared_again(tmp_path: Path, suffix: str) -> None:
    store, data = EventStore("sqlite://"), make_dataset()
    for user, history in zip(data.histories.user_ids, data.histories, strict=True):
        ids = [data.catalogue.item_ids[item] for item in history]
        store.append([Event(user, item, float(time)) for time, item in enumerate(ids)])
    items = {"item_id": data.catalogue.item_ids, "title": data.catalogue.titles}
    pl.DataFrame(items).write_csv(tmp_path / "titles.csv")
    path = tmp_path / f"log{suffix}"
    user, item = data.histories.user_ids[0], data.catalogue.item_ids[0]
    store.append([Event(user, item, 99.0, kind="dislike"), Event(user, item, 99.0, kind="hide")])
    assert store.export(path, without=()) == len(data.histories.items) + 2
    assert store.export(path) == len(data.histories.items)
    log = read_interactions(path, items=tmp_path / "titles.csv")
    again = Dataset.from_interactions(log, name="again")
    ids, more = data.catalogue.item_ids, again.catalogue.item_ids
    rows = {
        user: [more[item] for item in row]
        for user, row in zip(again.histories.user_ids, again.histories, strict=True)
    }
    for user, history in zip(data.histories.user_ids, data.histories, strict=True):
        assert rows[user] == [ids[item] for item in history]
    assert store.export(path, since=5.0) < len(data.histories.items)
    with pytest.raises(DataError, match="parquet or a"):
        store.export(tmp_path / "log.xlsx")


@pytest.mark.slow
def test_acknowledged_events_survive_a_kill(url: str, user: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, user], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    stop = random.Random(0).randint(50, 400)
    acknowledged = []
    for line in writer.stdout:
        acknowledged.append(int(line))
        if len(acknowledged) == stop:
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout.read().split()]
            break
    writer.wait()
    store = EventStore(url)
    kept = {each.item_id for each in store.history(user, 2000)}
    store.close()
    assert {f"item {number}" for number in acknowledged} <= kept
    assert len(kept) <= len(acknowledged) + 1  # the one that was under way


@pytest.mark.slow
def test_acknowledged_events_survive_a_crash_of_postgresql(postgres: Any, user: str) -> None:
    store = EventStore(postgres.url)
    store.append([Event(user, "a", 1.0)])
    postgres.stop("immediate")
    with pytest.raises(StoreError, match="event store"):
        store.ping()
    postgres.start()
    assert [each.item_id for each in store.history(user)] == ["a"]
    store.close()


@pytest.mark.slow
def test_processes_that_start_together_make_one_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    make = "import sys; from genrec.serving.events import EventStore; EventStore(sys.argv[1])"
    command = [sys.executable, "-c", make, url]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [each.communicate()[1] for each in started] == [b""] * 4


def test_a_mistyped_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        EventStore(f"sqlite:///{tmp_path / 'evnts.db'}", create=False)
    assert not list(tmp_path.iterdir())


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    EventStore(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))
    engine.dispose()
    with pytest.raises(StoreError, match="made by a newer GenRec"):
        EventStore(url)


def test_a_wrong_url_is_named_and_a_password_is_not() -> None:
    with pytest.raises(ConfigError, match=r"URL cannot be used.*sqlite:///events\.db"):
        EventStore("events.db")
    started = time.monotonic()
    with pytest.raises(StoreError, match="refused") as error:
        EventStore("postgresql+psycopg://me:secret@127.0.0.1:9/nothing")
    assert "secret" not in str(error.value)
    assert time.monotonic() - started < 30


def test_sqlite_commits_to_the_disk(tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with store._engine.connect() as connection:
        values = [
            connection.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous")
        ]
    assert values == ["wal", 2]  # 2: FULL
    assert os.path.exists(tmp_path / "events.db")
    store.close()


def test_threads_share_an_in_memory_database() -> None:
    store = EventStore("sqlite://")

    def add(number: int) -> int:
        events = [Event(f"user {number % 5}", str(number), float(number))]
        return store.append(events)[0]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(400))) == 400
    assert sum(len(store.history(f"user {number}")) for number in range(5)) == 400
    store.close()
