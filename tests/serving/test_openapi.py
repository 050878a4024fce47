"""Whatever the OpenAPI description allows, the service does not fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from genrec.serving.app import create_app
from genrec.serving.config import ServeConfig

EXAMPLES = 40
"""Requests to each operation."""


@pytest.mark.slow
def test_no_request_makes_the_service_fail(run: Path) -> None:
    config = ServeConfig.create(run=run, store="sqlite://", rate=1e6, burst=10**6)
    app = create_app(config)
    with TestClient(app, raise_server_exceptions=False) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) >= 15
        for operation in operations:
            if operation.path == "/v1/reload":
                continue  # loads the model each time
            ask(operation, client)


def ask(operation: schemathesis.APIOperation, client: TestClient) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case: schemathesis.Case) -> None:
        request = case.as_transport_kwargs(base_url="http://testserver")
        body = {key: request[key] for key in ("json", "data", "content") if request.get(key)}
        answer = client.request(
            request["method"],
            request["url"],
            params=request.get("params"),
            headers={k: v for k, v in request["headers"].items() if v.isprintable()},
            **body,
        )
        assert answer.status_code < 500, f"{request['method']} {request['url']}: {answer.text}"

    check()
