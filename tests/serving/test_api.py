from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from alike import assert_same_answers
from conftest import make_dataset
from genrec import GenRec
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.errors import DataError
from genrec.serving.changes import Change, ChangeLog, ReloadSignal, replay
from genrec.serving.config import ServeConfig
from genrec.serving.engine import Engine
from genrec.serving.events import Event, EventStore
from genrec.serving.filters import filter_mask
from genrec.serving.problems import Problem, StoreError
from genrec.serving.queries import Query
from genrec.serving.telemetry import Telemetry

TITLES = make_dataset().catalogue.titles
HOSTILE = "<img src=x onerror=alert(1)> & 'quotes' | \N{SNOWMAN}"


def answer(client: TestClient, **body: Any) -> Any:
    found = client.post("/v1/recommend", json=body)
    assert found.status_code == 200, found.text
    return found.json()


def test_answers_are_those_of_the_model(run: Path, serve: Any) -> None:
    client, model = serve(), GenRec.from_pretrained(run)
    for history in ([], TITLES[:1], TITLES[3:7]):
        expected = model.recommend(history, 5)
        found = answer(client, history=history, k=5)
        assert [item["title"] for item in found["items"]] == [item.title for item in expected]
        for item, wanted in zip(found["items"], expected, strict=True):
            assert item["rank"] == wanted.rank
            assert item["probability"] == pytest.approx(wanted.probability, rel=1e-4)
        assert [item["title"] for item in found["history"]] == history


def test_requests_of_a_batch_do_not_mix(run: Path, serve: Any) -> None:
    client, model = serve(max_batch=8), GenRec.from_pretrained(run)
    bodies = [
        {"history": TITLES[n : n + 1 + n % 4], "k": 1 + n % 5, "block": TITLES[20:22]}
        | ({"allow": TITLES[10:20]} if n % 3 else {"exclude_seen": False})
        for n in range(12)
    ]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda body: answer(client, **body)["items"], bodies))
    for body, items in zip(bodies, found, strict=True):
        mask = model.catalogue.mask(allow=body.get("allow"), block=body["block"])
        expected = model.recommend(
            body["history"], body["k"], exclude_seen=body.get("exclude_seen", True), candidates=mask
        )
        assert [item["title"] for item in items] == [item.title for item in expected]


def test_a_click_is_known_from_the_last_answer(serve: Any) -> None:
    client = serve()
    for count in (1, 2, 3):
        answer(client, history=TITLES[:count])
    answer(client, history=TITLES[:2])
    metrics = client.get("/metrics").text
    assert 'genrec_history_cache_total{found="yes"} 3.0' in metrics
    assert 'genrec_history_cache_total{found="no"} 1.0' in metrics


def test_explains_what_moved_each_item(run: Path, serve: Any) -> None:
    found = answer(serve(), history=TITLES[:3], k=2, explain=True)
    model = GenRec.from_pretrained(run)
    expected = model.explain(TITLES[:3], [item["title"] for item in found["items"]])
    for item, influences in zip(found["items"], expected, strict=True):
        assert [each["title"] for each in item["because"]] == [each.title for each in influences]
        effects = [each["effect"] for each in item["because"]]
        np.testing.assert_allclose(effects, [each.effect for each in influences], atol=1e-4)


def test_reasons_are_given_for_the_first_recommendations(serve: Any) -> None:
    found = answer(serve(max_explained=2), history=TITLES[:3], k=4, explain=True)
    assert [each["because"] is not None for each in found["items"]] == [True, True, False, False]


def test_numbers_are_filtered_as_numbers() -> None:
    metadata = pl.DataFrame({"year": ["1995", "1996", None], "stars": [1, 2, 3]})
    catalogue = Catalogue(["a", "b", "c"], ["A", "B", "C"], metadata)

    def found(**filters: Any) -> list[bool]:
        return filter_mask(catalogue, filters).tolist()

    assert found(year={"equals": 1995}) == [True, False, False]
    assert found(year={"equals": "1996"}) == [False, True, False]
    assert found(year={"in": [1995.0, "1996"]}) == [True, True, False]
    assert found(stars={"equals": 2, "max": 2.5}) == [False, True, False]
    assert found(stars={"in": [3]}, year={"min": 0}) == [False, False, False]


