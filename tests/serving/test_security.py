from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from genrec.errors import ConfigError, RunError
from genrec.serving.app import ENVIRONMENT
from genrec.serving.config import ServeConfig, is_loopback
from genrec.serving.hangup import HANGUP, note_hangups
from genrec.serving.problems import StoreError
from genrec.serving.security import RateLimit, is_known, key_hash, new_key, read_hashes
from genrec.serving.server import serve as start


def test_only_known_keys_may_ask(serve: Any) -> None:
    key = new_key()
    client = serve(key_hashes=(key_hash("another"), key_hash(key)))
    body = {"history": []}
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {key}"}, 401),
        ({"Authorization": f"Bearer {key}"}, 200),
        ({"X-API-Key": key}, 200),
    ):
        found = client.post("/v1/recommend", json=body, headers=headers)
        assert found.status_code == status
        if status == 401:
            assert found.headers["www-authenticate"] == "Bearer"
            assert found.json()["status"] == 401
    for path in ("/livez", "/readyz", "/docs"):  # that page asks for the description itself
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/v1/run", "/openapi.json"):
        assert client.get(path).status_code == 401


def test_who_asks_too_often_waits(serve: Any) -> None:
    client = serve(rate=0.5, burst=3)
    codes = [client.get("/v1/run").status_code for _ in range(5)]
    assert codes == [200] * 3 + [429] * 2
    assert client.get("/v1/run").headers["retry-after"] == "2"  # a token every two seconds


def test_a_bucket_fills_up_again() -> None:
    now = [0.0]
    limit = RateLimit(2.0, 3, lambda: now[0])
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 1]
    assert limit.wait("b") == 0
    now[0] = 0.5  # one token at two a second
    assert [limit.wait("a"), limit.wait("a")] == [0, 1]


def test_answers_carry_safe_headers_and_no_cors(serve: Any) -> None:
    found = serve().get("/v1/run", headers={"Origin": "https://elsewhere.example"})
    assert "default-src 'self'" in found.headers["content-security-policy"]
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in found.headers
    allowed = serve(cors_origins=("https://shop.example",))
    found = allowed.get("/v1/run", headers={"Origin": "https://shop.example"})
    assert found.headers["access-control-allow-origin"] == "https://shop.example"


def test_browsers_may_ask_before_they_send_a_key(serve: Any) -> None:
    client = serve(cors_origins=("https://shop.example",), key_hashes=(key_hash("k"),))
    asking = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert client.options("/v1/recommend", headers=asking).status_code == 200
    refused = client.get("/v1/run", headers={"Origin": "https://shop.example"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"


def test_without_keys_pages_from_elsewhere_change_nothing(serve: Any) -> None:
    client = serve(hosts=("testserver",), cors_origins=("https://shop.example",))
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://testserver", 200),
        ("https://shop.example", 200),
    ):
        headers = {"Origin": origin}
        assert client.post("/v1/recommend", json={"history": []}, headers=headers).status_code == (
            status
        )
    assert client.get("/v1/run", headers={"Host": "rebound.example"}).status_code == 400
    client = serve(hosts=("[::1]", "[", "localhost"))  # as for an address of IPv6
    for host, status in (("[::1]:8000", 200), ("localhost:8000", 200), ("rebound.example", 400)):
        assert client.get("/v1/run", headers={"Host": host}).status_code == status


def test_the_description_names_keys_and_problems(serve: Any) -> None:
    found = serve().get("/openapi.json").json()
    assert found["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    answers = found["paths"]["/v1/recommend"]["post"]["responses"]
    assert {"401", "422", "429", "503", "504"} <= set(answers)


def test_hashes_come_from_a_file(tmp_path: Path) -> None:
    path, key = tmp_path / "keys", new_key()
    path.write_text(f"# shop\n{key_hash(key)}  the shop\n\n")
    assert is_known(key, read_hashes(path))
    assert not is_known("", read_hashes(path))
    for text, message in (("", "holds no key hash"), (key, "not begin with a SHA-256 hash")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_hashes(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hashes(tmp_path / "missing")


def test_others_are_served_only_with_keys(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --api-keys FILE"):
        start(run, host="0.0.0.0", port=0)
    with pytest.raises(RunError, match="not a run folder"):
        start(tmp_path, host="127.0.0.1", port=0)
    with pytest.raises(ConfigError, match="'max_kk'"):
        start(run, host="127.0.0.1", port=0, limits={"max_kk": 3})
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(ConfigError, match="choose another address with --port"):
        start(run, host="127.0.0.1", port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match="'max_k'"):
        ServeConfig.create(run=run, max_k=0)
    with pytest.raises(StoreError, match="unable to open"):
        start(run, host="127.0.0.1", port=0, store=f"sqlite:///{tmp_path}")
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}.events*"))


def test_what_is_kept_lies_beside_its_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    monkeypatch.setenv(ENVIRONMENT, "")
    folder = tmp_path / "toys-1.0"
    shutil.copytree(run, folder)
    start(folder, host="127.0.0.1", port=8000)
    config = ServeConfig.model_validate_json(os.environ[ENVIRONMENT])
    assert config.store == f"sqlite:///{tmp_path}/toys-1.0.events.db"
    assert config.changes == tmp_path / "toys-1.0.changes.jsonl"
    assert config.hosts == ("127.0.0.1", "localhost", "127.0.0.1")
    limits = {"changes": str(tmp_path / "here.jsonl"), "hosts": ("my.name",)}
    start(folder, host="127.0.0.1", port=8000, limits=limits)
    config = ServeConfig.model_validate_json(os.environ[ENVIRONMENT])
    assert config.changes == tmp_path / "here.jsonl"
    assert config.hosts == ("my.name", "127.0.0.1", "localhost", "127.0.0.1")
    start(folder, host="127.0.0.1", port=8000, limits={"hosts": "my.name", "disliked": "nope"})
    config = ServeConfig.model_validate_json(os.environ[ENVIRONMENT])
    assert (config.hosts[0], config.disliked) == ("my.name", ("nope",))
    (tmp_path / "current").symlink_to(folder)  # each load follows the link anew
    start(tmp_path / "current", host="::1", port=8000)
    config = ServeConfig.model_validate_json(os.environ[ENVIRONMENT])
    assert (config.run, config.store) == (
        tmp_path / "current",
        f"sqlite:///{tmp_path}/current.events.db",
    )
    assert config.hosts == ("[::1]", "[", "localhost", "127.0.0.1")
    (tmp_path / "here.jsonl").write_text("no change\n")
    with pytest.raises(StoreError, match="a line that is not a catalogue change"):
        start(folder, host="127.0.0.1", port=8000, limits=limits)
    with pytest.raises(ConfigError, match="'hosts'"):
        start(folder, host="127.0.0.1", port=8000, limits={"hosts": 5})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_hangup_during_the_start_is_noted() -> None:
    former = signal.getsignal(signal.SIGHUP)
    try:
        note_hangups()
        os.kill(os.getpid(), signal.SIGHUP)
        assert HANGUP.wait(5)
    finally:
        signal.signal(signal.SIGHUP, former)
        HANGUP.clear()
