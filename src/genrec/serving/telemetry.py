"""Metrics for Prometheus, and logging with one JSON line per request."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
log = logging.getLogger("genrec.serving")


class Telemetry:
    """The metrics of one process. Labels never contain titles or user ids."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        labels = ["method", "route", "status"]
        self.requests = Counter("genrec_requests", "Answered requests.", labels, registry=own)
        self.seconds = Histogram(
            "genrec_request_seconds",
            "Time to answer a request, in seconds.",
            ["route"],
            buckets=LATENCY,
            registry=own,
        )
        self.queue = Gauge("genrec_queue_length", "Requests that wait for the model.", registry=own)
        self.batch = Histogram(
            "genrec_batch_size", "Requests per batch of the model.", buckets=BATCHES, registry=own
        )
        self.pass_seconds = Histogram(
            "genrec_pass_seconds", "Time of one batch, in seconds.", buckets=LATENCY, registry=own
        )
        self.tokens = Counter(
            "genrec_search_tokens",
            "Tokens that the model computed for nodes of the title trie.",
            registry=own,
        )
        self.cache = Counter(
            "genrec_history_cache",
            "Histories with a prefix in the cache of keys and values (found: yes or no).",
            ["found"],
            registry=own,
        )
        self.dropped = Counter(
            "genrec_dropped",
            "Requests that were cancelled or passed the deadline before the model ran.",
            ["why"],
            registry=own,
        )
        self.events = Counter(
            "genrec_events", "Events received (accepted or duplicate).", ["result"], registry=own
        )
        self.unknown = Counter(
            "genrec_unknown_items",
            "Item ids in stored events that are not in the catalogue.",
            registry=own,
        )
        self.reloads = Counter(
            "genrec_reloads",
            "Reloads of the run folder (done or failed).",
            ["result"],
            registry=own,
        )

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """A formatter that writes each log record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr() -> None:
    """Write the log of the service as JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
