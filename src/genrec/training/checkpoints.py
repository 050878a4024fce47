"""Checkpoints of a run: whose they are, and which is the last whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from transformers.trainer_utils import get_last_checkpoint

from genrec.errors import RunError
from genrec.files import write_text
from genrec.processes import broadcast_from_main, is_main

IDENTITY = "run.json"


def claim(checkpoints: Path, identity: dict[str, Any]) -> str:
    """Note whose checkpoints these are, or refuse those of a different run.

    Returns:
        The folder for all processes, the main one's.
    """
    path = checkpoints / IDENTITY
    if is_main():
        if path.is_file() and last_whole_checkpoint(checkpoints):
            noted = json.loads(path.read_text())
            differing = sorted(key for key in identity if noted.get(key) != identity[key])
            if differing:
                raise RunError(
                    f"{checkpoints}: a run with other settings ({', '.join(differing)}) was cut "
                    "off here. Repeat its settings to go on, or drop its checkpoints with "
                    "--restart."
                )
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(identity))
    return broadcast_from_main(str(checkpoints))


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    while last := cast(str | None, get_last_checkpoint(str(checkpoints))):
        try:  # HF Trainer writes this file last
            json.loads((Path(last) / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(last)
        else:
            return last
    return None
