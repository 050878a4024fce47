"""Who may ask, and how often."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cachetools import LRUCache

from genrec.errors import ConfigError

CLIENTS = 10_000
"""Clients whose rate is known; the longest silent ones are forgotten."""
HASH = re.compile(r"[0-9a-f]{64}")


def new_key() -> str:
    """A new API key; only its hash needs to be kept."""
    return f"gr_{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """SHA-256, hexadecimal. Keys are random and long, so that a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_hashes(path: Path) -> tuple[str, ...]:
    """Hashes from a file, one a line, with anything after it as a note; "#" begins a comment.

    Raises:
        ConfigError: the file cannot be read, holds no hash, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no readable file of key hashes ({error}).") from None
    words = [line.split()[0] for line in lines if line.split() and line.strip()[0] != "#"]
    for word in words:
        if not HASH.fullmatch(word):
            raise ConfigError(f"{path}: a line is no SHA-256 hash; make one with `genrec keys`.")
    if not words:
        raise ConfigError(f"{path}: holds no key hash; make one with `genrec keys`.")
    return tuple(words)


def is_known(key: str, hashes: Sequence[str]) -> bool:
    """Whether a key has one of the hashes; takes the same time whichever it is."""
    found = key_hash(key)
    return sum(hmac.compare_digest(found, each) for each in hashes) > 0


class RateLimit:
    """A token bucket for each client."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(CLIENTS)

    def wait(self, client: str) -> int:
        """Take a token: 0, or the seconds after which there will be one."""
        now = self._clock()
        tokens, then = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        if tokens < 1:
            self._buckets[client] = (tokens, now)
            return math.ceil((1 - tokens) / self._rate)
        self._buckets[client] = (tokens - 1, now)
        return 0
