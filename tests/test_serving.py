from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from conftest import make_dataset
from genrec import GenRec
from genrec.serving.app import create_app


@pytest.fixture(scope="module")
def client(tiny_backbone: str) -> TestClient:
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32").prepare(make_dataset())
    return TestClient(create_app(model))


def test_recommends(client: TestClient) -> None:
    titles = make_dataset().catalogue.titles
    answer = client.post("/v1/recommend", json={"history": titles[:2], "k": 4})
    assert answer.status_code == 200
    assert [item["rank"] for item in answer.json()] == [1, 2, 3, 4]
    assert not {item["title"] for item in answer.json()} & set(titles[:2])


@pytest.mark.parametrize(
    "body",
    [
        {"history": ["No Such Film"]},
        {"history": [], "k": 0},
        {"history": [], "unknown": 1},
        {"k": 1},
        {"history": ["x"] * 2000},
    ],
)
def test_wrong_input_is_a_client_error(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/v1/recommend", json=body).status_code == 422


def test_is_alive(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
