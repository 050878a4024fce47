"""What happens to every request before and after its route: limits, keys, headers, one log line."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.serving.config import ServeConfig
from genrec.serving.problems import ClientGoneError, Problem, response
from genrec.serving.security import RateLimit, is_known
from genrec.serving.telemetry import Telemetry, log

JSON = "application/json"
OPEN = ("/", "/docs", "/livez", "/readyz", "/favicon.ico")
OPEN_UNDER = ("/page/",)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """ASGI middleware around the whole application."""

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
            pass  # noted as 499
        except Exception:
            log.exception("a request failed", extra={"fields": {"request": scope["request_id"]}})
            if not answered:
                failed = Problem(500, "The service failed; the log knows more.")
                await response(failed, scope["request_id"])(scope, receive, sender)
        finally:
            self._note(scope, answered.get("status", 499), time.monotonic() - started)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse unknown keys, clients that ask too often, bodies that say they are too long."""
        client = self._client(scope, headers)
        if wait := self.limit.wait(client):
            raise Problem(429, "Too many requests; wait a little.", {"Retry-After": str(wait)})
        if not self.config.key_hashes and self._is_foreign(scope, headers):
            raise Problem(403, "Pages from elsewhere may not ask; see the setting cors_origins.")
        kind = headers.get("content-type", JSON)
        if scope["method"] == "POST" and kind.partition(";")[0].strip().lower() != JSON:
            raise Problem(415, f"A request's body is {JSON}, not {kind}.")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.config.max_body:
            raise self._too_long()

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Whether a page of another origin wants to change something; browsers say so."""
        origin = headers.get("origin", "")
        own = urlsplit(origin).netloc == headers.get("host")
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        known = {origin, "*"} & {*self.config.cors_origins}
        return bool(origin) and not (own or reads or known)

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Whom to count: a key, or an address."""
        address = scope["client"][0] if scope.get("client") else "unknown"
        path = scope["path"]
        if not self.config.key_hashes or path in OPEN or path.startswith(OPEN_UNDER):
            return address
        kind, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not is_known(key, self.config.key_hashes):
            if wait := self.limit.wait(f"wrong {address}"):  # guessing is slow, too
                raise Problem(429, "Too many wrong keys.", {"Retry-After": str(wait)})
            detail = "An API key is needed: Authorization: Bearer KEY."
            raise Problem(401, detail, {"WWW-Authenticate": "Bearer"})
        return key

    async def _read(self, receive: Receive) -> Receive:
        """The body as one message, its bytes counted, whatever its header says."""
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
        return Problem(413, f"A request has at most {self.config.max_body} bytes.")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.telemetry.requests.labels(scope["method"], route, str(status)).inc()
        self.telemetry.seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request": scope["request_id"],
            "method": scope["method"],
            "route": route,  # not the path: it may name a user
            "status": status,
            "seconds": round(seconds, 4),
        }
        log.info("request", extra={"fields": fields})


def _sender(scope: Scope, send: Send, answered: dict[str, int]) -> Send:
    """Note the status and add headers to the answer."""

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
