"""Files that are there whole or not at all, and the names of what training leaves in a run."""

from __future__ import annotations

import os
from pathlib import Path

CHECKPOINTS = "checkpoints"
LOGS = "logs"


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
