"""The one way to write files and folders whole, and to store arrays.

A reader never meets a half-written file: everything is written beside its place and moved there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from genrec.arrays import Arrays
from genrec.errors import RunError

CHECKPOINTS = "checkpoints"
LOGS = "logs"

UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError),
    *(RuntimeError, BadZipFile, zlib.error),
)
"""What reading a damaged file can raise."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; the file moves to ``path`` when the block ends well."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line breaks that the text has."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_arrays(path: Path, arrays: Arrays, head: Mapping[str, Any] | None = None) -> None:
    """Write arrays, and a head that JSON can hold, as one ``.npz`` file without pickled objects."""
    named: dict[str, Any] = {**arrays}
    if head is not None:
        named["head"] = np.array(json.dumps(head))
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **named)


def read_arrays(path: Path) -> tuple[Arrays, Any]:
    """The arrays and the head (or ``None``) that :func:`write_arrays` wrote.

    Raises:
        OSError: or another error of :data:`UNREADABLE`, if the file is missing or damaged.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    head = arrays.pop("head", None)
    return arrays, None if head is None else json.loads(str(head))


def is_free(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a folder beside its place, and move it there.

    Raises:
        RunError: something is there already.
    """
    if not is_free(folder):
        raise RunError(f"{folder} exists; name a new folder.")
    replace_folder(folder, write)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a folder beside its place, and move it there; an older one goes then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(work / "new")
        follow_umask(work / "new")
        if not is_free(folder):
            os.replace(folder, work / "old")
        os.replace(work / "new", folder)
    except BaseException:
        if (work / "old").exists():
            os.replace(work / "old", folder)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def follow_umask(folder: Path) -> None:
    """Give the files in a folder the mode that the umask asks for.

    safetensors writes files that only their owner can read: a service under another user could not
    load them.
    """
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
