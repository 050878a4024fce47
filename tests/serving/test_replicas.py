"""Two replicas under load, behind nginx and on Ray Serve; one of them is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from conftest import children_named

pytestmark = pytest.mark.slow

NGINX_CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CLIENTS = 6
"""Clients that send requests at the same time."""
USERS = [f"u{number}" for number in range(48)]
"""Users of the clients, in turn: so many that a balancer gives each replica some of them."""
LIMITS = ("rate=100000", "burst=100000", "deadline=60", "store_seconds=60")


@dataclass
class Load:
    """Clients that store an event, ask for recommendations and so on, without repeating anything.

    Attributes:
        url: address of the service.
        stored: ids of acknowledged events.
        failed: what got no answer or no success, as (kind of the request, reason).
    """

    url: str
    stored: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def client(self, users: list[str]) -> None:
        with httpx2.Client(base_url=f"{self.url}/v1", timeout=60) as client:
            for number, name in enumerate(itertools.cycle(users)):
                if self.stop.is_set():
                    break
                event = {"item_id": f"i{number % 8}", "event_id": f"{name}-{number}"}
                if self._sent("event", client.post, f"/users/{name}/events", {"events": [event]}):
                    self.stored.append(event["event_id"])
                self._sent("get", client.get, f"/users/{name}/recommendations?k=2")
                self._sent("ask", client.post, "/recommend", {"history": [], "k": 2})

    def _sent(
        self, kind: str, send: Callable[..., httpx2.Response], path: str, body: object = None
    ) -> bool:
        try:
            answer = send(path) if body is None else send(path, json=body)
        except httpx2.TransportError as error:
            self.failed.append((kind, type(error).__name__))
            return False
        if not answer.is_success:
            self.failed.append((kind, f"{answer.status_code} {answer.text[:200]}"))
        return answer.is_success

    @contextmanager
    def running(self) -> Iterator[None]:
        shares = [USERS[first::CLIENTS] for first in range(CLIENTS)]
        threads = [threading.Thread(target=self.client, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(60)

    def wait_for(self, more: int) -> None:
        """Wait until that many more events are stored."""
        goal, until = len(self.stored) + more, time.monotonic() + 60
        while len(self.stored) < goal:
            assert time.monotonic() < until, self.failed
            time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


@contextmanager
def started(command: list[str], url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block, once the service answers at ``url``."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            try:
                if httpx2.get(f"{url}/readyz", timeout=5).is_success:
                    break
            except httpx2.TransportError:
                pass
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def replica(run: Path, port: int, store: str, *more: str) -> list[str]:
    limits = [part for limit in LIMITS for part in ("--set", limit)]
    command = [sys.executable, "-m", "genrec", "serve", str(run), "--store", store]
    return [*command, "--port", str(port), *limits, *more]


def stored_events(url: str) -> list[str]:
    found = []
    for user in USERS:
        events = httpx2.get(f"{url}/v1/users/{user}/events?limit=10000").json()["events"]
        found += [event["event_id"] for event in events]
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return str(request.getfixturevalue("postgres").url)


@pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian package nginx-light)")
def test_a_killed_replica_behind_nginx_loses_nothing(
    run: Path, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    front, *ports = free_ports(3)
    conf = NGINX_CONF.read_text()
    for old, new in zip(("8000", "127.0.0.1:8001", "127.0.0.1:8002"), (front, *ports), strict=True):
        name = f"127.0.0.1:{new}" if ":" in old else str(new)
        assert conf.count(f" {old}") == 1
        conf = conf.replace(f" {old}", f" {name}")
    conf = conf.replace("/tmp/genrec-nginx.pid", str(tmp_path / "pid"))
    (tmp_path / "nginx.conf").write_text(conf)
    nginx = [str(NGINX), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
    load = Load(f"http://127.0.0.1:{front}")
    log = tmp_path / "log"
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(started(replica(run, port, store), f"http://127.0.0.1:{port}", log))
            for port in ports
        ]
        stack.enter_context(started(nginx, load.url, log))
        with load.running():
            load.wait_for(20)
            assert load.failed == []
            asked = [answered(port) for port in ports]
            replicas[0].kill()
            load.wait_for(60)
        assert min(asked) > 0  # both replicas took part
        assert {kind for kind, _ in load.failed} <= {"event"}  # all else went to the other replica
        assert len(load.failed) <= CLIENTS  # only requests in flight
        found = stored_events(load.url)
        assert set(load.stored) <= set(found)
        assert len(found) == len(set(found))


def answered(port: int) -> int:
    """Return how many recommendations a replica has made for users."""
    lines = httpx2.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("genrec_requests_total") and "recommendations" in line
    )


def test_a_killed_replica_of_ray_serve_loses_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.serve")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (port,) = free_ports(1)
    load, log = Load(f"http://127.0.0.1:{port}"), tmp_path / "log"
    command = replica(run, port, f"sqlite:///{tmp_path}/events.db", "--engine", "ray")
    with started([*command, "--workers", "2"], load.url, log) as process:
        replicas = children_named("ServeReplica", process.pid)
        assert len(replicas) == 2
        with load.running():
            load.wait_for(20)
            assert load.failed == []
            os.kill(replicas[0].pid, signal.SIGKILL)
            load.wait_for(60)
        assert len(load.failed) <= 3 * CLIENTS  # requests in flight
        found = stored_events(load.url)
        assert set(load.stored) <= set(found)
        assert len(found) == len(set(found))
