"""Whatever the OpenAPI description allows, the service does not fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings

from genrec.serving.app import create_app
from genrec.serving.config import ServeConfig

schema = schemathesis.pytest.from_fixture("described")


@pytest.fixture(scope="module")
def described(run: Path) -> object:
    config = ServeConfig.create(run=run, store="sqlite://", rate=1e6, burst=10**6)
    app = create_app(config)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.get("/readyz")
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_service_fail(case: schemathesis.Case) -> None:
    response = case.call()
    assert response.status_code < 500, response.text