def test_filters_are_conditions_on_the_item_table(serve: Any) -> None:
    client, data = serve(), make_dataset()
    genre = dict(zip(data.catalogue.titles, data.catalogue.metadata["genre"], strict=True))
    for condition in ({"equals": "odd"}, {"in": ["odd"]}, {"contains": "OD"}):
        found = answer(client, history=[], k=8, filters={"genre": condition})
        assert {genre[item["title"]] for item in found["items"]} == {"odd"}
    wrong = client.post("/v1/recommend", json={"history": [], "filters": {"price": {"max": 3}}})
    assert wrong.status_code == 422
    assert "price" in wrong.json()["detail"]


@pytest.mark.parametrize("user", ["ann", "team/ann", "a%2Fb/eventsof", "ann?"])
def test_a_stored_user_gets_recommendations(serve: Any, tmp_path: Path, user: str) -> None:
    client = serve(store=f"sqlite:///{tmp_path / 'events.db'}")
    path = f"/v1/users/{quote(user, safe='')}"
    events = [{"item": TITLES[n], "timestamp": 10.0 + n} for n in range(3)]
    stored = client.post(f"{path}/events", json={"events": events})
    assert (stored.status_code, stored.json()) == (201, {"accepted": 3, "duplicates": 0})
    found = client.get(f"{path}/recommendations?k=4&explain=true").json()
    assert [item["title"] for item in found["history"]] == TITLES[:3]
    again = answer(client, history=TITLES[:3], k=4, explain=True)
    assert_same_answers(found["items"], again["items"])
    listed = client.get(f"{path}/events?limit=2").json()["events"]
    assert [each["title"] for each in listed] == TITLES[1:3]
    assert client.delete(path).status_code == 204
    assert client.get(f"{path}/events").json() == {"events": []}


@pytest.mark.parametrize("path", ["ann/", "ann/events", "team/ann/recommendations"])
def test_a_wrong_address_deletes_no_other_user(serve: Any, tmp_path: Path, path: str) -> None:
    client = serve(store=f"sqlite:///{tmp_path / 'events.db'}")
    client.post("/v1/users/ann/events", json={"events": [{"item": TITLES[0]}]})
    found = client.delete(f"/v1/users/{path}")
    assert (found.status_code, "cannot end in" in found.json()["detail"]) == (422, True)
    assert client.get("/v1/users/ann/events").json()["events"]


def test_what_a_user_disliked_is_no_history(serve: Any, tmp_path: Path) -> None:
    client = serve(store=f"sqlite:///{tmp_path / 'events.db'}")
    events = [{"item": TITLES[0]}, {"item": TITLES[1], "kind": "dislike"}]
    client.post("/v1/users/ann/events", json={"events": events})
    found = client.get("/v1/users/ann/recommendations").json()
    assert [item["title"] for item in found["history"]] == TITLES[:1]
    assert len(client.get("/v1/users/ann/events").json()["events"]) == 2


def test_a_store_that_does_not_answer_keeps_nothing_else_waiting(serve: Any) -> None:
    client = serve(store_seconds=0.2)
    free = threading.Event()
    client.app.state.store.history = lambda *_, **__: free.wait(5) and []
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(client.get, "/v1/users/ann/events") for _ in range(20)]
        assert len(client.get("/v1/items?q=red").json()["items"]) > 0
        assert answer(client, history=TITLES[:1])["items"]
        late = [each.result() for each in asked]
        free.set()
    assert {each.status_code for each in late} == {503}
    assert {each.headers["retry-after"] for each in late} == {"5"}


def test_a_store_that_fails_is_logged_and_said(serve: Any, caplog: Any) -> None:
    from genrec.serving.telemetry import log

    client = serve()

    def fail(*_: Any, **__: Any) -> None:
        raise StoreError("event store 'sqlite:////secret/place': disk I/O error")

    client.app.state.store.append = client.app.state.store.ping = fail
    log.propagate = True
    with caplog.at_level("ERROR", "genrec.serving"):
        found = client.post("/v1/users/ann/events", json={"events": [{"item": TITLES[0]}]})
    assert found.status_code == 503
    assert "secret" not in found.text
    assert "disk I/O error" in caplog.text
    assert client.get("/readyz").status_code == 503


