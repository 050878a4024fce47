"""Checkpoints of a run: which run they belong to, and which is the last complete one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from transformers.trainer_utils import get_last_checkpoint

from genrec.errors import RunError
from genrec.files import CHECKPOINTS_OF, write_text
from genrec.processes import broadcast_from_main, is_main


def claim(checkpoints: Path, identity: dict[str, Any]) -> str:
    """Record which run the checkpoints belong to, or refuse those of a different run.

    Args:
        checkpoints: folder of checkpoints.
        identity: settings and data of the run.

    Returns:
        The main process's folder, for all processes.

    Raises:
        RunError: the folder holds checkpoints of a run with other settings or data.
    """
    path = checkpoints / CHECKPOINTS_OF
    if is_main():
        if path.is_file() and last_whole_checkpoint(checkpoints):
            noted = json.loads(path.read_text())
            differing = sorted(key for key in identity if noted.get(key) != identity[key])
            if differing:
                raise RunError(
                    f"{checkpoints} holds checkpoints of an interrupted run with other settings "
                    f"({', '.join(differing)}). Use its settings to resume it, or delete "
                    "this folder, as `genrec train --restart` does."
                )
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(identity))
    return broadcast_from_main(str(checkpoints))


def refuse_checkpoints(checkpoints: Path, why: str) -> None:
    """Refuse to give up the checkpoints of an interrupted run.

    Args:
        checkpoints: folder of checkpoints.
        why: the reason, for the message.

    Raises:
        RunError: the folder holds checkpoints.
    """
    if last_whole_checkpoint(checkpoints):
        raise RunError(
            f"{checkpoints} holds checkpoints of an interrupted run, but {why}. Use the settings "
            "of that run to resume it, choose another folder, or delete this one."
        )


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """Return the newest complete checkpoint and delete newer, incomplete ones."""
    while last := _last(checkpoints):
        try:  # HF Trainer writes this file last
            json.loads((Path(last) / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(last)
        else:
            return last
    return None


def _last(checkpoints: Path) -> str | None:
    if not checkpoints.is_dir():
        return None
    return cast(str | None, get_last_checkpoint(str(checkpoints)))
