"""What all processes of a service share: catalogue changes, and that a new run was loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from filelock import FileLock

from genrec.errors import DataError
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
        _apply([self], model)


def _change(fields: dict[str, Any]) -> Change:
    """Return a change that was read; a ValueError or TypeError says why it is none."""
    change = Change(**fields)
    texts = [change.item_id] + ([change.title] if change.kind == "add" else [])
    texts += [] if change.like is None else [change.like]
    if change.kind not in ("add", "remove", "restore") or not all(
        isinstance(text, str) for text in texts
    ):
        raise ValueError("it lacks a kind, an item_id or a title")
    return change


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

    def copy(self) -> ChangeLog:
        """Return a log of the same file, or of the same changes, that is read by itself."""
        other = ChangeLog(self._path)
        other._changes = [] if self._path else list(self._changes)
        return other

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
            StoreError: The file cannot be read, or a line of it is not a change. Until the file
                changes again, no further call raises this, so that requests are answered;
                :meth:`make` does.
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
            found = [_change(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise StoreError(
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

    def state(self) -> State | None:
        """Return the state of the file, which :meth:`send` wants to know."""
        return _state(self._path)

    def send(self, before: State | None) -> None:
        """Tell the other processes that the run was loaded again.

        Args:
            before: the state before it was loaded. A signal that another process has sent since
                then still arrives, because its run may be newer.
        """
        if self._path is None:
            return
        alone = _state(self._path) == before
        try:
            # The size grows with each signal, because two may have the same time.
            with self._path.open("ab") as file:
                file.write(b"\n")
        except OSError as error:
            log.error("%s: %s; reload the other processes yourself", self._path, error.strerror)
        self._seen = _state(self._path) if alone else before

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


def replay(changes: Sequence[Change], model: GenRec) -> int:
    """Apply changes to a model; skip those that do not fit, and log how many they are.

    A change may not fit because a run that was trained again already holds an added item.

    Returns:
        The number of skipped changes.
    """
    left_out = 0
    for together in _together(changes):
        try:
            _apply(together, model)
        except DataError:
            left_out += sum(not _fits(each, model) for each in together)
    if left_out:
        log.warning("skipped %d catalogue changes that do not fit the run", left_out)
    return left_out


def _together(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yield runs of changes of one kind that do not build on each other."""
    run: list[Change] = []
    ids: set[str | None] = set()
    for change in changes:
        if run and (change.kind != run[0].kind or change.like in ids):
            yield run
            run, ids = [], set()
        run.append(change)
        ids.add(change.item_id)
    if run:
        yield run


def _apply(changes: Sequence[Change], model: GenRec) -> None:
    """Apply changes of one kind, which is much faster together; errors as in Change.apply."""
    ids = [each.item_id for each in changes]
    if changes[0].kind == "add":
        titles, like = [each.title or "" for each in changes], [each.like for each in changes]
        model.add_items(titles, ids, like=like, by="id")
    elif changes[0].kind == "remove":
        model.remove_items(ids, by="id")
    else:
        model.restore_items(ids, by="id")


def _fits(change: Change, model: GenRec) -> bool:
    """Apply one change if it fits; return whether it did."""
    try:
        change.apply(model)
    except DataError:
        return False
    return True
