"""Download one file by URL: resumed where it was cut off, never taken for whole when it is not."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genrec._version import __version__
from genrec.errors import AssetError

_TRIES = 5  # in a row without one new byte
_PAUSE = 1.0  # seconds before the second try, doubled before each later one
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18  # bytes


class _InterruptedError(Exception):
    """The connection ended early or the server is busy: worth another try."""


def download(url: str, target: Path, *, verified: bool) -> None:
    """Fetch the URL into `target`; what a cut-off download left in `target`.part is taken up.

    `verified` says that a checksum will be compared afterwards, so that a half file may be resumed
    even where the server gives neither ETag nor date to tell whether the file is still the same.
    """
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part, verified=verified)
            break
        except (_InterruptedError, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # no further try makes room
            failures = 1 if _size(part) > before else failures + 1
            if failures >= _TRIES:
                kept = f"{_size(part)} bytes are kept and will be resumed"
                reason = f"{url}: cannot be downloaded ({error}); {kept}"
                raise AssetError(f"{reason}; check the network and try again") from error
            time.sleep(_PAUSE * 2 ** (failures - 1))
    os.replace(part, target)
    _validator_file(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, *, verified: bool) -> None:
    """One request, from where `part` ends to the end of the file."""
    start, validator = _resume_point(part, verified=verified)
    headers = {"User-Agent": f"genrec/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        ) as response:
            start = _accepted_start(response, part, start, validator)
            _validator_file(part).write_text(_validator(response.headers), encoding="utf-8")
            _append(response, part, start)
    except urllib.error.HTTPError as error:
        error.close()
        _raise_for_status(url, part, start, error)


def _resume_point(part: Path, *, verified: bool) -> tuple[int, str]:
    """Bytes already here that may be kept, and the ETag or date that they belong to."""
    validator_file = _validator_file(part)
    validator = validator_file.read_text(encoding="utf-8") if validator_file.exists() else ""
    return (_size(part) if verified or validator else 0), validator


def _accepted_start(response: Any, part: Path, start: int, validator: str) -> int:
    """Where the body belongs in the file: 0 if the server sends the whole of it after all."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    changed = validator and _validator(response.headers) not in ("", validator)
    if told is None or int(told[1]) != start or changed:
        part.unlink()
        raise _InterruptedError("the server sent another part or version than was asked for")
    return start


def _append(response: Any, part: Path, start: int) -> None:
    length = response.headers.get("Content-Length")
    total = start + int(length) if length and length.isdigit() else None
    with part.open("r+b" if start else "wb") as file, _progress(part.stem, total, start) as advance:
        file.seek(start)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            advance(len(chunk))
    # http.client ends the stream without an error when the connection closes early
    if total is not None and _size(part) < total:
        raise _InterruptedError(f"the connection ended at byte {_size(part)} of {total}")


def _raise_for_status(url: str, part: Path, start: int, error: urllib.error.HTTPError) -> None:
    """Return if the file is complete already; else say whether another try may help."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return
        part.unlink(missing_ok=True)
        raise _InterruptedError("the file on the server has changed")
    busy = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
    if error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in busy:
        raise _InterruptedError(f"HTTP {error.code} {error.reason}")
    raise AssetError(
        f"{url}: the server answered {error.code} {error.reason};"
        " the file may have moved: see the data set's page, and give the file itself to genrec"
    )


def _validator(headers: Any) -> str:
    """What tells one version of the file from another; a weak ETag may not be used with a range."""
    etag = headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _progress(name: str, total: int | None, done: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr; call what it gives with the number of new bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def say(line: str) -> None:
    print(f"genrec: {line}", file=sys.stderr, flush=True)
