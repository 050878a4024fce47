"""Files that are there whole or not at all, and the names of what training leaves in a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from genrec.errors import RunError

CHECKPOINTS = "checkpoints"
LOGS = "logs"


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside its place and move it there.

    Raises:
        RunError: something is there already.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunError(f"{folder} exists; name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder.parent) as work:
        write(Path(work) / "whole")
        os.replace(Path(work) / "whole", folder)
