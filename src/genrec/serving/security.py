"""API keys and rate limits."""

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
"""Maximum number of clients with a stored rate; the least recently active ones are dropped."""
HASH = re.compile(r"[0-9a-f]{64}")


def new_key() -> str:
    """Make a random API key. The service stores only its hash."""
    return f"gr_{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """Return the SHA-256 hash of a key, hexadecimal.

    Keys are long and random, so a slow hash function would not make them safer.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def read_hashes(path: Path) -> tuple[str, ...]:
    """Read the hashes of API keys from a file.

    Each line begins with one hash, and the rest of the line is a note. Lines that begin with "#"
    are comments.

    Raises:
        ConfigError: The file cannot be read, holds no hash, or has an invalid line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: the file of key hashes cannot be read ({error}); check --api-keys."
        ) from None
    words = [line.split()[0] for line in lines if line.split() and line.strip()[0] != "#"]
    for word in words:
        if not HASH.fullmatch(word):
            raise ConfigError(
                f"{path}: a line does not begin with a SHA-256 hash; make one with `genrec keys`."
            )
    if not words:
        raise ConfigError(f"{path}: the file holds no key hash; make one with `genrec keys`.")
    return tuple(words)


def is_known(key: str, hashes: Sequence[str]) -> bool:
    """Return whether a key has one of the hashes, in constant time."""
    found = key_hash(key)
    return sum(hmac.compare_digest(found, each) for each in hashes) > 0


class RateLimit:
    """A rate limit with a token bucket for each client.

    Args:
        rate: requests per second on average.
        burst: requests that a client may send at once.
        clock: returns the time in seconds.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(CLIENTS)

    def wait(self, client: str) -> int:
        """Take a token of a client.

        Returns:
            0 if there was one, else the whole seconds until there will be one.
        """
        now = self._clock()
        tokens, then = self._buckets.get(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        if tokens < 1:
            self._buckets[client] = (tokens, now)
            return math.ceil((1 - tokens) / self._rate)
        self._buckets[client] = (tokens - 1, now)
        return 0