def test_the_same_key_twice_stores_once(serve: Any, tmp_path: Path) -> None:
    client = serve(store=f"sqlite:///{tmp_path / 'events.db'}")
    body, headers = {"events": [{"item": TITLES[0]}]}, {"Idempotency-Key": "one"}
    for _ in range(2):
        again = client.post("/v1/users/ann/events", json=body, headers=headers)
        assert again.json() == {"accepted": 1, "duplicates": 0}
    body["events"][0]["item"] = TITLES[1]
    other = client.post("/v1/users/ann/events", json=body, headers=headers)
    assert other.status_code == 409
    assert len(client.get("/v1/users/ann/events").json()["events"]) == 1


def test_items_come_and_go_without_a_restart(serve: Any, tmp_path: Path, run: Path) -> None:
    client = serve(changes=tmp_path / "changes.jsonl")
    new = {"title": HOSTILE, "item_id": "new", "like": TITLES[0]}
    assert client.post("/v1/items", json=new).status_code == 201
    assert client.post("/v1/items", json=new).status_code == 409
    assert client.get("/v1/items?q=onerror").json()["items"] == [
        {"item_id": "new", "title": HOSTILE}
    ]
    everything = [item["title"] for item in answer(client, history=[], k=31)["items"]]
    assert HOSTILE in everything
    assert client.delete("/v1/items/i5").status_code == 204
    assert client.delete("/v1/items/no such item").status_code == 404
    for each in (client, serve(changes=tmp_path / "changes.jsonl")):  # and after a restart
        titles = [item["title"] for item in answer(each, history=[], k=31)["items"]]
        assert HOSTILE in titles
        assert TITLES[5] not in titles
        assert each.get("/v1/items/i5").status_code == 200
    assert client.post("/v1/items/i5/restore").status_code == 204
    assert TITLES[5] in [item["title"] for item in answer(client, history=[], k=31)["items"]]


def test_processes_see_each_others_changes(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    here, there = ChangeLog(path), ChangeLog(path)
    model, other = GenRec.from_pretrained(run), GenRec.from_pretrained(run)
    here.make(Change("add", "a", "Item A"), model)
    there.make(Change("add", "b", "Item B"), other)  # learns of A first
    assert other.catalogue.titles[-2:] == ["Item A", "Item B"]
    assert [each.item_id for each in here.unread()] == ["b"]
    with path.open("a") as file:
        file.write('{"kind": "add", "item')  # a crash in the middle of a line
    assert here.unread() == []
    assert [each.item_id for each in ChangeLog(path).all()] == ["a", "b"]
    here.make(Change("add", "c", "Item C"), other)  # and the half line is written over
    assert [each.item_id for each in ChangeLog(path).all()] == ["a", "b", "c"]


def test_a_change_that_cannot_be_kept_is_taken_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, model = ChangeLog(tmp_path / "changes.jsonl"), GenRec.from_pretrained(run)
    before = [item.item_id for item in model.recommend([], 30)]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_append", full)
    for change in (Change("remove", before[0]), Change("add", "new", "A New Title")):
        with pytest.raises(StoreError, match="No space left"):
            log.make(change, model)
    assert [item.item_id for item in model.recommend([], 30)] == before
    monkeypatch.undo()
    with pytest.raises(DataError):
        log.make(Change("remove", "no such item"), model)
    log.make(Change("add", "new", "A New Title"), model)
    assert [each.item_id for each in ChangeLog(tmp_path / "changes.jsonl").all()] == ["new"]


def test_a_file_of_changes_may_be_removed(run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "changes.jsonl", GenRec.from_pretrained(run)
    log = ChangeLog(path)
    log.make(Change("add", "a", "Item A"), model)
    path.unlink()
    assert log.unread() == []
    log.make(Change("add", "b", "Item B"), model)
    assert [each.item_id for each in ChangeLog(path).all()] == ["b"]


def test_every_process_knows_an_item_at_once(serve: Any, tmp_path: Path) -> None:
    here, there = (serve(changes=tmp_path / "changes.jsonl") for _ in range(2))
    assert here.post("/v1/items", json={"title": "A New Title"}).status_code == 201
    assert there.get("/v1/items/A New Title").status_code == 200
    events = {"events": [{"item": "A New Title"}]}
    assert there.post("/v1/users/ann/events", json=events).status_code == 201
    assert there.get("/v1/items?q=a new t").json()["items"][0]["title"] == "A New Title"


def test_a_change_during_a_reload_is_in_the_new_model(run: Path, tmp_path: Path) -> None:
    async def play(engine: Engine) -> None:
        old = engine.loaded
        added = Change("add", "new", "A New Title")
        await asyncio.gather(engine.reload(), engine.change(added))
        assert engine.loaded is not old
        engine._run(old, [Query((1,), 3)])  # a job of the old model takes nothing away
        assert "new" in engine.loaded.catalogue.item_ids

    with_engine(ServeConfig.create(run=run, changes=tmp_path / "changes.jsonl"), play)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"history": ["No Such Title"]}, 422),
        ({"history": [], "k": 0}, 422),
        ({"history": [], "k": 101}, 422),
        ({"history": ["x"] * 201}, 422),
        ({"history": [], "surprise": 1}, 422),
        ({"history": "Red"}, 422),
        ({"history": [""]}, 422),
        ({"history": ["y" * 1001]}, 422),
        ({"k": 1}, 422),
        ({"history": [], "filters": {"genre": {"like": "x"}}}, 422),
    ],
)
def test_wrong_input_gets_a_problem(serve: Any, body: dict[str, Any], status: int) -> None:
    found = serve().post("/v1/recommend", json=body)
    assert found.status_code == status
    assert found.headers["content-type"] == "application/problem+json"
    problem = found.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == found.headers["x-request-id"]


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"title": "Red", "rating": "good"}, "body.history.0.rating: Input should be a valid num"),
        ({"titel": "Red"}, "body.history.0.titel: Extra inputs are not permitted"),
        ({"rating": 5}, "body.history.0: give exactly one of item_id"),
        (5, "body.history.0: Input should be a valid string"),
    ],
)
def test_the_place_of_wrong_input_is_named(serve: Any, entry: object, place: str) -> None:
    found = serve().post("/v1/recommend", json={"history": [entry]})
    assert found.json()["detail"].startswith(place)


