"""SIGHUP while a service starts: it does not end the service, which then loads its run again."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

HANGUP = threading.Event()
"""Whether SIGHUP came before the service had started."""


def note_hangups() -> None:
    """Note SIGHUP from now on, until the service has started and reloads by itself."""
    with suppress(AttributeError, ValueError):  # Windows has no such signal; only a main thread
        signal.signal(signal.SIGHUP, lambda *_: HANGUP.set())
