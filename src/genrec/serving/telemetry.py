"""What a service tells its operators: Prometheus metrics and one JSON line for each request."""

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
    """The metrics of one process; labels are routes and statuses, never titles or users."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        labels = ["method", "route", "status"]
        self.requests = Counter("genrec_requests", "Requests answered.", labels, registry=own)
        self.seconds = Histogram(
            "genrec_request_seconds", "Time to answer.", ["route"], buckets=LATENCY, registry=own
        )
        self.queue = Gauge("genrec_queue_length", "Requests that wait.", registry=own)
        self.batch = Histogram(
            "genrec_batch_size", "Requests in one pass.", buckets=BATCHES, registry=own
        )
        self.pass_seconds = Histogram(
            "genrec_pass_seconds", "Time of one batch.", buckets=LATENCY, registry=own
        )
        self.tokens = Counter("genrec_search_tokens", "Tokens run for nodes.", registry=own)
        self.cache = Counter(
            "genrec_history_cache",
            "Histories whose start was known, or not.",
            ["found"],
            registry=own,
        )
        self.dropped = Counter(
            "genrec_dropped", "Requests given up before the model ran.", ["why"], registry=own
        )
        self.events = Counter("genrec_events", "Events stored.", ["result"], registry=own)
        self.unknown = Counter(
            "genrec_unknown_items",
            "Ids in stored events that the catalogue does not hold.",
            registry=own,
        )
        self.reloads = Counter(
            "genrec_reloads", "Run folders read again.", ["result"], registry=own
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text form."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """A log record as one JSON object."""

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
    """Write this package's log lines as JSON to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