def test_what_is_no_json_or_too_large_is_refused(serve: Any) -> None:
    client = serve(max_body=2000)
    json_type = {"Content-Type": "application/json"}
    broken = client.post("/v1/recommend", content=b'{"history": [', headers=json_type)
    assert broken.status_code == 400
    assert broken.json()["detail"] == "The body is no valid JSON at character 13."
    large = client.post("/v1/recommend", json={"history": [], "block": ["z" * 900] * 4})
    assert large.status_code == 413

    def chunks() -> Any:
        for _ in range(5):
            yield b" " * 1000

    found = client.post("/v1/recommend", content=chunks(), headers=json_type)
    assert found.status_code == 413
    assert client.post("/v1/recommend", content=chunks()).status_code == 415
    assert "missing" in client.post("/v1/recommend", content=b"{}").json()["detail"]
    text = {"Content-Type": "text/plain"}
    assert client.post("/v1/recommend", content=b"{}", headers=text).status_code == 415
    assert client.get("/nowhere").headers["content-type"] == "application/problem+json"
    assert client.get("/nowhere").status_code == 404


def test_health_and_run(serve: Any) -> None:
    client = serve()
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.head("/livez").status_code == client.head("/readyz").status_code == 200
    found = client.get("/v1/run").json()
    assert found["items"] == 30
    assert found["columns"] == ["genre"]
    assert "source" not in found["data"]
    metrics = client.get("/metrics").text
    assert 'genrec_requests_total{method="GET",route="/v1/run",status="200"} 1.0' in metrics


def test_a_folder_that_broke_leaves_the_old_run_answering(
    run: Path, serve: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    client = serve(run=folder)
    before = answer(client, history=TITLES[:2])
    assert client.post("/v1/reload").status_code == 200
    (folder / "genrec.json").unlink()
    failed = client.post("/v1/reload")
    assert failed.status_code == 409
    assert str(folder) not in failed.text
    assert answer(client, history=TITLES[:2]) == before


def test_a_swap_under_load_drops_nothing(run: Path, serve: Any) -> None:
    client = serve(max_queue=200)
    codes: list[int] = []

    def ask(n: int) -> None:
        body = {"history": TITLES[n % 20 : n % 20 + 2]}
        codes.append(client.post("/v1/recommend", json=body).status_code)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, n) for n in range(60)]
        assert client.post("/v1/reload").status_code == 200
        for each in asked:
            each.result()
    assert codes == [200] * 60


