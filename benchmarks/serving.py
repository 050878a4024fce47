"""The service under load: with batches, without batches, and during a restart.

    python benchmarks/serving.py [--run models/ml-100k] [--users 32] [--requests 320] [--json]

Each part starts `genrec serve` on the loopback interface; clients and service share the machine.
Each user is a thread that sends a request, adds the first recommended item to its history and sends
the next request. A status other than 200, 429 and 503 counts as an error. In the last part the
service is stopped with SIGTERM under load and started again; all acknowledged events must still be
stored.
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
"""Maximum number of titles in a history; the user then starts a new one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("models/ml-100k"), help="run folder")
    parser.add_argument("--users", type=int, default=32, help="number of concurrent users")
    parser.add_argument(
        "--requests", type=int, default=320, help="number of requests of all users together"
    )
    parser.add_argument(
        "--events", type=int, default=1000, help="number of events sent around the restart"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
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
    """Run a service, by default on a free port, and yield its URL.

    At the end the service answers all accepted requests before it stops.
    """
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
            sys.exit(f"the service stopped with exit code {process.returncode}")
        time.sleep(0.2)
    sys.exit("the service did not become ready within two minutes")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def load(url: str, titles: list[str], users: int, requests: int) -> dict[str, float]:
    """Send requests of many users at once.

    Returns:
        Answers per second, latencies in milliseconds, and numbers of refused and failed requests.
    """
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
    """Send events during a restart; return the numbers of acknowledged and of lost events."""
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
        os.kill(again.pid, signal.SIGKILL)  # acknowledged events must survive a kill, too
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
    """Send an event until it is acknowledged; its id prevents duplicates."""
    body = {"events": [{"item": title, "event_id": event_id}]}
    for _ in range(600):
        try:
            if client.post(f"{url}/v1/users/load/events", json=body).status_code == 201:
                acknowledged.append(event_id)
                return
        except httpx2.TransportError:
            pass  # the service is restarting
        time.sleep(0.1)


if __name__ == "__main__":
    main()
