"""Functions that write files and folders atomically, and that store arrays.

Everything is written beside its destination and then moved there, so that no reader sees an
incomplete file.
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
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from genrec.arrays import Arrays
from genrec.errors import RunError

CHECKPOINTS = "checkpoints"
"""Folder of training checkpoints in a run folder."""
CHECKPOINTS_OF = "run.json"
"""File in that folder with the settings of the run that the checkpoints belong to."""
LOGS = "logs"
"""Folder of TensorBoard logs in a run folder."""

UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError),
    *(RuntimeError, BadZipFile, zlib.error),
)
"""Errors that reading a damaged file can raise."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; the file is moved to ``path`` on success."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files that killed processes have left; see :func:`replacing`."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line breaks of the text."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_arrays(path: Path, arrays: Arrays, head: Mapping[str, Any] | None = None) -> None:
    """Write arrays, and a JSON-serialisable head, to one ``.npz`` file without pickled objects."""
    named: dict[str, Any] = {**arrays}
    if head is not None:
        named["head"] = np.array(json.dumps(head))
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **named)


def read_arrays(path: Path) -> tuple[Arrays, Any]:
    """Return the arrays and the head (or ``None``) that :func:`write_arrays` wrote.

    Raises:
        OSError: the file is missing or damaged; damage can also raise another error of
            :data:`UNREADABLE`.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    head = arrays.pop("head", None)
    return arrays, None if head is None else json.loads(str(head))


def write_array_folder(folder: Path, arrays: Arrays) -> None:
    """Write one ``.npy`` file per array into a new folder, for :func:`map_array_folder`."""
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def map_array_folder(folder: Path, *, writable: bool = False) -> Arrays:
    """Memory-map the arrays of a folder.

    The operating system reads pages when they are needed, and processes share them.

    Args:
        folder: the folder with one file per array.
        writable: let the process change its own copy of a page; the files never change.

    Raises:
        OSError: a file cannot be read.
    """
    arrays = {}
    for path in folder.glob("*.npy"):
        try:
            mode: Literal["c", "r"] = "c" if writable else "r"
            arrays[path.stem] = np.load(path, mmap_mode=mode, allow_pickle=False)
        except UNREADABLE as error:
            raise OSError(f"{path.name}: {error}") from None
    return arrays


def is_free(folder: Path) -> bool:
    """Return whether the path does not exist or is an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` create a folder beside its destination, then move it there.

    Raises:
        RunError: the destination exists and is not an empty folder.
    """
    if not is_free(folder):
        raise RunError(f"{folder} already exists. Choose a new folder.")
    replace_folder(folder, write)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` create a folder beside its destination, then move it there.

    An older folder is replaced; if the move fails, it is restored. A link stays one.

    Raises:
        RunError: the destination is the current folder.
    """
    if folder.resolve() == Path.cwd():
        raise RunError(
            f"{folder} is the current folder, which cannot be replaced. Name another one, e.g. "
            f"{folder / 'out'}."
        )
    folder = folder.resolve()
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
    """Give the files in a folder the mode of newly created files, according to the umask.

    safetensors writes files that only their owner can read, so a service under another user could
    not load them.
    """
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
