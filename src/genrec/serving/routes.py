"""The HTTP API under /v1. The docstrings of the routes are part of the OpenAPI description."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import zip_longest
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Path, Query, Request, Response, Security
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from genrec.collaborative.words import checked_words
from genrec.data.catalogue import Catalogue
from genrec.errors import DataError, UnknownItemError
from genrec.model.genrec import GenRec
from genrec.serving import queries
from genrec.serving.changes import Change
from genrec.serving.engine import Engine, Loaded
from genrec.serving.events import Event, EventStore, IdempotencyError
from genrec.serving.filters import filter_mask
from genrec.serving.problems import ClientGoneError, Problem
from genrec.serving.queries import Answer
from genrec.serving.schemas import (
    Events,
    FoundItem,
    Item,
    ItemRef,
    Items,
    NewEvents,
    NewItem,
    ProblemBody,
    Recommendations,
    Recommended,
    RecommendRequest,
    Stored,
    StoredEvent,
    UserId,
)

T = TypeVar("T")
User = Annotated[UserId, Path(description="id of the user, chosen by the client")]
MOST_ID = 256
"""Maximum length of the id of a new item."""
ItemId = Annotated[str, Path(min_length=1, max_length=1000, description="id of the item")]
ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemBody, "description": text}
    for status, text in {
        401: "the service needs an API key, and the request has no valid one",
        404: "the item does not exist",
        422: "the input is invalid; `detail` names the reason",
        429: "too many requests; try again after the seconds in `Retry-After`",
        503: "the service or its event store is overloaded; try again after the seconds in "
        "`Retry-After`",
        504: "the request took longer than the deadline",
    }.items()
}
KEY = Security(
    HTTPBearer(auto_error=False, description="API key, needed if the service was started with keys")
)
router = APIRouter(prefix="/v1", responses=ANSWERS, dependencies=[KEY])


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def ask_store(request: Request, call: Callable[[EventStore], T]) -> T:
    """Call the event store in a separate thread, so that a slow store does not block the service.

    Raises:
        Problem: The store did not answer in time (503); a write may or may not have happened.
    """
    state, seconds = request.app.state, engine_of(request).config.store_seconds
    answer = asyncio.get_running_loop().run_in_executor(state.store_threads, call, state.store)
    try:
        return await asyncio.wait_for(answer, seconds)
    except TimeoutError:
        detail = f"The event store did not answer within {seconds:g} s; send the request again."
        raise Problem(503, detail, {"Retry-After": "5"}) from None


@router.get("/run", tags=["run"])
async def run(request: Request) -> dict[str, Any]:
    """Describe the run that is served: its training, its data and the limits of requests.

    The location of the data is not included.
    """
    model = (await engine_of(request).current()).model
    known = ("name", "versions", "valid_log_likelihood")
    settings = model.ranker.config
    return {
        **{key: model.info[key] for key in known if key in model.info},
        "training": _without(model.info.get("training"), "log"),
        "data": _without(model.info.get("data"), "source", "split"),
        "recipe": settings.recipe,
        "prior": settings.prior,
        "items": len(model.catalogue),
        "columns": model.catalogue.metadata.columns,
        "words": model.ranker.prior is not None,
        "limits": {
            name: getattr(engine_of(request).config, name) for name in ("max_history", "max_k")
        },
    }


def _without(facts: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    return {name: value for name, value in (facts or {}).items() if name not in names}


@router.post("/reload", tags=["run"])
async def reload(request: Request) -> dict[str, str]:
    """Load the run folder again. The current run answers until the new one is ready."""
    await engine_of(request).reload()
    return {"status": "reloaded"}


@router.post("/recommend", tags=["recommend"])
async def recommend(body: RecommendRequest, request: Request) -> Recommendations:
    """Recommend the most probable next items for a history."""
    return await _recommend(body, request)


@router.get("/users/{user_id:path}/recommendations", tags=["recommend"])
async def recommend_user(
    user_id: User,
    request: Request,
    k: Annotated[int, Query(ge=1, description="number of recommendations")] = 10,
    exclude_seen: Annotated[
        bool | None,
        Query(
            description="whether items of the history are left out; by default they are, unless "
            "the training histories often repeat items"
        ),
    ] = None,
    explain: Annotated[
        bool, Query(description="whether each recommendation gets reasons in `because`")
    ] = False,
) -> Recommendations:
    """Recommend the most probable next items for a user with stored events.

    The history consists of the user's latest events, without dislikes.
    """
    config = engine_of(request).config
    events = await ask_store(
        request,
        lambda store: store.history(user_id, config.max_history, without=config.disliked),
    )
    catalogue = (await engine_of(request).current()).catalogue
    ids = dict.fromkeys(each.item_id for each in events)
    unknown = [item_id for item_id in ids if not catalogue.holds(item_id)]
    if unknown:
        engine_of(request).telemetry.unknown.inc(len(unknown))
    history = [
        {"item_id": each.item_id, "rating": each.rating}
        for each in events
        if each.item_id not in unknown
    ]
    body = {"history": history, "k": k, "exclude_seen": exclude_seen, "explain": explain}
    return await _recommend(RecommendRequest.model_validate(body), request, unknown)


async def _recommend(
    body: RecommendRequest, request: Request, unknown: Sequence[str] = ()
) -> Recommendations:
    engine = engine_of(request)
    _check_limit("history", len(body.history), engine.config.max_history)
    _check_limit("k", body.k, engine.config.max_k)
    loaded = await engine.current()
    query = await run_in_threadpool(_query, body, loaded.model)
    answer = await _unless_gone(request, engine.recommend(query, loaded))
    found = _recommendations(answer, query.history, loaded)
    found.unknown_items = list(unknown)
    if query.words:
        known, related = loaded.model.known_words, loaded.model.related_words
        found.known_words = await run_in_threadpool(known, query.words)
        found.related_words = await run_in_threadpool(related, query.words)
    return found


def _check_limit(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise Problem(422, f"{name} must be at most {limit}, got {value}.")


def _query(body: RecommendRequest, model: GenRec) -> queries.Query:
    catalogue, chosen = model.catalogue, body.exclude_seen
    filters = {column: each.conditions() for column, each in body.filters.items()}
    return queries.Query(
        history=_indices(catalogue, body.history),
        k=body.k,
        exclude_seen=model.excludes_seen if chosen is None else chosen,
        allow=None if body.allow is None else _indices(catalogue, body.allow),
        block=_indices(catalogue, body.block),
        candidates=filter_mask(catalogue, filters) if filters else None,
        explain=body.explain,
        words=checked_words(body.words),
        ratings=tuple(getattr(each, "rating", None) for each in body.history),
    )


def _index(catalogue: Catalogue, entry: str | ItemRef) -> int:
    if isinstance(entry, str):
        return catalogue.index_of(entry)
    if entry.item_id is not None:
        return catalogue.index_of(entry.item_id, by="id")
    return catalogue.index_of(entry.title or "", by="title")


def _indices(catalogue: Catalogue, entries: Sequence[str | ItemRef]) -> tuple[int, ...]:
    return tuple(_index(catalogue, entry) for entry in entries)


async def _unless_gone(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer; cancel it if the client closes the connection.

    Raises:
        ClientGoneError: The client has closed the connection.
    """
    answer = asyncio.create_task(answering)
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise ClientGoneError
        return await answer
    finally:
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _recommendations(answer: Answer, history: Sequence[int], loaded: Loaded) -> Recommendations:
    reasons = [[vars(each) for each in because] for because in answer.because or ()]
    items = [
        Recommended.model_validate({**vars(item), "because": because, "words_effect": effect})
        for item, because, effect in zip_longest(answer.items, reasons, answer.words_effects or ())
    ]
    return Recommendations(items=items, history=_items(loaded.catalogue, history))


