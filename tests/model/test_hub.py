"""Runs are pushed to and loaded from a stand-in for the Hugging Face Hub on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conftest import make_dataset
from genrec import GenRec
from genrec.model import pretrained

COMMITS = ("a" * 40, "b" * 40)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP interface as its client needs for small files."""

    server: HubServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.private = asked.get("private", False)
            self.reply({"url": f"{self.server.url}/{repo}", "name": repo})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            self.reply({"files": modes})
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines() if line])
        else:  # e.g. the check of the card's metadata
            self.reply({"errors": [], "warnings": []})

    def commit(self, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.commits.get(self.server.head, {}))
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        oid = COMMITS[len(self.server.commits)]
        self.server.commits[oid] = files
        url = f"{self.server.url}/org/run/commit/{oid}"
        self.reply({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self.path.startswith(("/org/run/resolve/", "/api/models/org/run")):
            self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        what, _, rest = self.path.split("?")[0].partition("/org/run/")[2].partition("/")
        revision, _, name = rest.partition("/")
        oid = {"main": self.server.head, "v1": COMMITS[0]}.get(revision, revision)
        files = self.server.commits.get(oid, None if oid else {})
        if files is None:
            self.reply({"error": "no revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif what == "tree":
            self.reply([tree_entry(path, content) for path, content in files.items()])
        elif what == "revision":
            siblings = [{"rfilename": path} for path in files]
            self.reply({"id": "org/run", "sha": oid, "siblings": siblings, "private": False})
        else:
            self.send(files[name], oid)

    def send(self, content: bytes, oid: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", oid)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def reply(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, each in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, each)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def tree_entry(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


class HubServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.commits: dict[str, dict[str, bytes]] = {}
        self.private = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def head(self) -> str:
        return list(self.commits)[-1] if self.commits else ""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def python(code: str, hub: HubServer, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: the client reads the Hub's address when it is imported."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.run(
        [sys.executable, "-c", "import genrec\n" + code],
        env={**os.environ, **own, "HF_TOKEN": "hf_test", "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_goes_to_the_hub_and_comes_back(
    tiny_backbone: str, tmp_path: Path, hub: HubServer
) -> None:
    model = GenRec(tiny_backbone, prior="popularity", dtype="float32").build(make_dataset())
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text('{"genrec": {"HR@10": 0.5}}')
    push = f"model = genrec.GenRec.from_pretrained({str(tmp_path / 'run')!r})\n"
    push += "print(model.push_to_hub('org/run', private=True))\n"
    change = "model.remove_items(['i3'], by='id'); model.push_to_hub('org/run')\n"
    done = python(push + change, hub, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/org/run/commit/{COMMITS[0]}"
    first = hub.commits[COMMITS[0]]
    assert {"genrec.json", "config.yaml", "README.md", "metrics.json"} <= set(first)
    assert "prior/counts.npy" in first
    assert first["README.md"].startswith(b"---\nlibrary_name: genrec")
    load = "found = genrec.GenRec.from_pretrained('org/run'{}).recommend(['i1'], k=30, by='id')\n"
    load += "print(' '.join(sorted(item.item_id for item in found)))"
    second = hub.commits[COMMITS[1]]
    assert first.keys() - second.keys() == {"metrics.json"}, "they were of the older model"
    newest = python(load.format(""), hub, tmp_path / "two")
    assert newest.returncode == 0, newest.stderr
    assert "i3" not in newest.stdout.split()
    older = python(load.format(", revision='v1'"), hub, tmp_path / "two")
    assert "i3" in older.stdout.split()


def test_what_the_hub_does_not_have_is_one_clear_error(tmp_path: Path, hub: HubServer) -> None:
    for name in ("'org/another'", "'org/run', revision='nowhere'"):
        done = python(f"genrec.GenRec.from_pretrained({name})", hub, tmp_path / "cache")
        last = done.stderr.strip().splitlines()[-1]
        assert "RunError: org/" in last
        assert "Check the name and the revision" in last


def test_metrics_of_an_older_model_are_not_pushed(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = []
    monkeypatch.setattr(pretrained.hub, "push", lambda *_, **how: beside.append(how["beside"]))
    GenRec(tiny_backbone, prior="popularity").build(make_dataset()).save_pretrained(
        tmp_path / "run"
    )
    model = GenRec.from_pretrained(tmp_path / "run")
    model.push_to_hub("org/run")
    model.remove_items(["i3"], by="id")
    model.push_to_hub("org/run")
    assert beside == [tmp_path / "run", None]
