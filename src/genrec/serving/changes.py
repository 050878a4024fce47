"""What all processes of a service share: catalogue changes, and that a new run was loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from filelock import FileLock

from genrec.errors import DataError, RunError
from genrec.model.genrec import GenRec
from genrec.serving.problems import StoreError
from genrec.serving.telemetry import log


@dataclass(frozen=True)
class Change:
    """One change of the catalogue.

    Attributes:
        kind: whether the item is added, removed or restored.
        item_id: the item's id.
        title: the title of an added item.
        like: id of a known item that an added item resembles, or ``None``.
    """

    kind: Literal["add", "remove", "restore"]
    item_id: str
    title: str | None = None
    like: str | None = None

    def apply(self, model: GenRec) -> None:
        """Apply the change to a model.

        Raises:
            DataError: An item to add exists already, or an item to remove or restore is unknown.
        """
        if self.kind == "add":
            assert self.title is not None
            model.add_items([self.title], [self.item_id], like=[self.like], by="id")
        elif self.kind == "remove":
            model.remove_items([self.item_id], by="id")
        else:
            model.restore_items([self.item_id], by="id")


class State(NamedTuple):
    """What tells whether a file has changed: its number, size and time."""

    file: int
    size: int
    time: int


class ChangeLog:
    """An append-only file of changes.

    Without a file the changes live in the memory of this process only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._changes: list[Change] = []
        self._read = 0  # number of bytes of the file that were read
        self._looked: State | None = None  # when last read
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{path}.lock")

    def make(self, change: Change, model: GenRec) -> None:
        """Write a change to the file and apply it to a model that has all earlier changes.

        After an error neither the file nor the model has changed.

        Raises:
            DataError: The change does not fit the catalogue.
            StoreError: The file cannot be written.
        """
        if self._path is None:
            change.apply(model)
            self._changes.append(change)
            return
        with self._locked():
            replay(self._read_on(), model)
            try:
                with self._path.open("ab") as file:
                    try:
                        self._append(file, change)
                        change.apply(model)
                    except BaseException:
                        file.truncate(self._read)
                        raise
            except OSError as error:
                raise StoreError(f"{self._path}: {error.strerror}") from None
            self.unread()

    def _append(self, file: BinaryIO, change: Change) -> None:
        """Write a line to the disk, over a partial line that a crash may have left."""
        file.truncate(self._read)
        file.write(json.dumps(asdict(change), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

    def grew(self) -> bool:
        """Return whether the file may hold changes that were not read yet."""
        return _state(self._path) != self._looked

    def unread(self) -> list[Change]:
        """Read and return the new changes of all processes since the last call.

        Raises:
            RunError: A line of the file is not a change. Until the file changes again, no further
                call raises this, so that requests are answered; :meth:`make` does.
            StoreError: The file cannot be read.
        """
        return self._read_on() if self.grew() else []

    def _read_on(self) -> list[Change]:
        """Read and return the changes that were not read yet; errors as in :meth:`unread`."""
        if self._path is None:
            return []
        with self._locked():  # without the lock a line could be read that is then rolled back
            before, self._looked = self._looked, _state(self._path)
            if before and not (self._looked and self._continues(before, self._looked)):
                self._read, self._changes = 0, []
            if self._looked is None:
                return []
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    data = file.read()
            except OSError as error:
                raise StoreError(f"{self._path}: {error.strerror}") from None
        whole = data[: data.rfind(b"\n") + 1]  # without a partial last line after a crash
        try:
            found = [Change(**json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{self._path}: the file holds a line that is not a catalogue change ({error}); "
                "remove the line."
            ) from None
        self._read += len(whole)
        self._changes += found
        return found

    def _continues(self, before: State, now: State) -> bool:
        """Return whether the file still holds what was read: it was not removed or made anew."""
        return before.file == now.file and now.size >= self._read

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the file, which one process at a time has."""
        try:
            self._lock.acquire()
        except OSError as error:
            raise StoreError(f"{self._path}.lock: {error.strerror}") from None
        try:
            yield
        finally:
            self._lock.release()

    def all(self) -> list[Change]:
        """Return all changes, oldest first."""
        self.unread()
        return list(self._changes)


class ReloadSignal:
    """A file beside that of the changes; its time says when a process last loaded a new run.

    Without a file of changes nothing is shared, and no signal arrives.
    """

    def __init__(self, changes: Path | None) -> None:
        self._path = None if changes is None else Path(f"{changes}.reload")
        self._seen = _state(self._path)

    def send(self) -> None:
        """Tell the other processes that the run was loaded again."""
        if self._path is None:
            return
        try:
            # The size grows with each signal, because two may have the same time.
            with self._path.open("ab") as file:
                file.write(b"\n")
        except OSError as error:
            log.error("%s: %s; reload the other processes yourself", self._path, error.strerror)
        self._seen = _state(self._path)

    def arrived(self) -> bool:
        """Return whether another process has sent a signal since the last call."""
        seen, self._seen = self._seen, _state(self._path)
        return self._seen is not None and self._seen != seen


def _state(path: Path | None) -> State | None:
    """Return the state of a file; ``None`` if there is none."""
    try:
        found = None if path is None else path.stat()
    except FileNotFoundError:
        return None
    return found and State(found.st_ino, found.st_size, found.st_mtime_ns)


def replay(changes: list[Change], model: GenRec) -> int:
    """Apply changes to a model and skip those that do not fit.

    A change may not fit because a run that was trained again already holds an added item.

    Returns:
        The number of skipped changes.
    """
    left_out = 0
    for change in changes:
        try:
            change.apply(model)
        except DataError:
            left_out += 1
    return left_out
