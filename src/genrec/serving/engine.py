"""The engine of the service: it batches waiting requests and runs the model in its own thread."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from genrec.data.catalogue import Catalogue
from genrec.errors import GenRecError, RunError
from genrec.language_model.devices import release_memory
from genrec.model.genrec import GenRec
from genrec.model.ranker import Ranker
from genrec.model.requests import words_effects
from genrec.model.session import KeyValueStore
from genrec.recommender import recommendations
from genrec.search.key_values import KeyValues
from genrec.serving.changes import Change, ChangeLog, ReloadSignal, replay
from genrec.serving.config import ServeConfig
from genrec.serving.loading import load_changed
from genrec.serving.lookup import Lookup
from genrec.serving.problems import Problem, StoreError
from genrec.serving.queries import Answer, Query, allowed_items, histories_of
from genrec.serving.telemetry import Telemetry, log

T = TypeVar("T")


@dataclass(eq=False)
class Loaded:
    """A loaded model and what belongs to it.

    Attributes:
        model: the run.
        lookup: index of its titles for the typeahead.
        store: cached keys and values of histories.
    """

    model: GenRec
    lookup: Lookup
    store: KeyValueStore

    @property
    def catalogue(self) -> Catalogue:
        return self.model.catalogue


@dataclass(eq=False)
class _Job:
    query: Query
    loaded: Loaded  # the indices of the query refer to this model's catalogue
    deadline: float
    done: asyncio.Future[Answer] = field(repr=False)
    waits: bool = True


@dataclass(frozen=True, eq=False)
class _Found:
    """An answer without reasons, and the data that the reasons are computed from."""

    answer: Answer
    listed: list[int]
    read: KeyValues
    ranker: Ranker


class Engine:
    """Runs batches of requests in the model's thread; all else runs in the event loop.

    The application calls ``start`` and ``stop``; nothing is loaded before ``start``.
    """

    def __init__(
        self, config: ServeConfig, telemetry: Telemetry, model: GenRec | None = None
    ) -> None:
        """Create an engine.

        Args:
            config: settings of the service.
            telemetry: metrics to update.
            model: the run ``config.run`` if it is loaded already.
        """
        self.config, self.telemetry, self._first = config, telemetry, model
        self.ready = False
        self._log = ChangeLog(config.changes)
        self._signal = ReloadSignal(config.changes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._waiting = 0  # jobs in the queue whose client still waits
        self._loaded: Loaded | None = None
        self._reloading = False
        self._to_explain: deque[tuple[_Job, _Found]] = deque()

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the run, warm it up and start to answer requests."""
        await self._load(self._first)
        self._first = None
        self._dispatcher = asyncio.create_task(self._dispatch())
        self.ready = True

    async def stop(self) -> None:
        """Answer the waiting requests, for at most ``config.drain`` seconds, and stop."""
        self.ready = False
        try:
            await asyncio.wait_for(self._queue.join(), self.config.drain)
        except TimeoutError:
            log.warning("the service stopped while requests were still waiting")
        self._dispatcher.cancel()
        self._thread.shutdown(wait=True)

    async def reload(self, *, tell: bool = True) -> None:
        """Load the run folder again and replace the model between two batches.

        Args:
            tell: let the other processes of the service load it, too.

        Raises:
            Problem: 409 if another reload is in progress, or if the folder holds no complete run;
                the current model stays in use.
        """
        if self._reloading:
            detail = "Another reload is in progress; try again later."
            raise Problem(409, detail, {"Retry-After": "10"})
        self._reloading = True
        before = self._signal.state()
        try:
            await self._load()
            if tell:
                self._signal.send(before)
            self.telemetry.reloads.labels("done").inc()
        except (GenRecError, OSError) as error:
            self.telemetry.reloads.labels("failed").inc()
            log.error("the run could not be reloaded: %s", error)
            detail = (
                "The run folder could not be loaded, so the previous run stays in use; see the log "
                "of the service for the reason."
            )
            raise Problem(409, detail) from None
        finally:
            self._reloading = False

    @property
    def loaded(self) -> Loaded:
        """The model in use."""
        assert self._loaded is not None, "start() was not called"
        return self._loaded

    async def current(self) -> Loaded:
        """Return the model in use, with all catalogue changes of other processes applied.

        If another process has loaded a new run, this one begins to load it, too.
        """
        if not self._reloading and self._signal.arrived():
            in_background(self.reload(tell=False))
        if self._log.grew():
            try:
                await self._in_thread(self._catch_up)
            except StoreError as error:
                log.error("%s", error)  # the catalogue stays as it is known
        await self._refresh(self.loaded)
        return self.loaded

    async def _load(self, model: GenRec | None = None) -> None:
        # Changes are applied beside the model's thread, which goes on to answer meanwhile.
        load = partial(load_changed, self.config.run, self._log.copy())
        fresh, known = (model, []) if model else await asyncio.to_thread(load)
        await self._in_thread(partial(self._adopt, fresh, known))
        await asyncio.to_thread(release_memory)

    def _adopt(self, model: GenRec, known: list[Change]) -> None:
        """Replace the model, to which the ``known`` catalogue changes were applied.

        It runs in the model's thread, so that no other change is lost.
        """
        changes = self._log.all()
        if changes[: len(known)] != known:
            raise RunError("the file of catalogue changes was replaced meanwhile; reload again")
        replay(changes[len(known) :], model)
        self._loaded = Loaded(
            model, _lookup(model.catalogue), KeyValueStore(self.config.session_bytes)
        )

    # -- answers ---------------------------------------------------------------------------------

    async def recommend(self, query: Query, loaded: Loaded) -> Answer:
        """Answer a query.

        Args:
            query: the request; its item indices refer to the catalogue of ``loaded``.
            loaded: the model that answers.

        Raises:
            Problem: Too many requests are waiting (503), or the deadline has passed (504).
        """
        if self._waiting >= self.config.max_queue:
            raise Problem(
                503, "Too many requests are waiting; try again later.", {"Retry-After": "1"}
            )
        seconds = self.config.deadline
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        job = _Job(query, loaded, time.monotonic() + seconds, done)
        self._queue.put_nowait(job)
        self._count(1)
        try:
            return await asyncio.wait_for(done, seconds)
        except TimeoutError:
            raise Problem(
                504, f"The request took longer than {seconds:g} s.", {"Retry-After": "2"}
            ) from None
        finally:
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        """Count a job as no longer waiting, because it is processed or its client has left."""
        if job.waits:
            job.waits = False
            self._count(-1)

    def _count(self, change: int) -> None:
        self._waiting += change
        self.telemetry.queue.set(self._waiting)

    async def _dispatch(self) -> None:
        """Process the queue in batches, forever.

        Reasons take longer than an answer, so only one explanation is computed between two batches.
        """
        while True:
            jobs = [] if self._to_explain else [await self._queue.get()]
            while len(jobs) < self.config.max_batch and not self._queue.empty():
                jobs.append(self._queue.get_nowait())
            for job in jobs:
                if not job.query.explain:  # those wait until their reasons are computed
                    self._leave(job)
            wanted = [job for job in jobs if self._still_wanted(job)]
            for loaded in {id(job.loaded): job.loaded for job in wanted}.values():
                await self._answer([job for job in wanted if job.loaded is loaded])
            if self._to_explain:
                await self._give_reasons(*self._to_explain.popleft())

    def _still_wanted(self, job: _Job) -> bool:
        if job.done.done():  # the client has closed the connection
            why = "cancelled"
        elif time.monotonic() >= job.deadline:
            why = "deadline"
        else:
            return True
        self.telemetry.dropped.labels(why).inc()
        self._queue.task_done()
        return False

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        """Answer all jobs in one batch; if it fails, answer them one by one.

        In this way only the faulty request fails.
        """
        started = time.monotonic()
        loaded, queries = jobs[0].loaded, [job.query for job in jobs]
        try:
            found: list[_Found | Exception] = [
                *await self._in_thread(lambda: self._run(loaded, queries))
            ]
        except Exception:
            log.exception("a batch of %d requests failed", len(jobs))
            found = [await self._tried(partial(self._run_one, loaded, query)) for query in queries]
        self.telemetry.batch.observe(len(jobs))
        self.telemetry.pass_seconds.observe(time.monotonic() - started)
        for job, each in zip(jobs, found, strict=True):
            if isinstance(each, _Found) and job.query.explain:
                self._to_explain.append((job, each))
            else:
                self._resolve(job, each if isinstance(each, Exception) else each.answer)

    async def _give_reasons(self, job: _Job, found: _Found) -> None:
        self._leave(job)
        if self._still_wanted(job):
            explain = partial(self._explain, job.query, found)
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
        """Search for all queries in one batch; runs in the model's thread."""
        self._catch_up()
        ranker, size = loaded.model.ranker, len(loaded.catalogue)
        known = [self._known(loaded, query.history) for query in queries]
        found = ranker.search(
            histories_of(queries),
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
            listed = [int(item) for item in items if item >= 0]
            answers.append(_Found(answer, listed, read, ranker))
        return answers

    def _explain(self, query: Query, found: _Found) -> Answer:
        """Add reasons to the first recommendations; runs in the model's thread."""
        listed = found.listed[: self.config.max_explained]
        # The ranker that answered: an item of the list may have been withdrawn since.
        ranker, history = found.ranker, histories_of([query])
        because = ranker.influences(history, listed, found.read)
        effects = words_effects(ranker, history, listed) if query.words else None
        return replace(found.answer, because=because, words_effects=effects)

    def _known(self, loaded: Loaded, history: tuple[int, ...]) -> KeyValues | None:
        """Return the cached keys and values of the longest prefix of a history, if any."""
        for length in range(len(history), 0, -1):
            read = loaded.store.get(hash(history[:length]))
            if read is not None:
                self.telemetry.cache.labels("yes").inc()
                return read
        self.telemetry.cache.labels("no").inc()
        return None

    # -- catalogue -------------------------------------------------------------------------------

    async def change(self, change: Change) -> None:
        """Add, remove or restore an item between two batches.

        Raises:
            DataError: An item to add exists already, or an item to remove or restore is unknown.
            StoreError: The change cannot be written to the file of changes.
        """
        await self._refresh(await self._in_thread(lambda: self._make(change)))

    async def _refresh(self, loaded: Loaded) -> None:
        """Rebuild the typeahead's index if items were added."""
        if len(loaded.catalogue) > len(loaded.lookup):
            made = await asyncio.to_thread(_lookup, loaded.catalogue)
            if len(made) > len(loaded.lookup):  # another call may have replaced it meanwhile
                loaded.lookup = made

    def _make(self, change: Change) -> Loaded:
        """Apply a change to the current model, also after a reload; runs in the model's thread."""
        self._catch_up()
        self._log.make(change, self.loaded.model)
        return self.loaded

    def _catch_up(self) -> None:
        """Apply the catalogue changes of other processes."""
        replay(self._log.unread(), self.loaded.model)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine beside the requests and log what it raises, unless that is a problem.

    A problem is meant for a client, and was logged where it arose.
    """

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Problem):
            log.error("work in the background failed", exc_info=error)

    asyncio.ensure_future(work).add_done_callback(ended)


def _lookup(catalogue: Catalogue) -> Lookup:
    return Lookup(catalogue.item_ids, catalogue.titles)