def _items(catalogue: Catalogue, indices: Sequence[int]) -> list[Item]:
    return [Item(item_id=catalogue.item_ids[i], title=catalogue.titles[i]) for i in indices]


# -- events --------------------------------------------------------------------------------------


@router.post("/users/{user_id:path}/events", status_code=201, tags=["events"])
async def add_events(
    user_id: User,
    body: NewEvents,
    request: Request,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=256)] = None,
) -> Stored:
    """Store events of a user. Status 201 means that they are on the disk.

    A request with a known Idempotency-Key stores nothing and returns the earlier result.
    """
    engine = engine_of(request)
    _check_limit("events", len(body.events), engine.config.max_events)
    catalogue, now = (await engine.current()).catalogue, time.time()
    events = [
        Event(
            user_id=user_id,
            item_id=catalogue.item_ids[_index(catalogue, each.named)],
            timestamp=now if each.timestamp is None else each.timestamp,
            kind=each.kind,
            rating=each.rating,
            event_id=each.event_id,
        )
        for each in body.events
    ]
    try:
        accepted, duplicates = await ask_store(
            request, lambda store: store.append(events, idempotency_key=idempotency_key)
        )
    except IdempotencyError as error:
        raise Problem(409, str(error)) from None
    engine.telemetry.events.labels("accepted").inc(accepted)
    engine.telemetry.events.labels("duplicate").inc(duplicates)
    return Stored(accepted=accepted, duplicates=duplicates)


