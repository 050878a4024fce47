"""Chronological histories in flat arrays: k-core, data set folders, and the two splits.

Order within a user is (timestamp, row order in the log); `ties="shuffled"` permutes tied rows
instead, as a control for how much that rule decides.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from genrec.arrays import Floats, Floats32, Integers, Ints, Items, Mask
from genrec.catalogue import Catalogue, build_catalogue
from genrec.errors import ConfigError, DataError
from genrec.files import is_free, replace_folder
from genrec.interactions import Interactions

FORMAT = 1  # of a data set folder
_FILES = ("items.parquet", "users.parquet", "histories.parquet", "dataset.json")


@dataclass(frozen=True, eq=False)
class Histories:
    """Rows of item indices, oldest first, one after the other in flat arrays.

    items: int32[n]. offsets: int64[rows + 1]; row r is items[offsets[r]:offsets[r + 1]].
    user_ids: one per row. timestamps: float64[n], ascending in each row. ratings: float32[n] (nan
    where unknown) or None. reviews: n texts, null where unknown, or None.
    """

    items: Items
    offsets: Ints
    user_ids: list[str]
    timestamps: Floats
    ratings: Floats32 | None = None
    reviews: pl.Series | None = None

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> Histories:
        """Histories of users "0", "1", … whose timestamps count 0, 1, … in each row."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        offsets = _offsets(lengths)
        items = np.array([item for row in rows for item in row], dtype=np.int32)
        steps = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        return cls(items, offsets, [str(row) for row in range(len(rows))], steps.astype(np.float64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Items:
        return self.items[self.offsets[:-1][row] : self.offsets[1:][row]]

    def __iter__(self) -> Iterator[Items]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> Ints:
        """Items in each row, int64[rows]."""
        return np.diff(self.offsets)

    def seen(self, n_items: int) -> Mask:
        """Which items each row holds, bool[rows, n_items]."""
        seen = np.zeros((len(self), n_items), dtype=bool)
        seen[np.repeat(np.arange(len(self)), self.lengths), self.items] = True
        return seen

    def select(self, rows: Sequence[int] | Integers) -> Histories:
        """The given rows, in the given order."""
        return self.head(rows, self.lengths[np.asarray(rows, dtype=np.int64)])

    def head(self, rows: Sequence[int] | Integers, lengths: Integers) -> Histories:
        """The first `lengths[i]` items of row `rows[i]`, for each i."""
        rows = np.asarray(rows, dtype=np.int64)
        return self._cut(rows, self.offsets[rows], lengths)

    def tail(self, length: int) -> Histories:
        """The last `length` items of each row."""
        kept = np.minimum(self.lengths, length)
        return self._cut(np.arange(len(self)), self.offsets[1:] - kept, kept)

    def _cut(self, rows: Integers, starts: Integers, lengths: Integers) -> Histories:
        offsets = _offsets(lengths)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        users = [self.user_ids[row] for row in rows.tolist()]
        ratings = None if self.ratings is None else self.ratings[places]
        reviews = None if self.reviews is None else self.reviews[places]
        times = self.timestamps[places]
        return Histories(self.items[places], offsets, users, times, ratings, reviews)


def _offsets(lengths: Integers | Mask) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A catalogue, one history per user, and `info`: where they came from and what was dropped."""

    name: str
    catalogue: Catalogue
    histories: Histories
    info: dict[str, object] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, titles and the flat arrays; equal data have equal fingerprints."""
        digest, rows = hashlib.sha256(), self.histories
        for names in (self.catalogue.item_ids, self.catalogue.titles, rows.user_ids):
            digest.update(json.dumps(names).encode())
        for array, kind in ((rows.items, "<i4"), (rows.offsets, "<i8"), (rows.timestamps, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).data)
        if rows.ratings is not None:
            digest.update(np.ascontiguousarray(rows.ratings, dtype="<f4").data)
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write items, users and histories (Parquet) and dataset.json; all of it or nothing.

        Replaces an older data set folder, but raises DataError for any other file or folder.
        """
        folder = Path(folder)
        if not is_free(folder) and not (folder / "dataset.json").is_file():
            raise DataError(f"{folder}: exists and is no data set folder; give another --out")
        replace_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        rows = self.histories
        self.catalogue.save(folder / "items.parquet")
        users = {"user_id": pl.Series(rows.user_ids, dtype=pl.String), "length": rows.lengths}
        pl.DataFrame(users).write_parquet(folder / "users.parquet")
        flat = {"item": rows.items, "timestamp": rows.timestamps}
        flat |= {} if rows.ratings is None else {"rating": rows.ratings}
        flat |= {} if rows.reviews is None else {"review": rows.reviews}
        pl.DataFrame(flat).write_parquet(folder / "histories.parquet")
        head = {"name": self.name, "format": FORMAT, "genrec": _version()}
        info = {**self.info, **head, "fingerprint": self.fingerprint}
        info.pop("folder", None)  # where it was loaded from
        text = json.dumps(info, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read and verify what `save` wrote; raises DataError saying what is wrong with it."""
        folder, again = Path(folder), "make it again with `genrec prepare`"
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise DataError(f"{folder}: not a data set folder, {missing[0]} is missing; {again}")
        try:
            info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            version = info["format"]
            if version != FORMAT:
                raise DataError(f"{folder}: format {version}, this GenRec reads {FORMAT}; {again}")
            catalogue = Catalogue.load(folder / "items.parquet")
            info["folder"] = str(folder.resolve())
            data = cls(info["name"], catalogue, _read_histories(folder), info)
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{folder}: damaged ({type(error).__name__}: {error}); {again}"
            ) from error
        if info.get("fingerprint") != data.fingerprint:
            raise DataError(f"{folder}: its files do not match its fingerprint; {again}")
        return data


def _read_histories(folder: Path) -> Histories:
    users = pl.read_parquet(folder / "users.parquet")
    table = pl.read_parquet(folder / "histories.parquet")
    return histories_of(table, users["length"].to_numpy(), users["user_id"].to_list())


def _version() -> str:
    try:
        return importlib.metadata.version("genrec")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def prepare(
    interactions: Interactions,
    *,
    name: str,
    min_user: int = 1,
    min_item: int = 1,
    max_users: int | None = None,
    ties: Literal["log", "shuffled"] = "log",
    seed: int = 0,
) -> Dataset:
    """Histories and catalogue of a log.

    Keeps `max_users` users drawn with `seed`, then their k-core (repeats count). Numbers go by
    (length of id, id): numbers by place in the log would give the next item away.
    """
    if ties not in ("log", "shuffled"):
        raise ConfigError(f"ties is {ties!r}; give 'log' or 'shuffled'")
    if min(min_user, min_item, 1 if max_users is None else max_users) < 1:
        raise ConfigError("min_user, min_item and max_users count from 1; give 1 or more")
    log, random = interactions.log, np.random.default_rng(seed)
    (users, user_ids), (items, _) = _coded(log["user_id"]), _coded(log["item_id"])
    drawn = (random.permutation(len(user_ids)) < (max_users or len(user_ids)))[users]
    core, rounds = _core(users, items, drawn, min_user, min_item)
    histories, item_ids = _chronological(log.filter(core), ties, random)
    catalogue, mended = build_catalogue(interactions.items, item_ids)
    info = _statistics(histories, len(item_ids)) | {
        "tie_rule": f"(timestamp, {'row in the log' if ties == 'log' else 'random'})",
        "core": {"min_user": min_user, "min_item": min_item, "rounds": rounds},
        "draw": {"max_users": max_users, "seed": seed},
        "dropped": {"not_drawn": int((~drawn).sum()), "not_in_core": int((drawn & ~core).sum())},
        "catalogue": mended,
        "source": interactions.source,
    }
    return Dataset(name, catalogue, histories, info)


def _coded(ids: pl.Series) -> tuple[Ints, list[str]]:
    """The distinct ids sorted by (length, id), and the place of each id among them."""
    known = ids.unique().to_frame("id").sort(pl.col("id").str.len_bytes(), "id")
    joined = ids.to_frame("id").join(
        known.with_row_index("code"), on="id", how="left", maintain_order="left"
    )
    return joined["code"].cast(pl.Int64).to_numpy(), known["id"].to_list()


def _core(
    users: Integers, items: Integers, keep: Mask, min_user: int, min_item: int
) -> tuple[Mask, int]:
    """The rows of the largest part of `keep` in which both minima hold, and the rounds it took."""
    rounds = 0
    while True:
        active = np.bincount(users[keep], minlength=users.max() + 1) >= min_user
        sold = np.bincount(items[keep], minlength=items.max() + 1) >= min_item
        kept = keep & active[users] & sold[items]
        if not kept.any():
            raise DataError(f"no user is left with min_user={min_user} and min_item={min_item}")
        if kept.sum() == keep.sum():
            return keep, rounds
        keep, rounds = kept, rounds + 1


def _chronological(
    log: pl.DataFrame, ties: str, random: np.random.Generator
) -> tuple[Histories, list[str]]:
    (users, user_ids), (items, item_ids) = _coded(log["user_id"]), _coded(log["item_id"])
    order = random.permutation(len(log)) if ties == "shuffled" else np.arange(len(log))
    keys = pl.DataFrame({"user": users, "order": order, "item": items.astype(np.int32)})
    table = keys.hstack(log.select("timestamp", pl.col("^(rating|review)$")))
    table = table.sort("user", "timestamp", "order")
    return histories_of(table, np.bincount(users), user_ids), item_ids


def histories_of(table: pl.DataFrame, lengths: Integers, user_ids: list[str]) -> Histories:
    """Histories of a table with one row per interaction; the arrays are writable, for torch."""
    items, times = (table[name].to_numpy(writable=True) for name in ("item", "timestamp"))
    ratings = None
    if "rating" in table.columns:
        ratings = table["rating"].cast(pl.Float32).to_numpy(writable=True)
    reviews = table["review"] if "review" in table.columns else None
    return Histories(items, _offsets(lengths), user_ids, times, ratings, reviews)


def _statistics(histories: Histories, items: int) -> dict[str, object]:
    """Counts; how many timestamps are tied with a neighbour's; how many items are repeats."""
    users, interactions, times = len(histories), len(histories.items), histories.timestamps
    density = interactions / (users * items)
    rows = np.repeat(np.arange(users), histories.lengths)
    ties = np.zeros(interactions + 1, dtype=bool)  # ties[i]: i - 1 and i are tied
    ties[1:-1] = (times[1:] == times[:-1]) & (rows[1:] == rows[:-1])
    tied_last = ties[histories.offsets[1:] - 1]
    shares = {"users_with_tied_last": tied_last, "interactions": ties[1:] | ties[:-1]}
    distinct = np.unique(rows * items + histories.items).size
    return {
        "counts": {"users": users, "items": items, "interactions": interactions}
        | {"density": density},
        "tie_share": {what: float(tied.mean()) for what, tied in shares.items()},
        "repeat_share": 1 - distinct / interactions,
    }


@dataclass(frozen=True, eq=False)
class Holdout:
    """One question per row: after this history, which item came next?

    histories: all that was known before the target. targets: int32[rows], indices of `catalogue`.
    times: float64[rows], when the targets came, or None where that is unknown.
    """

    name: str
    histories: Histories
    targets: Items
    catalogue: Catalogue
    times: Floats | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, users: int, seed: int) -> Holdout:
        """At most `users` rows drawn with `seed`, in ascending order."""
        if users < 1:
            raise ConfigError(f"a sample of {users} users is empty; give 1 or more")
        drawn = np.random.default_rng(seed).permutation(len(self))[:users]
        rows = np.sort(drawn)
        times = None if self.times is None else self.times[rows]
        histories = self.histories.select(rows)
        return Holdout(self.name, histories, self.targets[rows], self.catalogue, times)


