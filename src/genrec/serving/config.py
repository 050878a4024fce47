"""Settings and limits of the service; unknown keys are errors."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from genrec.config import invalid_settings
from genrec.data.event_kinds import DISLIKES


class ServeConfig(BaseModel):
    """Settings of the service; build them with :meth:`create`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="run folder to serve")
    store: str = Field(
        "sqlite://",
        description="SQLAlchemy URL of the event store; from `genrec serve` RUN.events.db",
    )
    changes: Path | None = Field(
        None,
        description="file that stores catalogue changes; from `genrec serve` RUN.changes.jsonl; if "
        "None, changes are lost at a restart",
    )
    key_hashes: tuple[str, ...] = Field(
        (), description="SHA-256 hashes of the allowed API keys, hexadecimal; no key if empty"
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins of other web pages that may send requests (CORS)"
    )
    hosts: tuple[str, ...] = Field(
        (),
        description="allowed values of the Host header, against DNS rebinding; `genrec serve` adds "
        "the names of this machine unless there are API keys; all if empty",
    )
    disliked: tuple[str, ...] = Field(
        DISLIKES, description="kinds of events that do not count as history"
    )

    max_history: int = Field(200, ge=1, description="maximum number of items in a history")
    max_k: int = Field(100, ge=1, description="maximum number of recommendations per request")
    max_explained: int = Field(
        10, ge=1, description="maximum number of recommendations that get reasons"
    )
    max_events: int = Field(1000, ge=1, description="maximum number of events per request")
    max_body: int = Field(262_144, ge=1024, description="maximum size of a request body in bytes")
    max_batch: int = Field(16, ge=1, description="maximum number of requests per model batch")
    max_queue: int = Field(
        64, ge=1, description="maximum number of waiting requests; further ones get status 503"
    )
    deadline: float = Field(
        15.0, gt=0, description="maximum time for a request in seconds; then status 504"
    )
    store_seconds: float = Field(
        10.0, gt=0, description="maximum wait for the event store in seconds; then status 503"
    )
    rate: float = Field(
        50.0, gt=0, description="requests per second that each client may send on average"
    )
    burst: int = Field(100, ge=1, description="requests that each client may send at once")
    session_bytes: int = Field(
        2**30, ge=0, description="memory for cached keys and values of histories, in bytes"
    )
    drain: int = Field(
        20, ge=1, description="maximum time for open requests at shutdown, in seconds"
    )

    @field_validator("cors_origins", "hosts", "disliked", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """Take one text for a list of one."""
        return (value,) if isinstance(value, str) else value

    @classmethod
    def create(cls, **settings: Any) -> ServeConfig:
        """Build settings from the defaults and the given fields.

        Raises:
            ConfigError: A key is unknown or a value is out of range; the message names the key.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise invalid_settings(error, cls.model_fields) from None


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
