"""Request and response bodies of the API; they are part of the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from genrec.collaborative.words import MOST_LETTERS

NO_NUL = r"^[^\x00]*$"
"""Pattern of texts that are stored: PostgreSQL and the readers of exported logs take no NUL."""
Id = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_NUL)]
ENDINGS = ("/", "/events", "/recommendations")


def _is_user(user_id: str) -> str:
    """Refuse the end of another address, so that no request names the wrong user in silence."""
    if user_id.endswith(ENDINGS):
        raise ValueError(f"the id of a user cannot end in {' or '.join(ENDINGS)}")
    return user_id


UserId = Annotated[Id, AfterValidator(_is_user)]
Entry = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=NO_NUL, description="title or item id")
]
Scalar = str | int | float


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemRef(_Body):
    """A reference to an item by exactly one of its id and its title."""

    item_id: Entry | None = Field(None, description="id of the item")
    title: Entry | None = Field(None, description="title of the item")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.item_id is None) == (self.title is None):
            raise ValueError("give exactly one of item_id and title")
        return self


class RatedItem(ItemRef):
    """An item of a history and, if known, how the user rated it."""

    rating: float | None = Field(
        None,
        ge=-1e6,
        le=1e6,
        description="the user's rating; it counts if the run was trained with ratings",
    )


AnyItem = Annotated[
    Entry | ItemRef,
    Field(
        description='{"item_id": …}, {"title": …}, or a string that is a title or an id; a string '
        "that is the title of one item and the id of another is refused"
    ),
]


class Filter(_Body):
    """Conditions on one column of the item table. An item must meet all of them."""

    equals: Scalar | None = Field(None, description="the value is equal to this one")
    in_: list[Scalar] | None = Field(
        None,
        alias="in",
        min_length=1,
        max_length=1000,
        description="the value is equal to one of these",
    )
    contains: str | None = Field(
        None, max_length=1000, description="the value contains this text, in upper or lower case"
    )
    min: float | None = Field(None, description="the value is at least this number")
    max: float | None = Field(None, description="the value is at most this number")

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.conditions():
            raise ValueError("give at least one condition, such as equals or min")
        return self

    def conditions(self) -> dict[str, Any]:
        """Return the value of each condition that is set, by its name."""
        found = self.model_dump(by_alias=True)
        return {kind: value for kind, value in found.items() if value is not None}


class RecommendRequest(_Body):
    """A request for recommendations."""

    history: list[Entry | RatedItem] = Field(
        description='items, oldest first: {"item_id": …} or {"title": …}, each with an optional '
        '"rating", or strings that are a title or an id'
    )
    words: str | None = Field(
        None,
        max_length=MOST_LETTERS,
        description="what the user asks for, e.g. `a light comedy from the nineties`; items whose "
        "title, metadata or decade are like the words become likelier",
    )
    k: int = Field(10, ge=1, description="number of recommendations")
    exclude_seen: bool | None = Field(
        None,
        description="whether items of the history are left out; by default they are, unless the "
        "training histories often repeat items",
    )
    allow: list[AnyItem] | None = Field(
        None, max_length=10_000, description="recommend only these items"
    )
    block: list[AnyItem] = Field(
        default=[], max_length=10_000, description="do not recommend these items"
    )
    filters: dict[str, Filter] = Field(
        default={},
        max_length=20,
        description="conditions on columns of the item table, by the name of the column",
    )
    explain: bool = Field(
        False, description="whether each recommendation gets reasons in `because`"
    )


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str = Field(description="phrase of the HTTP status")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what is wrong, in one sentence")
    request_id: str = Field(description="id of the request, which is also in the service's log")


class Item(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: str


class Reason(Item):
    """An item of the history and its effect on a recommendation."""

    effect: float = Field(
        description="change of the recommendation's log-probability by this item, in nats"
    )


class Recommended(Item):
    """A recommended item."""

    rank: int = Field(description="position in the list, from 1")
    probability: float = Field(description="p(item | history) over the whole catalogue")
    words_effect: float | None = Field(
        None,
        description="with `explain`: change of the log-probability by the words, in nats; null "
        "without words",
    )
    because: list[Reason] | None = Field(
        None,
        description="reasons, strongest first; null if `explain` was not set, and for all but the "
        "first recommendations",
    )


class Recommendations(BaseModel):
    """Recommended items, best first."""

    items: list[Recommended]
    history: list[Item] = Field(description="the history that was used, oldest first")
    known_words: list[str] = Field(
        default=[],
        description="those of the request's words that were understood; if there are none, the "
        "words changed nothing",
    )
    related_words: dict[str, str] = Field(
        default={},
        description="for words that few items hold, the word of many titles or metadata that was "
        "looked for, too, such as comedy for funny",
    )
    unknown_items: list[str] = Field(
        default=[],
        description="ids in the stored events of the user that are not in the catalogue; they "
        "were left out of the history",
    )


class NewEvent(_Body):
    """An action of a user on an item. Give exactly one of item_id, title and item."""

    item_id: Entry | None = Field(None, description="id of the item")
    title: Entry | None = Field(None, description="title of the item")
    item: Entry | None = Field(None, description="a title or an id; prefer item_id or title")
    timestamp: float | None = Field(
        None, ge=0, le=1e11, description="seconds since 1970 (UTC); the current time if omitted"
    )
    kind: str = Field(
        "view",
        min_length=1,
        max_length=64,
        pattern=NO_NUL,
        description="kind of action, e.g. view or dislike",
    )
    rating: float | None = Field(None, ge=-1e6, le=1e6, description="rating of the item")
    event_id: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        pattern=NO_NUL,
        description="your id of the event; an event with a known id is stored only once",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(name is not None for name in (self.item_id, self.title, self.item)) != 1:
            raise ValueError("give exactly one of item_id, title and item")
        return self

    @property
    def named(self) -> str | ItemRef:
        """The item, in the form that a history uses."""
        return self.item or ItemRef(item_id=self.item_id, title=self.title)


class NewEvents(_Body):
    """Events of one user."""

    events: list[NewEvent] = Field(min_length=1)


class Stored(BaseModel):
    """The result of storing events."""

    accepted: int = Field(description="number of stored events")
    duplicates: int = Field(description="number of events that were stored before")


class StoredEvent(BaseModel):
    """A stored event."""

    item_id: str
    title: str | None = Field(description="null if the item is no longer in the catalogue")
    timestamp: float = Field(description="seconds since 1970 (UTC)")
    kind: str
    rating: float | None
    event_id: str | None


class Events(BaseModel):
    """Stored events of one user, oldest first."""

    events: list[StoredEvent]


class FoundItem(Item):
    """An item that matches a search."""

    detail: str | None = Field(
        None, description="metadata that tell it from items with the same title, if there are any"
    )


class Items(BaseModel):
    """Items of the catalogue."""

    items: list[FoundItem]


class NewItem(_Body):
    """An item to add to the catalogue."""

    title: Entry = Field(description="title of the item")
    item_id: Id | None = Field(None, description="id of the item; the title if omitted")
    like: AnyItem | None = Field(
        None, description="a known item that the new one resembles; the prior treats both alike"
    )