def test_a_run_that_may_not_be_read_leaves_the_old_one(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "genrec.json")

    client = serve()
    monkeypatch.setattr("genrec.serving.loading.load_model", refuse)
    assert client.post("/v1/reload").status_code == 409
    assert client.get("/v1/run").status_code == 200
    assert 'reloads_total{result="failed"} 1' in client.get("/metrics").text


def test_changes_that_were_deleted_do_not_come_back(run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "changes.jsonl", GenRec.from_pretrained(run)
    here, there = ChangeLog(path), ChangeLog(path)
    for number in (3, 4):
        here.make(Change("remove", model.catalogue.item_ids[number]), model)
    assert len(there.all()) == 2
    path.unlink()
    assert (here.all(), there.all()) == ([], [])
    here.make(Change("remove", model.catalogue.item_ids[5]), model)
    assert len(there.all()) == 1
    (tmp_path / "other").write_text(path.read_text() * 3)  # longer, but another file
    (tmp_path / "other").replace(path)
    assert (len(here.all()), len(there.all())) == (3, 3)


def test_a_lock_that_cannot_be_made_is_an_error_of_the_store(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    changes, model = ChangeLog(tmp_path / "changes.jsonl"), GenRec.from_pretrained(run)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(StoreError, match=r"changes\.jsonl\.lock: Permission denied"):
        changes.make(Change("remove", model.catalogue.item_ids[3]), model)


def test_stored_texts_hold_no_nul_and_filters_a_condition(serve: Any) -> None:
    client = serve()
    events = [{"item_id": "i1", "kind": "a\0b"}, {"item_id": "i1\0"}]
    for path, body in (
        ("/v1/users/%00/events", {"events": [{"item_id": "i1"}]}),
        *(("/v1/users/u/events", {"events": [event]}) for event in events),
        ("/v1/recommend", {"history": [], "filters": {"genre": {}}}),
        ("/v1/recommend", {"history": [], "filters": {"genre": {"equals": None}}}),
    ):
        assert client.post(path, json=body).status_code == 422


def test_a_reload_reaches_the_other_processes(serve: Any, tmp_path: Path) -> None:
    here, there = (serve(changes=tmp_path / "changes.jsonl") for _ in range(2))

    def reloads(client: Any) -> float:
        found = re.search(r'reloads_total\{result="done"\} (\d+)', client.get("/metrics").text)
        return float(found[1]) if found else 0

    for times in (1, 2):  # the second signal may have the same time as the first
        assert here.post("/v1/reload").status_code == 200
        deadline = time.monotonic() + 20
        while reloads(there) < times:  # begins with a request, and ends beside others
            assert time.monotonic() < deadline
            assert there.get("/v1/run").status_code == 200
            answer(there, history=TITLES[:2])
        assert reloads(here) == times  # it is not told by itself, nor by the one that followed


def test_a_reload_that_cannot_be_told_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signal = ReloadSignal(tmp_path / "gone" / "changes.jsonl")
    with caplog.at_level("ERROR", "genrec"):
        signal.send(signal.state())
    assert "reload the other processes yourself" in caplog.text
    assert not ReloadSignal(None).arrived()


# -- the engine without HTTP ---------------------------------------------------------------------


def with_engine(config: ServeConfig, play: Any) -> Any:
    async def act() -> Any:
        engine = Engine(config, Telemetry())
        await engine.start()
        try:
            return await play(engine)
        finally:
            await engine.stop()

    return asyncio.run(act())


def slow(engine: Engine, event: threading.Event) -> None:
    """The model waits until it may go on."""
    run = engine._run

    def wait(*arguments: Any) -> Any:
        event.wait(10)
        return run(*arguments)

    engine._run = wait  # type: ignore[method-assign]


def test_a_full_queue_and_a_passed_deadline_are_said(run: Path) -> None:
    async def play(engine: Engine) -> None:
        go = threading.Event()
        slow(engine, go)
        first = []
        for n in range(3):  # one is with the model, two wait
            first.append(asyncio.create_task(engine.recommend(Query((n,), 3), engine.loaded)))
            await asyncio.sleep(0.02)
        with pytest.raises(Problem) as full:
            await engine.recommend(Query((9,), 3), engine.loaded)
        assert (full.value.status, full.value.headers["Retry-After"]) == (503, "1")
        done = await asyncio.gather(*first, return_exceptions=True)
        assert [each.status for each in done if isinstance(each, Problem)] == [504] * 3
        later = asyncio.create_task(engine.recommend(Query((5,), 3), engine.loaded))
        await asyncio.sleep(0.02)  # those that gave up have left their places
        go.set()
        assert len((await later).items) == 3
        assert len((await engine.recommend(Query((4,), 3), engine.loaded)).items) == 3
        dropped = engine.telemetry.registry.get_sample_value
        assert dropped("genrec_dropped_total", {"why": "cancelled"}) == 2

    with_engine(ServeConfig.create(run=run, max_queue=2, max_batch=1, deadline=0.3), play)


def test_a_request_nobody_waits_for_is_not_computed(run: Path) -> None:
    async def play(engine: Engine) -> None:
        go = threading.Event()
        slow(engine, go)
        running = asyncio.create_task(engine.recommend(Query((1,), 3), engine.loaded))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(engine.recommend(Query((2,), 3), engine.loaded))
        await asyncio.sleep(0.05)
        gone.cancel()
        go.set()
        await running
        await asyncio.sleep(0.05)
        dropped = engine.telemetry.registry.get_sample_value
        assert dropped("genrec_dropped_total", {"why": "cancelled"}) == 1

    with_engine(ServeConfig.create(run=run), play)


def test_one_bad_request_does_not_spoil_the_batch(run: Path) -> None:
    async def play(engine: Engine) -> None:
        run_all = engine._run

        def fail(loaded: Any, queries: Any) -> Any:
            if any(query.history == (7,) for query in queries):
                raise RuntimeError("bad luck")
            return run_all(loaded, queries)

        engine._run = fail  # type: ignore[method-assign]
        asked = [engine.recommend(Query((n,), 3), engine.loaded) for n in (5, 6, 7, 8)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(each, RuntimeError) for each in found] == [False, False, True, False]

    with_engine(ServeConfig.create(run=run), play)


def test_reasons_keep_no_later_request_waiting(run: Path) -> None:
    async def play(engine: Engine) -> None:
        explain, free = engine._explain, threading.Event()

        def wait(*arguments: Any) -> Any:
            free.wait(5)
            return explain(*arguments)

        engine._explain = wait  # type: ignore[method-assign]
        asked = [Query((n,), 3, explain=True) for n in range(4)]
        explained = [asyncio.create_task(engine.recommend(each, engine.loaded)) for each in asked]
        await asyncio.sleep(0.1)
        plain = asyncio.create_task(engine.recommend(Query((9,), 3), engine.loaded))
        free.set()
        await plain  # after one explanation at most, not after four
        assert sum(each.done() for each in explained) <= 2
        assert [len((await each).because or ()) for each in explained] == [3] * 4

    with_engine(ServeConfig.create(run=run), play)


def test_stopping_answers_what_waits(run: Path) -> None:
    async def play() -> list[int]:
        engine = Engine(ServeConfig.create(run=run), Telemetry())
        await engine.start()
        asked = [
            asyncio.create_task(engine.recommend(Query((n,), 3), engine.loaded)) for n in range(6)
        ]
        await asyncio.sleep(0)
        await engine.stop()
        return [len((await each).items) for each in asked]

    assert asyncio.run(play()) == [3] * 6


def test_sessions_stay_within_their_memory(run: Path) -> None:
    async def play(engine: Engine) -> None:
        for n in range(20):
            await engine.recommend(Query((n,), 3), engine.loaded)
            assert engine.loaded.store.currsize <= 60_000

    with_engine(ServeConfig.create(run=run, session_bytes=60_000), play)


def test_log_lines_are_json_and_name_no_user(serve: Any, caplog: Any) -> None:
    from genrec.serving.telemetry import JsonLines, log

    client = serve()
    log.propagate = True
    with caplog.at_level("INFO", "genrec.serving"):
        client.get("/v1/users/secret-name/events", headers={"X-Request-ID": "mine"})
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert (line["request"], line["status"]) == ("mine", 200)
    assert line["route"] == "/v1/users/{user_id}/events"
    assert "secret-name" not in json.dumps(line)
    assert time.strptime(line["time"][:10], "%Y-%m-%d")


def twins_run(tiny_backbone: str, folder: Path) -> Catalogue:
    """A run in which the id of one item is the title of another: "i4" is called "i7"."""
    data = make_dataset()
    titles = list(data.catalogue.titles)
    titles[4] = "i7"
    catalogue = Catalogue(data.catalogue.item_ids, titles, data.catalogue.metadata)
    model = GenRec(tiny_backbone, prior="none", dtype="float32")
    model.build(Dataset("twins", catalogue, data.histories)).save_pretrained(folder)
    return catalogue


def test_an_id_and_a_title_are_told_apart(tiny_backbone: str, serve: Any, tmp_path: Path) -> None:
    catalogue = twins_run(tiny_backbone, tmp_path / "run")
    client = serve(run=tmp_path / "run", store=f"sqlite:///{tmp_path / 'events.db'}")
    refused = client.post("/v1/recommend", json={"history": ["i7"]})
    assert refused.status_code == 422
    assert "title of item 'i4'" in refused.json()["detail"]
    for name, value, item in (("item_id", "i7", 7), ("title", "i7", 4)):
        found = answer(client, history=[{name: value}], block=[{"item_id": "i1"}])
        assert found["history"] == [{"item_id": f"i{item}", "title": catalogue.titles[item]}]
        event = {"events": [{name: value}]}
        assert client.post(f"/v1/users/{name}/events", json=event).status_code == 201
        stored = client.get(f"/v1/users/{name}/events").json()["events"]
        assert [each["item_id"] for each in stored] == [f"i{item}"]
        history = client.get(f"/v1/users/{name}/recommendations").json()["history"]
        assert [each["item_id"] for each in history] == [f"i{item}"]  # no event is dropped
    for wrong in ({}, {"item_id": "i1", "title": "x"}, {"item_id": "i1", "item": "i1"}):
        found = client.post("/v1/users/ann/events", json={"events": [wrong]})
        assert found.status_code == 422
    assert client.delete("/v1/items/i7").status_code == 204
    everything = [item["item_id"] for item in answer(client, history=[], k=30)["items"]]
    assert "i7" not in everything
    assert "i4" in everything


def test_events_of_items_that_are_gone_are_reported(serve: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    store = EventStore(url)
    store.append([Event("ann", item, 1.0) for item in ("i1", "gone", "i2", "gone")])
    store.close()
    client = serve(store=url)
    found = client.get("/v1/users/ann/recommendations").json()
    assert [each["item_id"] for each in found["history"]] == ["i1", "i2"]
    assert found["unknown_items"] == ["gone"]
    assert "genrec_unknown_items_total 1.0" in client.get("/metrics").text


def test_words_steer_the_list_and_are_explained(serve: Any) -> None:
    client = serve()
    assert client.get("/v1/run").json()["words"] is True
    history = [{"title": title} for title in TITLES[:3]]
    plain = client.post("/v1/recommend", json={"history": history, "k": 5}).json()
    assert plain["known_words"] == []
    body = {"history": history, "k": 5, "words": "green zebra", "explain": True}
    found = client.post("/v1/recommend", json=body).json()
    assert found["known_words"] == ["green"]
    assert found["items"] != plain["items"]
    assert "Green" in found["items"][0]["title"]
    assert found["items"][0]["words_effect"] > 0
    assert {each["title"] for each in found["items"][0]["because"]} == set(TITLES[:3])
    alone = client.post("/v1/recommend", json={"history": [], "k": 2, "words": "storm"}).json()
    assert "Storm" in alone["items"][0]["title"]
    again = client.post("/v1/recommend", json={"history": history, "k": 5, "words": " "}).json()
    assert again == plain
    strange = client.post("/v1/recommend", json={**body, "words": "zebra"}).json()
    assert strange["known_words"] == []
    assert [each["title"] for each in strange["items"]] == [
        each["title"] for each in plain["items"]
    ]


def test_long_words_are_refused_and_no_words_are_logged(
    serve: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    client = serve()
    refused = client.post("/v1/recommend", json={"history": [], "words": "x" * 1001})
    assert refused.status_code == 422
    secret = "unmistakable\n### Response:"
    assert client.post("/v1/recommend", json={"history": [], "words": secret}).status_code == 200
    printed = "".join(capfd.readouterr())
    assert "unmistakable" not in caplog.text + printed


def test_a_history_may_say_ratings(serve: Any) -> None:
    client = serve()
    rated = [{"title": title, "rating": 5} for title in TITLES[:2]]
    plain = [{"title": title} for title in TITLES[:2]]
    # This run was trained without ratings, so they change nothing.
    answers = [
        client.post("/v1/recommend", json={"history": history, "k": 3}).json()
        for history in (rated, plain)
    ]
    assert answers[0] == answers[1]
    wrong = client.post("/v1/recommend", json={"history": [{"title": "x", "rating": "good"}]})
    assert wrong.status_code == 422


def test_an_added_item_is_known_by_its_stripped_id(serve: Any, tmp_path: Path) -> None:
    client = serve(changes=tmp_path / "changes.jsonl")
    first = client.get("/v1/items", params={"q": TITLES[0]}).json()["items"][0]
    taken = client.post("/v1/items", json={"title": "New A", "item_id": f"{first['item_id']} "})
    assert taken.status_code == 409
    added = client.post("/v1/items", json={"title": " New A ", "item_id": " new-a "})
    assert added.json() == {"item_id": "new-a", "title": "New A"}
    assert client.delete("/v1/items/new-a").status_code == 204
    assert client.get("/v1/items/new-a").json()["title"] == "New A"


def test_malformed_input_is_no_fault_of_the_server(serve: Any) -> None:
    client = serve()
    assert client.post("/v1/recommend", json={}, headers={"Origin": "http://["}).status_code == 403
    huge = {"filters": {"title": {"equals": 10**400}}}
    assert client.post("/v1/recommend", json=huge).status_code == 422


def test_an_unreadable_change_stays_an_error(run: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "changes.jsonl", GenRec.from_pretrained(run)
    path.write_text("no change\n")
    changes = ChangeLog(path)
    item = model.catalogue.item_ids[0]
    with pytest.raises(StoreError, match="remove the line"):
        changes.unread()
    assert changes.unread() == []  # so that requests are answered
    for _ in range(2):
        with pytest.raises(StoreError, match="remove the line"):
            changes.make(Change("remove", item), model)
    assert path.read_text() == "no change\n"
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder"):
        ChangeLog(tmp_path / "folder").make(Change("remove", item), model)


def test_an_unreadable_change_does_not_stop_the_answers(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "changes.jsonl"
    client = serve(changes=path)
    path.write_text("no change\n")
    for _ in range(3):
        client.post("/v1/recommend", json={"history": TITLES[:1]})
    assert answer(client, history=TITLES[:1], k=3)["items"]
    refused = client.post("/v1/items", json={"title": "New B"})
    assert (refused.status_code, str(path) in refused.text) == (503, False)
    assert path.read_text() == "no change\n"


@pytest.mark.parametrize(
    "line", ['{"kind": "add", "item_id": "x"}', '{"kind": "x", "item_id": "x"}']
)
def test_a_change_that_lacks_something_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "changes.jsonl").write_text(f"{line}\n")
    with pytest.raises(StoreError, match="lacks a kind, an item_id or a title"):
        ChangeLog(tmp_path / "changes.jsonl").unread()


def test_a_newer_reload_of_another_process_still_arrives(tmp_path: Path) -> None:
    here, there = (ReloadSignal(tmp_path / "changes.jsonl") for _ in range(2))
    before = here.state()
    there.send(there.state())
    here.send(before)
    assert here.arrived()
    assert there.arrived()
    there.send(there.state())
    assert not there.arrived()


def test_changes_are_replayed_together_as_one_by_one(run: Path) -> None:
    one, many = (GenRec.from_pretrained(run) for _ in range(2))
    known = one.catalogue.item_ids
    changes = [
        Change("add", "a", "A new film", known[2]),
        Change("add", "b", "Another film"),
        Change("add", "c", "A third film", "a"),
        Change("remove", known[0]),
        Change("remove", "no such item"),
        Change("remove", "b"),
        Change("add", "a", "Taken"),
        Change("add", "d", "A fourth film", known[1]),
        Change("restore", known[0]),
    ]
    for change in changes:
        with suppress(DataError):
            change.apply(one)
    assert replay(changes, many) == 2
    assert many.catalogue.titles == one.catalogue.titles
    history = one.catalogue.titles[2:5]
    for found, expected in zip(
        many.recommend(history, k=10, by="title"),
        one.recommend(history, k=10, by="title"),
        strict=True,
    ):
        assert found.title == expected.title
        assert found.probability == pytest.approx(expected.probability, rel=1e-2)


def test_health_is_never_limited(serve: Any) -> None:
    client = serve(rate=0.01, burst=2)
    found = [client.get("/v1/items?q=a").status_code for _ in range(4)]
    assert found[-1] == 429
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
