"""A tiny trained run, the application on it, and databases to keep events in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from conftest import make_dataset
from genrec import GenRec
from genrec.serving.app import create_app
from genrec.serving.config import ServeConfig

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def run(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    model = GenRec(backbone=tiny_backbone, dtype="float32", lora_rank=4, epochs=0.5)
    model.fit(make_dataset(), progress=False).save_pretrained(folder)
    return folder


@pytest.fixture
def serve(run: Path) -> Iterator[Serve]:
    """Start an application with some limits changed; it stops at the end of the test."""
    running: list[TestClient] = []

    def start(**settings: object) -> TestClient:
        config = ServeConfig.create(**{"run": run, "store": "sqlite://", **settings})
        client = TestClient(create_app(config), raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__()


def _postgresql() -> Path | None:
    """Folder of a PostgreSQL server's programs; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)
    beside = shutil.which("pg_ctl")
    return found[0].parent if found else Path(beside).parent if beside else None


class Postgres:
    """A throw-away server on a free port of this machine."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "-D", folder / "data", "-U", "tester", "-A", "trust", "-N")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.folder / "data", "-l", log, "-w", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", mode, "-w", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            command,
            check=True,
            user=user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = _postgresql()
    if programs is None:
        pytest.skip("needs a PostgreSQL server's programs (Debian package postgresql)")
    with tempfile.TemporaryDirectory(prefix="genrec-pg-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)  # so that an unprivileged user may enter it
        server = Postgres(Path(folder) / "server", programs)
        yield server
        server.stop("immediate")