@dataclass(frozen=True, eq=False)
class Split:
    """What a model may learn from, two sets of questions, and how the data were cut."""

    train: Dataset
    valid: Holdout
    test: Holdout
    info: dict[str, object]


def leave_last_out(data: Dataset) -> Split:
    """Each user's last item is the test target, the one before it the validation target.

    At test time the validation item belongs to the history. Users with fewer than three items stay
    whole in train and are asked nothing.
    """
    histories, lengths = data.histories, data.histories.lengths
    asked = np.flatnonzero(lengths >= 3)
    train = histories.head(np.arange(len(histories)), lengths - 2 * (lengths >= 3))
    short = len(lengths) - len(asked)
    info = {"split": "leave-last-out", "users_with_fewer_than_3_items": short}
    known = lengths[asked]
    return split_at(data, train, [(asked, known - 2), (asked, known - 1)], info)


def global_time(data: Dataset, *, valid: float = 0.1, test: float = 0.1) -> Split:
    """Cut the log at two points of time, the quantiles 1 - valid - test and 1 - test.

    Train holds what came before the first cut. A user's validation target is the first item between
    the cuts, the test target the first one after the second; the history is all before that cut.
    Users without history before a cut or items after it are not asked, and counted in `info`.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ConfigError(f"valid={valid}, test={test} must be positive and add up to less than 1")
    histories, times = data.histories, data.histories.timestamps
    _check_clock(data)
    cuts = np.quantile(times, [1 - valid - test, 1 - test], method="higher")
    before = [count_before(histories, cut) for cut in (*cuts, np.inf)]
    info: dict[str, object] = {"split": "global-time", "cuts": cuts.tolist()}
    parts = []
    for name, known, until in zip(("valid", "test"), before, before[1:], strict=False):
        active = until > known
        asked = np.flatnonzero(active & (known > 0))
        info[f"{name}_users_without_history"] = int((active & (known == 0)).sum())
        info[f"{name}_later_items_not_asked"] = int((until - known)[asked].sum()) - len(asked)
        parts.append((asked, known[asked]))
    rows = np.flatnonzero(before[0])
    return split_at(data, histories.head(rows, before[0][rows]), parts, info)


def common_clock(histories: Histories) -> bool:
    """Whether timestamps are a time that users share, and not the positions of their own items."""
    firsts = histories.timestamps[histories.offsets[:-1][histories.lengths > 0]]
    return len(firsts) <= 1 or bool((firsts == firsts.min()).mean() <= 0.5)


def _check_clock(data: Dataset) -> None:
    """Refuse timestamps that only count each user's items: users then share no clock."""
    if not common_clock(data.histories):
        what = "most users start at the same timestamp, so it is no common time but a position"
        raise DataError(f"{data.name}: {what}; use leave_last_out or prepare with real times")


