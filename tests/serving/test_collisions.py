"""Catalogues in which ids are the titles of other items: every request means one item."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from conftest import make_dataset
from genrec import GenRec
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.serving.app import create_app
from genrec.serving.config import ServeConfig

REQUESTS = 60
"""Requests to each catalogue."""
ENTRIES = ("21", "1917", "i/1", "Emma", "emma", "Emma (1996)", "a b", "☃", "null", "0", "x?y#z")


def colliding(seed: int) -> Dataset:
    """A data set whose ids are mostly titles of other items, and sometimes the own one."""
    data, draw = make_dataset(), random.Random(seed)
    size = len(data.catalogue)
    names = list(ENTRIES) + [f"i{n}" for n in range(size - len(ENTRIES))]
    ids, titles = draw.sample(names, size), draw.sample(names, size)
    return Dataset("twins", Catalogue(ids, titles, data.catalogue.metadata), data.histories)


@pytest.fixture(params=range(4))
def service(
    request: pytest.FixtureRequest, tiny_backbone: str, tmp_path: Path
) -> Iterator[tuple[TestClient, Catalogue, random.Random]]:
    data = colliding(request.param)
    model = GenRec(tiny_backbone, prior="none", dtype="float32").build(data)
    model.save_pretrained(tmp_path / "run")
    config = ServeConfig.create(
        run=tmp_path / "run", store="sqlite://", rate=1e6, burst=10**6, changes=tmp_path / "changes"
    )
    with TestClient(create_app(config)) as client:
        yield client, data.catalogue, random.Random(request.param)


def test_every_request_means_the_item_that_it_names(
    service: tuple[TestClient, Catalogue, random.Random],
) -> None:
    client, catalogue, draw = service
    removed: set[int] = set()
    history: list[int] = []
    steps: dict[str, Callable[[int, dict[str, str]], None]] = {}

    def look(item: int, _: dict[str, str]) -> None:
        found = client.get(f"/v1/items/{quoted(catalogue.item_ids[item])}").json()
        assert found == {"item_id": catalogue.item_ids[item], "title": catalogue.titles[item]}

    def click(item: int, name: dict[str, str]) -> None:
        event = {**name, "timestamp": float(len(history))}
        assert client.post("/v1/users/u/events", json={"events": [event]}).status_code == 201
        history.append(item)
        stored = client.get("/v1/users/u/events?limit=1").json()["events"][0]
        assert stored["item_id"] == catalogue.item_ids[item]

    def remove(item: int, _: dict[str, str]) -> None:
        assert client.delete(f"/v1/items/{quoted(catalogue.item_ids[item])}").status_code == 204
        removed.add(item)

    def restore(item: int, _: dict[str, str]) -> None:
        path = f"/v1/items/{quoted(catalogue.item_ids[item])}/restore"
        assert client.post(path).status_code == 204
        removed.discard(item)

    def ask(item: int, name: dict[str, str]) -> None:
        body = {"history": [name], "k": len(catalogue), "exclude_seen": True}
        found = client.post("/v1/recommend", json=body).json()["items"]
        listed = {catalogue.item_ids.index(each["item_id"]) for each in found}
        assert listed == set(range(len(catalogue))) - removed - {item}
        assert all(
            each["title"] == catalogue.titles[catalogue.item_ids.index(each["item_id"])]
            for each in found
        )

    steps = {"look": look, "click": click, "remove": remove, "restore": restore, "ask": ask}
    for _ in range(REQUESTS):
        item = draw.randrange(len(catalogue))
        name = draw.choice(
            [{"item_id": catalogue.item_ids[item]}, {"title": catalogue.titles[item]}]
        )
        steps[draw.choice(list(steps))](item, name)


def quoted(item_id: str) -> str:
    from urllib.parse import quote

    return quote(item_id, safe="")


def test_a_text_that_names_two_items_is_refused(
    service: tuple[TestClient, Catalogue, random.Random],
) -> None:
    client, catalogue, _ = service
    for item, item_id in enumerate(catalogue.item_ids):
        twin = catalogue.titles.index(item_id) if item_id in catalogue.titles else item
        answer: Any = client.post("/v1/recommend", json={"history": [item_id], "k": 1})
        assert answer.status_code == (200 if twin == item else 422), item_id
