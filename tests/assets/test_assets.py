from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec.assets import download, gguf
from genrec.assets import known as assets
from genrec.assets.cache import Asset, Part, cache_dir
from genrec.errors import AssetError

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes: more than one chunk
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Site(http.server.ThreadingHTTPServer):
    """A file server on the loopback address that can misbehave in the ways real ones do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut_at: list[int] = []  # each of the next answers ends after so many bytes
        self.statuses: list[int] = []  # each of the next requests is answered with this error
        self.ranges = True
        self.etag: str | None = '"v1"'
        self.shift = 0  # how far Content-Range is off the truth
        self.requests: list[dict[str, str]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server
        site.requests.append(dict(self.headers.items()))
        body = site.files.get(self.path.lstrip("/"))
        if site.statuses or body is None:
            self.send_error(site.statuses.pop(0) if site.statuses else 404)
            return
        start = self._start() if site.ranges else 0
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            told = start + site.shift
            self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        end = site.cut_at.pop(0) if site.cut_at else len(body)
        self.wfile.write(body[start:end])

    def _start(self) -> int:
        wanted = self.headers.get("Range", "bytes=0-")
        changed = self.headers.get("If-Range", self.server.etag) != self.server.etag
        return 0 if changed else int(wanted.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GENREC_CACHE", str(folder))
    monkeypatch.setattr(download, "_PAUSE", 0.001)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    server.files["data.bin"] = BODY
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(site: Site, folder: Path, *, verified: bool = False) -> bytes:
    target = folder / "data.bin"
    download.download(site.url("data.bin"), target, verified=verified)
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["data.bin"]
    return target.read_bytes()


def test_download_in_one_go(site: Site, tmp_path: Path) -> None:
    assert fetch(site, tmp_path) == BODY
    assert "Range" not in site.requests[0]


def test_cut_off_download_is_resumed_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.cut_at = [300_000, 700_000]
    assert fetch(site, tmp_path) == BODY
    assert [request.get("Range") for request in site.requests] == [
        None,
        "bytes=300000-",
        "bytes=700000-",
    ]
    assert site.requests[1]["If-Range"] == '"v1"'


def test_half_a_download_is_kept_for_the_next_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    site.cut_at = [300_000]
    with pytest.raises(AssetError, match="300000 bytes are kept and will be resumed"):
        fetch(site, tmp_path)
    assert fetch(site, tmp_path) == BODY
    assert site.requests[-1]["Range"] == "bytes=300000-"


def test_a_server_without_ranges_sends_the_whole_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cut_at = False, [300_000]
    assert fetch(site, tmp_path) == BODY
    assert len(site.requests) == 2


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TRIES", 1)
    site.files["data.bin"], site.cut_at = b"x" * len(BODY), [300_000]
    with pytest.raises(AssetError):
        fetch(site, tmp_path)
    site.files["data.bin"], site.etag = BODY, '"v2"'
    assert fetch(site, tmp_path) == BODY


def test_a_wrong_content_range_starts_afresh(site: Site, tmp_path: Path) -> None:
    site.cut_at, site.shift = [300_000], 5
    assert fetch(site, tmp_path) == BODY
    assert [request.get("Range") for request in site.requests] == [None, "bytes=300000-", None]


@pytest.mark.parametrize(("verified", "second"), [(True, "bytes=300000-"), (False, None)])
def test_without_etag_only_a_checksum_allows_to_resume(
    site: Site, tmp_path: Path, verified: bool, second: str | None
) -> None:
    site.etag, site.cut_at = None, [300_000]
    assert fetch(site, tmp_path, verified=verified) == BODY
    assert site.requests[1].get("Range") == second


def test_a_part_that_is_already_whole_is_taken(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(BODY)
    assert fetch(site, tmp_path, verified=True) == BODY


def test_a_part_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(BODY + b"!")
    assert fetch(site, tmp_path, verified=True) == BODY


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    assert fetch(site, tmp_path) == BODY
    assert len(site.requests) == 4


def test_not_found_is_said_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"missing\.zip .*the server answered 404"):
        download.download(site.url("missing.zip"), tmp_path / "missing.zip", verified=False)
    assert len(site.requests) == 1


def test_no_server_at_all(tmp_path: Path) -> None:
    server = Site()
    url = server.url("data.bin")
    server.server_close()
    with pytest.raises(AssetError, match=r"cannot be downloaded .*Check the network"):
        download.download(url, tmp_path / "data.bin", verified=False)


# ---- from an archive to a folder in the cache


def known(monkeypatch: pytest.MonkeyPatch, *parts: Part) -> None:
    asset = Asset("tiny", "dataset", parts, "CC0-1.0", 123)
    monkeypatch.setattr(assets, "_catalogue", lambda kind: {"tiny": asset})


def zipped(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def files_in(cache: Path) -> list[str]:
    paths = [path for path in cache.rglob("*") if path.is_file()]
    return [path.name for path in paths if path.suffix != ".lock"]


def test_a_zip_becomes_a_folder_with_a_record(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    members = {"tiny/ratings.csv": BODY, "../../evil.csv": b"out of here"}
    archive = zipped(tmp_path / "tiny.zip", members)
    site.files["tiny.zip"] = archive
    url = site.url("tiny.zip")
    known(monkeypatch, Part(url, sha256(archive), {"tiny/ratings.csv": "ratings.csv"}))
    assert not assets.list_assets()[0].cached

    folder = assets.dataset_files("tiny")

    assert folder == cache / "datasets" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["asset.json", "ratings.csv"]
    assert (folder / "ratings.csv").read_bytes() == BODY
    record = json.loads((folder / "asset.json").read_text())
    assert record["licence"] == "CC0-1.0"
    assert record["downloads"] == {url: sha256(archive)}
    files = {"ratings.csv": {"bytes": len(BODY), "sha256": sha256(BODY).removeprefix("sha256:")}}
    assert record["files"] == files
    assert not list(tmp_path.rglob("evil.csv"))
    assert not list((cache / "downloads").iterdir())
    assert assets.list_assets()[0].cached
    assets.dataset_files("tiny")
    assert len(site.requests) == 1


def test_gzipped_files_are_unpacked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["log.json.gz"] = gzip.compress(BODY)
    known(monkeypatch, Part(site.url("log.json.gz"), "", {"": "interactions.jsonl"}))
    assert (assets.dataset_files("tiny") / "interactions.jsonl").read_bytes() == BODY


def test_a_wrong_checksum_removes_the_download_and_leaves_no_folder(
    site: Site, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    known(monkeypatch, Part(site.url("data.bin"), "md5:" + "0" * 32, {"": "data"}))
    with pytest.raises(
        AssetError, match=r"md5 of .* is [0-9a-f]{32}, not 0{32}; the download was removed"
    ):
        assets.dataset_files("tiny")
    assert [
        path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    ] == []


@pytest.mark.parametrize(
    ("member", "content"),
    [("", b"no gzip"), ("", gzip.compress(BODY)[:-2000]), ("a", b"no zip"), ("a", None)],
)
def test_what_is_not_the_expected_archive(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    member: str,
    content: bytes | None,
) -> None:
    other = zipped(tmp_path / "other.zip", {"b": b""})
    site.files["file"] = other if content is None else content
    known(monkeypatch, Part(site.url("file"), "", {member: "out"}))
    with pytest.raises(AssetError, match="not the archive that was expected"):
        assets.dataset_files("tiny")
    assert [
        path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    ] == []


def test_the_first_checksum_holds_where_none_is_published(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["log.gz"] = gzip.compress(b"first", mtime=0)
    known(monkeypatch, Part(site.url("log.gz"), "", {"": "log"}))
    log = assets.dataset_files("tiny") / "log"
    log.unlink()
    site.files["log.gz"] = gzip.compress(b"second", mtime=0)
    with pytest.raises(AssetError, match="the source has changed"):
        assets.dataset_files("tiny")
    site.files["log.gz"] = gzip.compress(b"first", mtime=0)
    assert (assets.dataset_files("tiny") / "log").read_bytes() == b"first"


def test_a_damaged_folder_is_fetched_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["log.gz"] = gzip.compress(BODY)
    known(monkeypatch, Part(site.url("log.gz"), "", {"": "log"}))
    log = assets.dataset_files("tiny") / "log"
    log.write_bytes(b"cut")
    assert (assets.dataset_files("tiny") / "log").read_bytes() == BODY


def test_two_processes_fetch_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["log.gz"] = gzip.compress(BODY)
    known(monkeypatch, Part(site.url("log.gz"), "", {"": "log"}))
    threads = [threading.Thread(target=assets.dataset_files, args=["tiny"]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (assets.dataset_files("tiny") / "log").read_bytes() == BODY
    assert len(site.requests) == 1


def test_a_cache_that_cannot_be_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "file"))
    known(monkeypatch, Part(site.url("data.bin"), SHA256, {"": "data"}))
    with pytest.raises(AssetError, match="set GENREC_CACHE to a folder that can be written"):
        assets.dataset_files("tiny")


# ---- wheels, through the real pip and a local folder in place of the index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def tiny_wheel(folder: Path) -> bytes:
    info = "tinydata-1.0.dist-info"
    return zipped(
        folder / "tinydata-1.0-py3-none-any.whl",
        {
            "tinydata/log.inter": BODY,
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        },
    )


def test_a_wheel_is_downloaded_checked_and_opened(
    index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tiny_wheel(index)
    members = {"tinydata/log.inter": "log.inter"}
    known(monkeypatch, Part("tinydata==1.0", sha256(wheel), members))
    assert (assets.dataset_files("tiny") / "log.inter").read_bytes() == BODY
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "downloading tinydata==1.0" in captured.err


def test_a_wheel_with_a_wrong_checksum(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_wheel(index)
    known(monkeypatch, Part("tinydata==1.0", "sha256:" + "0" * 64, {"a": "a"}))
    with pytest.raises(AssetError, match=r"sha256 of tinydata==1\.0 is"):
        assets.dataset_files("tiny")


def test_a_wheel_that_pip_cannot_get(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, Part("tinydata==1.0", "sha256:0", {"a": "a"}))
    with pytest.raises(
        AssetError, match=r"pip could not download tinydata==1\.0 .*Check the network"
    ):
        assets.dataset_files("tiny")


def test_a_python_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    known(monkeypatch, Part("tinydata==1.0", "sha256:0", {"a": "a"}))
    with pytest.raises(AssetError, match=r"has no pip; run .* -m ensurepip"):
        assets.dataset_files("tiny")


# ---- names


def test_every_name_is_known_once_and_nothing_is_fetched_to_list_them() -> None:
    listed = assets.list_assets()
    names = [asset.name for asset in listed]
    assert len(set(names)) == len(names) == 2 + 4 + 24 + 29 + 34
    assert {"smollm2-135m", "ml-100k", "ml-1m", "ml-25m", "ml-32m"} < set(names)
    assert "amazon-2014/Toys_and_Games" in names
    assert not any(asset.cached for asset in listed)
    assert all(asset.licence and asset.source for asset in listed)


def test_folders_and_hub_ids_are_backbones_as_they_are(tmp_path: Path) -> None:
    assert assets.backbone_folder(str(tmp_path)) == str(tmp_path)
    assert assets.backbone_folder("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("name", ["", "smollm", "/no/such/folder", "../up", "a/b/c"])
def test_other_backbones_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(AssetError, match=r"smollm2-135m.*existing folder.*org/name"):
        assets.backbone_folder(name)


def test_an_unknown_data_set_names_the_known_ones() -> None:
    with pytest.raises(AssetError, match=r"Did you mean 'ml-100k'.*ml-32m, amazon-2014/CATEGORY"):
        assets.dataset_files("ml100k")
    with pytest.raises(AssetError, match=r"'amazon-2014/Toys_and_Games'.*amazon-2014/Video_Games"):
        assets.dataset_files("amazon-2014/Toys_and_Game")


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("GENREC_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/elsewhere")
    assert cache_dir() == Path("/var/elsewhere/genrec")


@pytest.mark.e2e
def test_movielens_100k_from_the_package_index() -> None:
    folder = assets.dataset_files("ml-100k")
    log = (folder / "ml-100k.inter").read_text()
    assert log.startswith("user_id:token\titem_id:token\trating:float\ttimestamp:float\n")
    assert log.count("\n") in (100_000, 100_001)  # a header and 100,000 ratings
    assert "Toy Story" in (folder / "ml-100k.item").read_text()


def test_a_gguf_file_in_pieces_is_joined_in_order(tmp_path: Path) -> None:
    for number, content in ((1, b"second"), (0, b"first "), (2, b" third")):
        (tmp_path / f"model.gguf.part{number:02d}").write_bytes(content)
    whole = gguf._joined(tmp_path)
    assert whole == tmp_path / "model.gguf"
    assert whole.read_bytes() == b"first second third"
    assert list(tmp_path.iterdir()) == [whole]
    assert gguf._joined(tmp_path) == whole
