"""What goes in and out under /v1; OpenAPI is made of this."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Entry = Annotated[str, Field(min_length=1, max_length=1000, description="title or item id")]
UserId = Annotated[str, Field(min_length=1, max_length=256)]
Scalar = str | int | float


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ItemRef(_Body):
    """An item by its id or by its title: exactly one of the two."""

    item_id: Entry | None = None
    title: Entry | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.item_id is None) == (self.title is None):
            raise ValueError("give either item_id or title")
        return self


AnyItem = Annotated[
    Entry | ItemRef,
    Field(
        description='{"item_id": …}, {"title": …}, or a text that is one or the other; a text that '
        "is the title of one item and the id of another is refused"
    ),
]


class Filter(_Body):
    """Conditions on one column of the item table; all of them hold."""

    equals: Scalar | None = None
    in_: list[Scalar] | None = Field(None, alias="in", min_length=1, max_length=1000)
    contains: str | None = Field(None, max_length=1000, description="text, in any case")
    min: float | None = None
    max: float | None = None

    def conditions(self) -> dict[str, Any]:
        """Kind → value of those that are set."""
        found = self.model_dump(by_alias=True)
        return {kind: value for kind, value in found.items() if value is not None}


class RecommendRequest(_Body):
    """What to recommend for."""

    history: list[AnyItem] = Field(description="items by id or title, oldest first")
    k: int = Field(10, ge=1)
    exclude_seen: bool = True
    allow: list[AnyItem] | None = Field(None, max_length=10_000, description="only these")
    block: list[AnyItem] = Field(default=[], max_length=10_000, description="never these")
    filters: dict[str, Filter] = Field(default={}, max_length=20)
    explain: bool = Field(False, description="which items of the history moved each item")


class ProblemBody(BaseModel):
    """RFC 9457's form of an error."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class Item(BaseModel):
    item_id: str
    title: str


class Reason(Item):
    effect: float = Field(description="nats of log-probability that this item added")


class Recommended(Item):
    rank: int
    probability: float = Field(description="p(item | history) over the whole catalogue")
    because: list[Reason] | None = Field(
        None, description="strongest first; null where nobody asked, or for all but the first ones"
    )


class Recommendations(BaseModel):
    items: list[Recommended]
    history: list[Item]
    unknown_items: list[str] = Field(
        default=[],
        description="ids in the stored events of the user that the catalogue does not hold; they "
        "were left out of the history",
    )


class NewEvent(_Body):
    """Something that a user did with an item, which is named in exactly one of three ways."""

    item_id: Entry | None = None
    title: Entry | None = None
    item: Entry | None = Field(None, description="a title or an id; prefer item_id or title")
    timestamp: float | None = Field(None, ge=0, le=1e11, description="seconds; now if not given")
    kind: str = Field("view", min_length=1, max_length=64)
    rating: float | None = Field(None, ge=-1e6, le=1e6)
    event_id: str | None = Field(None, min_length=1, max_length=256)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(name is not None for name in (self.item_id, self.title, self.item)) != 1:
            raise ValueError("give exactly one of item_id, title and item")
        return self

    @property
    def named(self) -> str | ItemRef:
        """The item, as a history names one."""
        return self.item or ItemRef(item_id=self.item_id, title=self.title)


class NewEvents(_Body):
    events: list[NewEvent] = Field(min_length=1)


class Stored(BaseModel):
    accepted: int
    duplicates: int


class StoredEvent(BaseModel):
    item_id: str
    title: str | None = Field(description="null if the item is no longer in the catalogue")
    timestamp: float
    kind: str
    rating: float | None
    event_id: str | None


class Events(BaseModel):
    events: list[StoredEvent]


class Items(BaseModel):
    items: list[Item]


class NewItem(_Body):
    title: Entry
    item_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="the title if not given"
    )
    like: AnyItem | None = Field(None, description="a known item that it resembles")
