"""Resumable download of a file by URL; an incomplete file never takes the name of the target."""

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

_TRIES = 5  # consecutive tries without a new byte
_PAUSE = 1.0  # seconds before the second try, doubled before each later one
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18  # bytes


class _InterruptedError(Exception):
    """The connection ended early or the server is busy, so another try is worthwhile."""


def download(url: str, target: Path, *, verified: bool) -> None:
    """Download a URL, resuming what an interrupted download left in the ``.part`` file.

    Args:
        url: the URL.
        target: file to write.
        verified: whether the caller checks a checksum afterwards. An incomplete file may then be
            resumed even if the server sends neither an ETag nor a date to identify its version.

    Raises:
        AssetError: the server refuses the request, or several tries in a row fail.
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
                raise  # the disk is full, so another try would fail as well
            failures = 1 if _size(part) > before else failures + 1
            if failures >= _TRIES:
                kept = f"{_size(part)} bytes are kept and will be resumed"
                reason = f"{url} cannot be downloaded ({error}); {kept}"
                raise AssetError(f"{reason}. Check the network and try again.") from error
            time.sleep(_PAUSE * 2 ** (failures - 1))
    os.replace(part, target)
    _validator_file(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, *, verified: bool) -> None:
    """Send one request for the rest of the file, from the end of ``part``."""
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
    """Return the number of usable bytes in ``part``, and the ETag or date that they belong to."""
    validator_file = _validator_file(part)
    validator = validator_file.read_text(encoding="utf-8") if validator_file.exists() else ""
    return (_size(part) if verified or validator else 0), validator


def _accepted_start(response: Any, part: Path, start: int, validator: str) -> int:
    """Return the position of the body in the file: 0 if the server sends the whole file."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    content_range = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    changed = validator and _validator(response.headers) not in ("", validator)
    if content_range is None or int(content_range[1]) != start or changed:
        part.unlink()
        raise _InterruptedError("the server sent another part or version than requested")
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
    """Return if the file is already complete, else raise the error for the HTTP status.

    Raises:
        _InterruptedError: another try may help.
        AssetError: another try cannot help.
    """
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return
        part.unlink(missing_ok=True)
        raise _InterruptedError("the file on the server has changed")
    busy = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
    if error.code >= http.client.INTERNAL_SERVER_ERROR or error.code in busy:
        raise _InterruptedError(f"HTTP {error.code} {error.reason}")
    raise AssetError(
        f"{url} cannot be downloaded: the server answered {error.code} {error.reason}. The file "
        "may have moved; download it from the data set's page and pass its path to genrec."
    )


def _validator(headers: Any) -> str:
    """Return the ETag or date that identifies a version of the file.

    A weak ETag is ignored, because HTTP does not allow it in range requests.
    """
    etag = headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _progress(name: str, total: int | None, done: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error; yields a function that adds to the number of bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def say(line: str) -> None:
    """Print a progress message to standard error."""
    print(f"genrec: {line}", file=sys.stderr, flush=True)
