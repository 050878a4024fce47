"""One model that answers many: requests that wait together go through it in one pass."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.errors import ConfigError, GenRecError
from genrec.model.genrec import GenRec
from genrec.model.session import KeyValueStore
from genrec.recommender import recommendations
from genrec.search.key_values import KeyValues
from genrec.serving.changes import Change, ChangeLog, replay
from genrec.serving.config import ServeConfig
from genrec.serving.lookup import Lookup
from genrec.serving.problems import Problem
from genrec.serving.queries import Answer, Query, allowed_items
from genrec.serving.telemetry import Telemetry, log

T = TypeVar("T")


@dataclass(eq=False)
class Loaded:
    """A model, how to look up its titles, and the keys and values of histories it has read."""

    model: GenRec
    lookup: Lookup
    store: KeyValueStore

    @property
    def catalogue(self) -> Catalogue:
        return self.model.catalogue


@dataclass(eq=False)
class _Job:
    query: Query
    loaded: Loaded  # indices are of this model's catalogue
    deadline: float
    done: asyncio.Future[Answer] = field(repr=False)
    waits: bool = True


@dataclass(frozen=True, eq=False)
class _Found:
    """An answer without its reasons, and what they are made of."""

    answer: Answer
    listed: list[int]
    read: KeyValues


class Engine:
    """Runs batches in a thread of its own; everything else stays in the event loop.

    ``start`` and ``stop`` belong to the application's life; nothing is loaded before.
    """

    def __init__(
        self, config: ServeConfig, telemetry: Telemetry, model: GenRec | None = None
    ) -> None:
        """Serve ``config.run``; ``model`` is that run, if it is loaded already."""
        self.config, self.telemetry, self._first = config, telemetry, model
        self.ready = False
        self._log = ChangeLog(config.changes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._waiting = 0  # jobs in the queue that somebody still waits for
        self._loaded: Loaded | None = None
        self._reloading = False
        self._to_explain: deque[tuple[_Job, _Found]] = deque()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the run, warm it up, and begin to answer."""
        await self._load(self._first)
        self._first = None
        self._dispatcher = asyncio.create_task(self._dispatch())
        self.ready = True

    async def stop(self) -> None:
        """Answer what waits, for ``config.drain`` seconds at most, and end."""
        self.ready = False
        try:
            await asyncio.wait_for(self._queue.join(), self.config.drain)
        except TimeoutError:
            log.warning("requests were still waiting at the end")
        self._dispatcher.cancel()
        self._thread.shutdown(wait=True)

    async def reload(self) -> None:
        """Read the run folder again and put it in the place of the old one between two batches.

        Raises:
            Problem: another reload is under way, or the folder is not a whole run; the old one goes
                on.
        """
        if self._reloading:
            raise Problem(409, "The run is being read again already.", {"Retry-After": "10"})
        self._reloading = True
        try:
            await self._load()
            self.telemetry.reloads.labels("done").inc()
        except GenRecError as error:
            self.telemetry.reloads.labels("failed").inc()
            log.error("the run could not be read again: %s", error)
            detail = "The run folder is no whole run, the log says why; the old run goes on."
            raise Problem(409, detail) from None
        finally:
            self._reloading = False

    @property
    def loaded(self) -> Loaded:
        """The model that answers now."""
        assert self._loaded is not None, "start() comes first"
        return self._loaded

    async def current(self) -> Loaded:
        """The model that answers now, with all that other processes have changed."""
        if self._log.grew():
            await self._in_thread(self._catch_up)
        await self._refresh(self.loaded)
        return self.loaded

    async def _load(self, model: GenRec | None = None) -> None:
        if model is None:
            model = await asyncio.to_thread(load_model, self.config.run)
        await self._in_thread(partial(self._adopt, model))

    def _adopt(self, model: GenRec) -> None:
        """In the model's thread, so that no catalogue change falls between two models."""
        if left_out := replay(self._log.all(), model):
            log.warning("%d catalogue changes do not fit this run", left_out)
        self._loaded = Loaded(
            model, _lookup(model.catalogue), KeyValueStore(self.config.session_bytes)
        )

    # -- answers ---------------------------------------------------------------------------------

    async def recommend(self, query: Query, loaded: Loaded) -> Answer:
        """Answer a query whose indices are of ``loaded``.

        Raises:
            Problem: too many wait (503), or the deadline has passed (504).
        """
        if self._waiting >= self.config.max_queue:
            raise Problem(503, "Too many requests wait.", {"Retry-After": "1"})
        seconds = self.config.deadline
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        job = _Job(query, loaded, time.monotonic() + seconds, done)
        self._queue.put_nowait(job)
        self._count(1)
        try:
            return await asyncio.wait_for(done, seconds)
        except TimeoutError:
            raise Problem(504, f"No answer within {seconds:g} s.", {"Retry-After": "2"}) from None
        finally:
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        """A job's turn has come, or nobody waits for it any more: its place is free."""
        if job.waits:
            job.waits = False
            self._count(-1)

    def _count(self, change: int) -> None:
        self._waiting += change
        self.telemetry.queue.set(self._waiting)

    async def _dispatch(self) -> None:
        """Take what waits, as much as fits one batch, again and again.

        Reasons cost more than an answer: one explanation at a time, between two batches.
        """
        while True:
            jobs = [] if self._to_explain else [await self._queue.get()]
            while len(jobs) < self.config.max_batch and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            for job in jobs:
                self._leave(job)
            wanted = [job for job in jobs if self._still_wanted(job)]
            for loaded in {id(job.loaded): job.loaded for job in wanted}.values():
                await self._answer([job for job in wanted if job.loaded is loaded])
            if self._to_explain:
                await self._give_reasons(*self._to_explain.popleft())

    def _still_wanted(self, job: _Job) -> bool:
        if job.done.done():  # its client went away
            why = "cancelled"
        elif time.monotonic() >= job.deadline:
            why = "deadline"
        else:
            return True
        self.telemetry.dropped.labels(why).inc()
        self._queue.task_done()
        return False

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        """One pass for all; if it fails, one for each, so that no request spoils another's."""
        started = time.monotonic()
        loaded, queries = jobs[0].loaded, [job.query for job in jobs]
        try:
            found: list[_Found | Exception] = [
                *await self._in_thread(lambda: self._run(loaded, queries))
            ]
        except Exception:
            log.exception("a batch of %d failed", len(jobs))
            found = [await self._tried(partial(self._run_one, loaded, query)) for query in queries]
        self.telemetry.batch.observe(len(jobs))
        self.telemetry.pass_seconds.observe(time.monotonic() - started)
        for job, each in zip(jobs, found, strict=True):
            if isinstance(each, _Found) and job.query.explain:
                self._to_explain.append((job, each))
            else:
                self._resolve(job, each if isinstance(each, Exception) else each.answer)

    async def _give_reasons(self, job: _Job, found: _Found) -> None:
        if self._still_wanted(job):
            explain = partial(self._explain, job.loaded, job.query, found)
            self._resolve(job, await self._tried(explain))

    def _resolve(self, job: _Job, answer: Answer | Exception) -> None:
        self._queue.task_done()
        if job.done.done():
            return
        if isinstance(answer, Exception):
            job.done.set_exception(answer)
        else:
            job.done.set_result(answer)

    async def _tried(self, call: Callable[[], T]) -> T | Exception:
        try:
            return await self._in_thread(call)
        except Exception as error:
            return error

    def _run_one(self, loaded: Loaded, query: Query) -> _Found:
        return self._run(loaded, [query])[0]

    def _run(self, loaded: Loaded, queries: Sequence[Query]) -> list[_Found]:
        """In the model's thread."""
        self._catch_up()
        ranker, size = loaded.model.ranker, len(loaded.catalogue)
        known = [self._known(loaded, query.history) for query in queries]
        found = ranker.search(
            Histories.from_lists([query.history for query in queries]),
            max(query.k for query in queries),
            exclude_seen=False,
            candidates=np.stack([allowed_items(query, size) for query in queries]),
            known=known,
            keep=True,
        )
        self.telemetry.tokens.inc(found.tokens)
        answers = []
        for row, query in enumerate(queries):
            read = found.key_values[row]
            if read.nbytes <= loaded.store.maxsize:
                loaded.store[hash(query.history)] = read
            items, scores = found.items[row, : query.k], found.log_probs[row, : query.k]
            answer = Answer(recommendations(loaded.catalogue, items, scores), None)
            answers.append(_Found(answer, [int(item) for item in items if item >= 0], read))
        return answers

    def _explain(self, loaded: Loaded, query: Query, found: _Found) -> Answer:
        """In the model's thread: what moved the first recommendations."""
        listed = found.listed[: self.config.max_explained]
        because = loaded.model.ranker.influences(query.history, listed, found.read)
        return replace(found.answer, because=because)

    def _known(self, loaded: Loaded, history: tuple[int, ...]) -> KeyValues | None:
        """Keys and values of this history or of the longest start of it that was read."""
        for length in range(len(history), 0, -1):
            read = loaded.store.get(hash(history[:length]))
            if read is not None:
                self.telemetry.cache.labels("yes").inc()
                return read
        self.telemetry.cache.labels("no").inc()
        return None

    # -- catalogue -------------------------------------------------------------------------------

    async def change(self, change: Change) -> None:
        """Add, remove or restore an item, between two batches.

        Raises:
            DataError: the item is there already, or not.
        """
        await self._refresh(await self._in_thread(lambda: self._make(change)))

    async def _refresh(self, loaded: Loaded) -> None:
        """Let the typeahead know of items that came."""
        if len(loaded.catalogue) > len(loaded.lookup):
            made = await asyncio.to_thread(_lookup, loaded.catalogue)
            if len(made) > len(loaded.lookup):  # meanwhile another one may have come
                loaded.lookup = made

    def _make(self, change: Change) -> Loaded:
        """In the model's thread: the model of this moment, which a reload may have swapped in."""
        self._catch_up()
        self._log.make(change, self.loaded.model)
        return self.loaded

    def _catch_up(self) -> None:
        """Apply what other processes have changed."""
        replay(self._log.unread(), self.loaded.model)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def load_model(run: Path) -> GenRec:
    """The run to serve, warmed up.

    Raises:
        GenRecError: it is no whole run, or one that decodes without the catalogue.
    """
    model = GenRec.from_pretrained(run)
    if model.config.decoding != "exact":
        raise ConfigError(f"{run}: only runs with decoding=exact can be served.")
    model.recommend(model.catalogue.titles[:1], 1, by="title")
    return model


def _lookup(catalogue: Catalogue) -> Lookup:
    return Lookup(catalogue.item_ids, catalogue.titles)
