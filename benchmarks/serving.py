"""The service under load: batches of many users against one request at a time, and a restart.

    python benchmarks/serving.py [--run models/ml-100k] [--users 32] [--requests 320] [--json]

Each part starts a real `genrec serve` on this machine's loopback, which the clients share it with.
Every user is a thread that asks, reads the answer, picks its first item and asks again. An answer
that is neither 200 nor a declared 429 or 503 is an error. In the last part the service is ended
with SIGTERM under load and started again: every event that was acknowledged must be there.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from genrec.data.catalogue import Catalogue
from output import show

FINE = (200, 429, 503)
LONGEST = 8
"""Titles in a history, after which a user begins anew."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("models/ml-100k"))
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--requests", type=int, default=320, help="of all users together")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    titles = Catalogue.load(options.run / "catalogue.parquet").titles
    result: dict[str, Any] = {"users": options.users, "requests": options.requests}
    for name, batch, users in (
        ("one_by_one", 1, options.users),
        ("batched", 16, options.users),
        ("alone", 16, 1),
    ):
        count = options.requests if users > 1 else options.requests // 8
        with tempfile.TemporaryDirectory() as folder, served(options.run, folder, batch) as url:
            found = load(url, titles, users, count)
        result |= {f"{name}_{key}": value for key, value in found.items()}
    result["throughput_ratio"] = result["batched_per_second"] / result["one_by_one_per_second"]
    result |= restart(options.run, titles, options.events)
    show(result, options.json)


@contextmanager
def served(run: Path, folder: str, batch: int, port: int | None = None) -> Iterator[str]:
    """A service on a free port, until it has answered all that it took."""
    process, url = start(run, folder, batch, port)
    try:
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)


def start(
    run: Path, folder: str, batch: int, port: int | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    port = port or free_port()
    limits = (f"max_batch={batch}", "max_queue=64", "rate=100000", "burst=100000", "deadline=60")
    command = [sys.executable, "-m", "genrec", "serve", str(run), "--port", str(port)]
    command += ["--store", f"sqlite:///{folder}/events.db"]
    command += [part for limit in limits for part in ("--set", limit)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return process, url
        except httpx2.TransportError:
            pass
        if process.poll() is not None:
            sys.exit(f"the service ended with {process.returncode}")
        time.sleep(0.2)
    sys.exit("the service did not become ready within two minutes")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def load(url: str, titles: list[str], users: int, requests: int) -> dict[str, float]:
    """Latencies in milliseconds, answers a second, and what went wrong."""
    codes: Counter[int] = Counter()
    seconds: list[float] = []
    each = max(1, requests // users)

    def user(number: int) -> None:
        random_titles = random.Random(number)
        history = random_titles.sample(titles, 2)
        with httpx2.Client(timeout=120) as client:
            for _ in range(each):
                began = time.perf_counter()
                answer = client.post(f"{url}/v1/recommend", json={"history": history, "k": 10})
                codes[answer.status_code] += 1
                if answer.status_code != 200:
                    time.sleep(float(answer.headers.get("retry-after", 1)))
                    continue
                seconds.append(time.perf_counter() - began)
                history.append(answer.json()["items"][0]["title"])
                if len(history) > LONGEST:
                    history = random_titles.sample(titles, 2)

    began = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        list(pool.map(user, range(users)))
    wall = time.perf_counter() - began
    return {
        "per_second": len(seconds) / wall,
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p99_ms": 1000 * float(np.percentile(seconds, 99)),
        "refused": sum(count for code, count in codes.items() if code in FINE and code != 200),
        "errors": sum(count for code, count in codes.items() if code not in FINE),
    }


def restart(run: Path, titles: list[str], count: int) -> dict[str, int]:
    """Events that were acknowledged around a restart, and how many of them are missing."""
    acknowledged: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process, url = start(run, folder, 16, port)
        stop = threading.Event()

        def write() -> None:
            with httpx2.Client(timeout=10) as client:
                for number in range(count):
                    if stop.is_set():
                        return
                    send(client, url, titles[number % len(titles)], str(number), acknowledged)

        writer = threading.Thread(target=write)
        writer.start()
        while len(acknowledged) < count // 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        again, _ = start(run, folder, 16, port)
        writer.join(120)
        stop.set()
        os.kill(again.pid, signal.SIGKILL)  # and what was acknowledged survives this, too
        again.wait()
        process, _ = start(run, folder, 16, port)
        listed = httpx2.get(f"{url}/v1/users/load/events?limit=10000").json()["events"]
        process.terminate()
        process.wait(60)
    kept = {each["event_id"] for each in listed}
    return {
        "events_acknowledged": len(acknowledged),
        "events_lost": len(set(acknowledged) - kept),
    }


def send(
    client: httpx2.Client, url: str, title: str, event_id: str, acknowledged: list[str]
) -> None:
    """One event, sent until it is acknowledged; its id makes that safe."""
    body = {"events": [{"item": title, "event_id": event_id}]}
    for _ in range(600):
        try:
            if client.post(f"{url}/v1/users/load/events", json=body).status_code == 201:
                acknowledged.append(event_id)
                return
        except httpx2.TransportError:
            pass  # the service is being started again
        time.sleep(0.1)


if __name__ == "__main__":
    main()
