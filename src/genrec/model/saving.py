"""How a run is saved: it replaces an older one as a whole, and an interruption loses nothing.

The files are written to a hidden folder inside of the run folder and then exchanged.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from genrec.errors import RunError
from genrec.files import CHECKPOINTS, CHECKPOINTS_OF, LOGS, follow_umask, is_free, write_text
from genrec.model.model_card import notes_of
from genrec.processes import is_main, log

TRAINING_LOG = "train.log"
"""File with the announced stages of training; it begins before the first checkpoint."""
STATES = "title_states.safetensors"
"""File with the title states of a run that has context layers."""
SHIPPED_PRIOR = "prior.npz"
"""The prior in one compressed file, in shipped models and in runs of older versions."""
RUN_FILES = (
    "genrec.json",
    "config.yaml",
    "catalogue.parquet",
    "index",
    STATES,
    "prior",
    SHIPPED_PRIOR,
    "head.safetensors",
    "adapter",
    "backbone",
    "metrics.json",
    "report.html",
    "report.md",
    "README.md",
)
"""Files and folders of a run. Older ones are removed when a run is saved over them."""
LOCK, TRAINING_LOCK = ".lock", ".training.lock"
"""Files that a process locks while it saves a run to the folder, and while it trains one there."""
SAVING = ".saving-"
"""Beginning of the name of the hidden folder with a run that is being saved."""
NEW, OLD, EMPTIED = "new", "old", "emptied"
"""Its folders with the newer and the older run, and a file that shows that the latter has moved."""


def check_folder(folder: Path) -> None:
    """Check that a run can be written to a folder without overwriting anything else.

    Raises:
        RunError: ``folder`` is a file, or a non-empty folder that holds no run.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose a folder for the run.")
    if not is_free(folder) and not _is_run(folder):
        raise RunError(f"{folder} is not empty and is not a run folder; choose another folder.")


def _is_run(folder: Path) -> bool:
    """Return whether a folder holds a run, or what an interrupted process has written."""
    marks = (folder / "genrec.json", folder / CHECKPOINTS / CHECKPOINTS_OF)
    if any(mark.exists() for mark in marks) or interrupted_save(folder):
        return True
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return not found or (
        TRAINING_LOG in found and found <= {*RUN_FILES, CHECKPOINTS, LOGS, TRAINING_LOG}
    )


def replace_run(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a run to a temporary folder and then replace the files of an older run.

    The section "Notes" of an older card, which people write by hand, is kept. Checkpoints are
    deleted at the end. In a distributed run only the main process writes.

    Args:
        folder: run folder.
        write: writes the run into an empty folder.

    Raises:
        RunError: ``folder`` is a file, or a non-empty folder that holds no run.
    """
    if not is_main():
        return
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / LOCK):  # another process may save a run to the same folder
        _restore(folder)
        work = Path(tempfile.mkdtemp(prefix=SAVING, dir=folder))
        new, old = work / NEW, work / OLD
        try:
            for each in (new, old):
                each.mkdir()
            write(new)
            if (card := new / "README.md").exists():
                write_text(card, card.read_text(encoding="utf-8") + notes_of(folder / "README.md"))
            follow_umask(new)
            _exchange(folder, new, old)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def interrupted_save(folder: Path) -> Path | None:
    """Return the folder with the run that a killed process was replacing, if there is one."""
    left = (work / OLD for work in folder.glob(f"{SAVING}*"))
    return next((old for old in left if (old / "genrec.json").exists()), None)


def _restore(folder: Path) -> None:
    """Undo what killed processes have left: put the older run back, remove half-written ones."""
    old = interrupted_save(folder)
    if old is not None and not (folder / "genrec.json").exists():
        if (old.parent / EMPTIED).exists():  # what the folder holds belongs to the newer run
            for name in RUN_FILES:
                _remove(folder / name)
            (old.parent / EMPTIED).unlink()  # what comes back is not to be removed again
        _move(old, folder, RUN_FILES[::-1])
    for left in folder.glob(f"{SAVING}*"):
        shutil.rmtree(left)


def _exchange(folder: Path, new: Path, old: Path) -> None:
    """Move a run out of a folder and another one into it; after an error all is as before.

    ``genrec.json`` leaves first and comes last, because it marks a run as complete.
    """
    moved: list[str] = []
    try:
        _move(folder, old, RUN_FILES)
        (old.parent / EMPTIED).touch()
        for name in reversed(RUN_FILES):
            moved.append(name)
            _move(new, folder, [name])
    except BaseException:
        for name in moved:
            _remove(folder / name)
        (old.parent / EMPTIED).unlink(missing_ok=True)
        _move(old, folder, RUN_FILES[::-1])
        raise


def _move(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).exists():
            os.replace(source / name, target / name)


@contextmanager
def checkpoint_folder(output: str | Path | None) -> Iterator[Path]:
    """Yield the folder for checkpoints: in the run folder, or a temporary one without it.

    Raises:
        RunError: another process is training a run in the folder.
    """
    if output is not None:
        folder = Path(output)
        with _alone(folder) if is_main() else nullcontext():
            yield folder / CHECKPOINTS
        return
    with tempfile.TemporaryDirectory(prefix="genrec-") as temporary:
        yield Path(temporary)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder, with whose checkpoints they would go on."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / TRAINING_LOCK, blocking=False):
            yield
    except Timeout:
        raise RunError(
            f"{folder}: another process is training a run in this folder; choose another one, or "
            "wait until it ends."
        ) from None


@contextmanager
def _locked(path: Path, *, blocking: bool = True) -> Iterator[None]:
    """Hold a lock; on a file system that has none, go on without it.

    Raises:
        Timeout: another process holds it, and ``blocking`` is false.
    """
    lock = FileLock(path, blocking=blocking)
    try:
        lock.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        log.info("%s cannot be locked (%s); no other process may use this folder", path, error)
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