@router.get("/users/{user_id:path}/events", tags=["events"])
async def list_events(
    user_id: User,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=10_000, description="maximum number of events")] = 200,
) -> Events:
    """List the latest events of a user, oldest first."""
    catalogue = (await engine_of(request).current()).catalogue
    events = await ask_store(request, lambda store: store.history(user_id, limit))
    return Events(
        events=[
            StoredEvent(
                item_id=each.item_id,
                title=_title(catalogue, each.item_id),
                timestamp=each.timestamp,
                kind=each.kind,
                rating=each.rating,
                event_id=each.event_id,
            )
            for each in events
        ]
    )


def _title(catalogue: Catalogue, item_id: str) -> str | None:
    known = catalogue.holds(item_id)
    return catalogue.titles[catalogue.index_of(item_id, by="id")] if known else None


@router.delete("/users/{user_id:path}", status_code=204, tags=["events"])
async def delete_user(user_id: User, request: Request) -> Response:
    """Delete all stored data of a user."""
    await ask_store(request, lambda store: store.delete_user(user_id))
    return Response(status_code=204)


# -- items ---------------------------------------------------------------------------------------


@router.get("/items", tags=["items"], response_model_exclude_none=True)
async def find_items(
    request: Request,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="text to search for: beginnings of words in the title; small misspellings "
            "are tolerated",
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="maximum number of items")] = 10,
) -> Items:
    """Find items by title, best match first."""
    loaded = await engine_of(request).current()
    return Items(items=await run_in_threadpool(_found, loaded, q, limit))


def _found(loaded: Loaded, query: str, limit: int) -> list[FoundItem]:
    found, catalogue = loaded.lookup.find(query, limit), loaded.catalogue
    items = zip(_items(catalogue, found), map(catalogue.detail, found), strict=True)
    return [FoundItem(**item.model_dump(), detail=detail) for item, detail in items]


@router.get("/items/{item_id:path}", tags=["items"])
async def get_item(item_id: ItemId, request: Request) -> Item:
    """Get an item by its id. `GET /v1/items?q=` finds items by title."""
    catalogue = (await engine_of(request).current()).catalogue
    return _items(catalogue, [catalogue.index_of(item_id, by="id")])[0]


@router.post("/items", status_code=201, tags=["items"])
async def add_item(body: NewItem, request: Request) -> Item:
    """Add an item to the catalogue. It can be recommended at once."""
    item_id = body.item_id or body.title
    if len(item_id) > MOST_ID:
        raise Problem(
            422,
            f"The title is longer than {MOST_ID} characters, so it cannot serve as the id; give a "
            "shorter item_id.",
        )
    engine = engine_of(request)
    catalogue = (await engine.current()).catalogue
    twin = None if body.like is None else catalogue.item_ids[_index(catalogue, body.like)]
    try:
        await engine.change(Change("add", item_id, body.title, twin))
    except UnknownItemError:
        raise
    except DataError as error:
        raise Problem(409, str(error)) from None
    catalogue = (await engine.current()).catalogue  # which holds the cleaned id and title
    return _items(catalogue, [catalogue.index_of(item_id, by="id")])[0]


@router.delete("/items/{item_id:path}", status_code=204, tags=["items"])
async def remove_item(item_id: ItemId, request: Request) -> Response:
    """Stop recommending an item. Histories may still contain it."""
    await engine_of(request).change(Change("remove", item_id))
    return Response(status_code=204)


@router.post("/items/{item_id:path}/restore", status_code=204, tags=["items"])
async def restore_item(item_id: ItemId, request: Request) -> Response:
    """Recommend a removed item again."""
    await engine_of(request).change(Change("restore", item_id))
    return Response(status_code=204)
