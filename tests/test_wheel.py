"""The wheel works outside of the checkout: nothing that it needs was left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from conftest import make_dataset
from genrec import GenRec

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
SECONDS = 120  # for one command, on a slow machine


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *build, str(ROOT)], check=True)
    [found] = folder.glob("genrec-*.whl")
    return found


@pytest.fixture(scope="module")
def trained(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    model = GenRec(backbone=tiny_backbone, dtype="float32", lora_rank=4, epochs=0.5)
    model.fit(make_dataset(), progress=False).save_pretrained(folder)
    return folder


class Installed:
    """A virtual environment with the wheel; all else comes from the environment of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.bin = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        self._run(self.bin / "python", *install)
        # A folder named in a .pth file is searched after the environment's own packages, and its
        # own .pth files are not read: the editable install of the checkout stays out.
        packages = self.python("import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        Path(packages, "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return kept | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}

    def python(self, code: str) -> str:
        return self._run(self.bin / "python", "-c", code)

    def genrec(self, *arguments: object) -> str:
        return self._run(self.bin / "genrec", *arguments)

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        command = [str(self.bin / "genrec"), *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment)

    def _run(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("elsewhere"), wheel)


def test_the_wheel_holds_all_that_is_no_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    source = ROOT / "src"
    files = [path for path in (source / "genrec").rglob("*") if path.is_file()]
    kept = [path.relative_to(source) for path in files if path.suffix != ".pyc"]
    assert {path.as_posix() for path in kept} <= inside
    assert {"genrec/py.typed", "genrec/serving/page/index.html"} <= inside
    for folder in ("report/templates", "serving/page", "serving/migrations/versions"):
        assert any(name.startswith(f"genrec/{folder}/") for name in inside)
    assert not any(name.startswith(("tests/", "docs/", "src/")) for name in inside)


def test_the_package_is_the_installed_one(installed: Installed) -> None:
    where = Path(installed.python("import genrec; print(genrec.__file__)").strip())
    assert installed.folder in where.parents
    assert ROOT not in where.parents


def test_doctor_tells_the_version(installed: Installed) -> None:
    found = json.loads(installed.genrec("doctor", "--json"))
    assert found["versions"]["genrec"]
    assert None not in found["versions"].values()


def test_it_recommends(installed: Installed, trained: Path) -> None:
    title = make_dataset().catalogue.titles[0]
    found = installed.genrec("recommend", trained, "--history", title, "-k", "3", "--json")
    assert len(json.loads(found)) == 3


@pytest.fixture
def service(installed: Installed, trained: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{installed.folder / 'events.db'}"
    process = installed.start("serve", trained, "--port", port, "--store", store)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the service ended by itself"
        try:
            return urlopen(f"{url}/readyz", timeout=5).close()
        except (HTTPError, URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"not ready within {SECONDS} s")


def ask(url: str, body: dict[str, Any] | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=SECONDS) as answer:
        assert answer.status < 300
        text: str = answer.read().decode()
    return text


def test_it_serves_the_page_and_stores_events(service: str) -> None:
    assert "<!doctype html>" in ask(f"{service}/").lower()
    assert ask(f"{service}/page/main.js")
    assert "openapi" in ask(f"{service}/docs").lower()
    title = make_dataset().catalogue.titles[0]
    stored = ask(f"{service}/v1/users/ann/events", {"events": [{"title": title}]})
    assert json.loads(stored)["accepted"] == 1  # so the tables are there: migrations ran
    assert json.loads(ask(f"{service}/v1/users/ann/events"))["events"][0]["title"] == title
    assert len(json.loads(ask(f"{service}/v1/users/ann/recommendations?k=3"))["items"]) == 3
