"""Catalogue changes that outlive a restart, and reach every process that serves the same run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock

from genrec.errors import DataError, RunError
from genrec.model.genrec import GenRec
from genrec.serving.problems import StoreError


@dataclass(frozen=True)
class Change:
    """One item added (with a title, and the id of one that it is like), removed or restored."""

    kind: Literal["add", "remove", "restore"]
    item_id: str
    title: str | None = None
    like: str | None = None

    def apply(self, model: GenRec) -> None:
        """Change a model.

        Raises:
            DataError: the item is there already, or not.
        """
        if self.kind == "add":
            assert self.title is not None
            model.add_items([self.title], [self.item_id], like=[self.like], by="id")
        elif self.kind == "remove":
            model.remove_items([self.item_id], by="id")
        else:
            model.restore_items([self.item_id], by="id")


class ChangeLog:
    """An append-only file of changes, or only this process's memory if there is no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._changes: list[Change] = []
        self._read = 0  # bytes of the file
        self._looked: tuple[int, int] | None = None  # size and time of the file at the last look
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{path}.lock")

    def make(self, change: Change, model: GenRec) -> None:
        """Keep a change on the disk and change a model that has all earlier changes.

        Raises:
            DataError: the change does not fit, and nothing has changed.
            StoreError: the file cannot be written, and nothing has changed.
        """
        if self._path is None:
            change.apply(model)
            self._changes.append(change)
            return
        with self._lock:
            replay(self.unread(), model)
            with self._path.open("ab") as file:
                try:
                    self._append(file, change)
                    change.apply(model)
                except BaseException as error:
                    file.truncate(self._read)
                    if isinstance(error, OSError):
                        raise StoreError(f"{self._path}: {error.strerror}") from None
                    raise
            self.unread()

    def _append(self, file: BinaryIO, change: Change) -> None:
        """Write a line to the disk, in the place of one that a crash may have cut off."""
        file.truncate(self._read)
        file.write(json.dumps(asdict(change), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

    def grew(self) -> bool:
        """Whether there may be changes that were not looked at."""
        return self._state() != self._looked

    def _state(self) -> tuple[int, int] | None:
        try:
            found = None if self._path is None else self._path.stat()
        except FileNotFoundError:
            found = None
        return found and (found.st_size, found.st_mtime_ns)

    def unread(self) -> list[Change]:
        """Changes that came since the last look, from any process.

        Raises:
            RunError: a line is no change.
        """
        if self._path is None or not self.grew():
            return []
        with self._lock:  # or a line might be read that is taken back
            self._looked = self._state()
            if self._looked is None or self._looked[0] < self._read:  # somebody removed it
                self._read = 0
            if self._looked is None:
                return []
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        whole = data[: data.rfind(b"\n") + 1]  # a crash may have cut the last line off
        try:
            found = [Change(**json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path}: holds a line that is no change ({error}).") from None
        self._read += len(whole)
        self._changes += found
        return found

    def all(self) -> list[Change]:
        """All changes, oldest first."""
        self.unread()
        return list(self._changes)


def replay(changes: list[Change], model: GenRec) -> int:
    """Apply changes; those that do not fit are left out.

    Returns:
        How many were left out: a run that was trained anew may know an item already.
    """
    left_out = 0
    for change in changes:
        try:
            change.apply(model)
        except DataError:
            left_out += 1
    return left_out
