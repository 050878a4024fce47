"""The service's limits, each with its unit; unknown keys are errors."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genrec.errors import ConfigError


class ServeConfig(BaseModel):
    """Everything that decides how a run is served; build it with :meth:`create`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="run folder")
    store: str = Field("sqlite://", description="SQLAlchemy URL of the event store")
    changes: Path | None = Field(
        None, description="file that keeps catalogue changes; they are lost at a restart if None"
    )
    key_hashes: tuple[str, ...] = Field((), description="SHA-256 of each API key, hexadecimal")
    cors_origins: tuple[str, ...] = Field((), description="other pages that may ask")
    hosts: tuple[str, ...] = Field(
        (), description="names under which it may be asked for, against DNS rebinding; all if empty"
    )
    disliked: tuple[str, ...] = Field(
        ("dislike", "hide"), description="kinds of events that are no part of a user's history"
    )

    max_history: int = Field(200, ge=1, description="items in a history")
    max_k: int = Field(100, ge=1, description="recommendations in an answer")
    max_explained: int = Field(10, ge=1, description="recommendations whose reasons are given")
    max_events: int = Field(1000, ge=1, description="events in one request")
    max_body: int = Field(262_144, ge=1024, description="bytes of a request")
    max_batch: int = Field(16, ge=1, description="requests that go through the model together")
    max_queue: int = Field(64, ge=1, description="requests that wait; more get 503")
    deadline: float = Field(15.0, gt=0, description="seconds a request may take; then 504")
    store_seconds: float = Field(10.0, gt=0, description="seconds to wait for a store; then 503")
    rate: float = Field(50.0, gt=0, description="requests a second of each client, on average")
    burst: int = Field(100, ge=1, description="requests of each client at once")
    session_bytes: int = Field(2**30, ge=0, description="memory of keys and values of histories")
    drain: int = Field(20, ge=1, description="seconds that open requests get at the end")

    @classmethod
    def create(cls, **settings: Any) -> ServeConfig:
        """Settings with their defaults.

        Raises:
            ConfigError: a key is unknown or a value is out of range; the message names it.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            found = error.errors()[0]
            key = ".".join(map(str, found["loc"]))
            known = ", ".join(cls.model_fields)
            raise ConfigError(f"setting {key!r}: {found['msg']}; known are {known}.") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
