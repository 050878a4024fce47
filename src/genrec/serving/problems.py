"""Error responses in the format application/problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from genrec.errors import GenRecError, UnknownItemError
from genrec.serving.telemetry import log

MEDIA_TYPE = "application/problem+json"
FORMS = ("constrained-str", "function-after[")
"""How pydantic's names of the forms that a value may have begin."""


class Problem(Exception):  # noqa: N818 (RFC 9457's own word)
    """An error that is reported to the client.

    Attributes:
        status: HTTP status.
        detail: one sentence for the client.
        headers: additional headers of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


class StoreError(GenRecError):
    """The event store or the file of catalogue changes cannot be read or written.

    The message is logged, and the client gets a general one.
    """


class ClientGoneError(Exception):
    """The client has closed the connection before the answer was ready."""


def response(problem: Problem, request_id: str = "") -> JSONResponse:
    """Build the response for a problem.

    Args:
        problem: the error.
        request_id: id of the request, which is part of the body.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    return JSONResponse(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Install exception handlers that turn every error of the application into a problem."""

    def answer(request: Request, problem: Problem) -> JSONResponse:
        return response(problem, request.scope.get("request_id", ""))

    @app.exception_handler(Problem)
    async def known(request: Request, error: Problem) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(StoreError)
    async def not_kept(request: Request, error: StoreError) -> JSONResponse:
        log.error("%s", error)
        detail = "The store cannot be used now; see the log of the service for the reason."
        return answer(request, Problem(503, detail, {"Retry-After": "5"}))

    @app.exception_handler(GenRecError)
    async def wrong_input(request: Request, error: GenRecError) -> JSONResponse:
        status = 404 if request.method in ("GET", "DELETE") else 422
        status = status if isinstance(error, UnknownItemError) else 422
        return answer(request, Problem(status, str(error)))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Where several forms are allowed, the deepest error is of the form that was meant.
        found = max(
            error.errors(), key=lambda each: (len(each["loc"]), each["type"] == "value_error")
        )
        if found["type"] == "json_invalid":
            text = f"The body is no valid JSON at character {found['loc'][-1]}."
            return answer(request, Problem(400, text))
        parts = [str(part) for part in found["loc"] if not str(part).startswith(FORMS)]
        what = found["msg"].removeprefix("Value error, ")
        return answer(request, Problem(422, f"{'.'.join(parts)}: {what}"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, Problem(error.status_code, str(error.detail), error.headers))
