"""Middleware for every request: rate limits, API keys, headers, metrics and a log line."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.serving.config import ServeConfig
from genrec.serving.problems import ClientGoneError, Problem, response
from genrec.serving.security import RateLimit, is_known
from genrec.serving.telemetry import Telemetry, log

JSON = "application/json"
OPEN = ("/", "/docs", "/livez", "/readyz", "/favicon.ico")
HEALTH = ("/livez", "/readyz")
"""What is never limited, so that a busy client does not make the service look dead."""
OPEN_UNDER = ("/page/",)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """ASGI middleware around the whole application.

    Attributes:
        app: the application inside.
        config: settings of the service.
        telemetry: metrics to update.
        limit: the rate limit of each client.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, telemetry: Telemetry) -> None:
        self.app, self.config, self.telemetry = app, config, telemetry
        self.limit = RateLimit(config.rate, config.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, started = Headers(scope=scope), time.monotonic()
        given = headers.get("x-request-id", "")
        scope["request_id"] = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        answered: dict[str, int] = {}
        sender = _sender(scope, send, answered)
        try:
            self._check(scope, headers)
            await self.app(scope, await self._read(receive), sender)
        except Problem as problem:
            if not answered:
                await response(problem, scope["request_id"])(scope, receive, sender)
        except ClientGoneError:
            pass  # logged with status 499
        except Exception:
            log.exception("a request failed", extra={"fields": {"request": scope["request_id"]}})
            if not answered:
                failed = Problem(500, "The service failed; see its log for the reason.")
                await response(failed, scope["request_id"])(scope, receive, sender)
        finally:
            self._note(scope, answered.get("status", 499), time.monotonic() - started)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests with an unknown key, over the rate limit or with too large a body."""
        client = self._client(scope, headers)
        if scope["path"] not in HEALTH and (wait := self.limit.wait(client)):
            detail = f"Too many requests; try again in {wait} s."
            raise Problem(429, detail, {"Retry-After": str(wait)})
        if not self.config.key_hashes and self._is_foreign(scope, headers):
            raise Problem(
                403,
                "Requests from web pages of other origins are not allowed; see the setting "
                "cors_origins.",
            )
        length = headers.get("content-length", "0")
        kind = headers.get("content-type", "")
        holds_json = kind.partition(";")[0].strip().lower() == JSON
        is_empty = length == "0" and "transfer-encoding" not in headers
        if scope["method"] == "POST" and not (holds_json or is_empty):
            raise Problem(415, f"The Content-Type must be {JSON}, not {kind or 'missing'}.")
        if length.isdecimal() and int(length) > self.config.max_body:
            raise self._too_long()

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Return whether this is a changing request from a page of another, unknown origin.

        Browsers send the header Origin with such requests.
        """
        origin = headers.get("origin", "")
        own = origin.partition("://")[2] == headers.get("host")
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        known = {origin, "*"} & {*self.config.cors_origins}
        return bool(origin) and not (own or reads or known)

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Return the client for the rate limit: its API key, or its address without keys."""
        address = scope["client"][0] if scope.get("client") else "unknown"
        path = scope["path"]
        if not self.config.key_hashes or path in OPEN or path.startswith(OPEN_UNDER):
            return address
        kind, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not is_known(key, self.config.key_hashes):
            if wait := self.limit.wait(f"wrong {address}"):  # limits the guessing of keys
                detail = f"Too many requests with wrong API keys; try again in {wait} s."
                raise Problem(429, detail, {"Retry-After": str(wait)})
            detail = "A valid API key is needed; send it as Authorization: Bearer KEY."
            raise Problem(401, detail, {"WWW-Authenticate": "Bearer"})
        return key

    async def _read(self, receive: Receive) -> Receive:
        """Read the whole body and return a receiver that yields it as one message.

        The bytes are counted, because the header Content-Length may be missing or wrong.
        """
        parts, size, message = [], 0, await receive()
        while message["type"] == "http.request":
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.config.max_body:
                raise self._too_long()
            if not message.get("more_body", False):
                break
            message = await receive()
        waiting = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def _too_long(self) -> Problem:
        return Problem(413, f"The request body is larger than {self.config.max_body} bytes.")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "other")
        self.telemetry.requests.labels(scope["method"], route, str(status)).inc()
        self.telemetry.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request": scope["request_id"],
            "method": scope["method"],
            "route": route,  # not the path, which may contain a user's id
            "status": status,
            "seconds": round(seconds, 4),
        }
        log.info("request", extra={"fields": fields})


def _sender(scope: Scope, send: Send, answered: dict[str, int]) -> Send:
    """Return a sender that records the status and adds headers to the response."""

    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered["status"] = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = scope["request_id"]
            for name, value in SAFE.items():
                headers[name] = value
            if scope["path"].startswith("/v1/"):
                headers["cache-control"] = "no-store"
        await send(message)

    return sender