def count_before(histories: Histories, time: float) -> Ints:
    """Items of each row before `time`, int64[rows]."""
    running = _offsets(histories.timestamps < time)
    return running[histories.offsets[1:]] - running[histories.offsets[:-1]]


def split_at(
    data: Dataset,
    train: Histories,
    parts: Sequence[tuple[Integers, Integers]],
    info: dict[str, object],
) -> Split:
    """A split of `data` into `train` and two holdouts.

    parts: rows and how many of their items are known, for valid and test; the next is asked.
    Raises DataError where a holdout would be empty.
    """
    histories, holdouts = data.histories, []
    for name, (rows, known) in zip(("valid", "test"), parts, strict=True):
        if len(rows) == 0:
            remedy = "use more data, smaller k-core minima or another split"
            raise DataError(f"{data.name}: the {info['split']} {name} set is empty; {remedy}")
        places = histories.offsets[rows] + known
        targets, times = histories.items[places], histories.timestamps[places]
        holdouts.append(Holdout(name, histories.head(rows, known), targets, data.catalogue, times))
        info[f"{name}_users"] = len(rows)
    noted = {"split": info, "of": data.fingerprint}
    statistics = _statistics(train, len(data.catalogue))
    part = Dataset(data.name, data.catalogue, train, {**data.info, **statistics, **noted})
    valid, test = holdouts
    return Split(part, valid, test, info)
