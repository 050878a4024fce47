"""Timestamps of a log: numbers in several units and texts in several formats become seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from typing import cast

import polars as pl

from genrec.data.column_types import EXACT
from genrec.errors import DataError

_TIME_FORMATS = (
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"),
    *("%Y-%m-%d", "%m %d, %Y"),  # the last one is Amazon's reviewTime
    *("%Y-%m-%d %H:%M:%S%.f%#z", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%#z", "%Y%m%d"),
    *("%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%d %H:%M", "%Y/%m/%d"),
    *("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y"),  # with dots the day comes first
    *("%d %b %Y, %H:%M", "%d %b %Y %H:%M:%S", "%d %b %Y", "%b %d, %Y", "%B %d, %Y"),
    *("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
)
"""Formats that can be read in one way only. 1/2/2023 is not among them."""


_ORDERS = ("%d %m %Y", "%m %d %Y", "%d %m %y", "%m %d %y", "%y %m %d")


_NUMERIC_DATE = r"^([0-9]{1,2})([/-])([0-9]{1,2})[/-]([0-9]{4}|[0-9]{2})(?:$|[ ,T])"
"""A date such as 1/2/2023 or 13-2-23, whose day comes first or second."""


_CLOCKS = ("", *(f"{gap}{clock}" for gap in (" ", ", ", "T") for clock in ("%H:%M", "%H:%M:%S%.f")))
_CLOCKS += (" %H:%M %z", " %H:%M:%S %z", " %H:%M:%S%#z")
_CLOCKS += tuple(f"{gap}{clock}" for gap in (" ", ", ") for clock in ("%I:%M %p", "%I:%M:%S %p"))


# 1e11 seconds after 1970 is the year 5138, so a larger number has a smaller unit.
_TIME_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))


# In a column of mixed units, a number is a time if it lies between 1995 and 2040 in its unit.
_PLAUSIBLE = (788_918_400, 2_208_988_800)


# Clocks that do not begin in 1970, with the range of their times, the time of 1970 and the times in
# a second. As nanoseconds or microseconds since 1970, these times would be from 1989 and 1990, from
# 1974 and from after 2350.
_CLOCKS_FROM_BEFORE = (
    ("ticks", (6.2e17, 6.5e17), 621_355_968_000_000_000, 1e7),  # .NET: since the year 1; 1965–2060
    ("filetime", (1.243e17, 1.386e17), 116_444_736_000_000_000, 1e7),  # Windows: since 1601
    ("webkit", (1.243e16, 1.386e16), 11_644_473_600_000_000, 1e6),  # browsers: since 1601
)


_DATES_AND_SECONDS = "holds dates and seconds since 1970; each was read as what it is"


ROUNDED = r"^[0-9]([.,][0-9]+)?[eE]\+[0-9]+$"
"""How a spreadsheet writes a long number that it has rounded."""


A_DATE = 100_000_000
"""Smaller numbers, as seconds, are before March 1973 and rather an order."""


_NO_ORDER = 10_000  # larger numbers below A_DATE may be dates such as 311223


_YEAR = 365.2425 * 86_400


_DATES = (-2_208_988_800, 4_133_980_800)  # 1900 to 2100, the dates that numbers may stand for


def seconds_of(column: pl.Series, form: str | None = None) -> tuple[pl.Series, str, str]:
    """Convert timestamps to seconds since 1970.

    Args:
        column: numbers, dates or texts.
        form: format of the texts, as ``strptime`` has it; recognised if ``None``.

    Returns:
        The seconds (f64, null where a value cannot be read; times without a zone are UTC), the unit
        of the input, and a remark if the input mixes units or its format was inferred.
    """
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us"), strict=False).dt.epoch("us") / 1e6, "datetime", ""
    if form is not None and "%Z" in form:
        raise DataError(
            f"the timestamp format {form!r} cannot be used, because names of zones (%Z) are not "
            "read; write offsets such as +0100 and give %z"
        )
    if form is not None:
        return _epoch(_parsed(column.cast(pl.String).str.strip_chars(), form)), form, ""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return _numbers_in_seconds(numbers, column)
    if column.dtype != pl.String:
        return numbers, "as given", ""
    return _texts_in_seconds(column, numbers)


def _texts_in_seconds(text: pl.Series, numbers: pl.Series) -> tuple[pl.Series, str, str]:
    """Convert texts, of which some may be numbers.

    Beside dates, a number is a time only if it is a plausible one in some unit.
    """
    formats, inferred = _numeric_dates(text)
    seconds = pl.Series([None] * len(text), dtype=pl.Float64)
    for each in (*_TIME_FORMATS, "%+", *formats):
        if seconds.null_count() == text.null_count():
            break
        seconds = pl.select(pl.coalesce(seconds, _epoch(_parsed(text, each)))).to_series()
    if seconds.null_count() == len(text):
        return numbers, "as given", ""  # there are no dates: the texts among the numbers are wrong
    own, _ = _in_own_unit(numbers)
    own = own.set(~own.is_between(*_PLAUSIBLE), None)
    remark = (
        "holds texts and numbers; the numbers were read as times since 1970, each in its unit"
        * any(seconds.is_null() & own.is_not_null())
    )
    seconds = pl.select(pl.coalesce(seconds, own)).to_series()
    return seconds, "text", " and ".join(filter(None, (remark, inferred)))


def time_remarks(column: pl.Series, seconds: pl.Series, unit: str) -> Iterator[str]:
    """Yield what a user should know of times that may have been misread.

    Args:
        column: the times as they were in the file.
        seconds: the times as read, none of them missing.
        unit: the unit of the input; see :func:`seconds_of`.
    """
    if column.dtype == pl.String and len(rounded := column.filter(column.str.contains(ROUNDED))):
        yield (
            f"holds {len(rounded)} times that a spreadsheet has rounded, such as {rounded[0]!r}; "
            "export them as text"
        )
    if (
        column.dtype in (pl.Float16, pl.Float32)
        and (column.abs() >= EXACT[type(column.dtype)]).any()
    ):
        yield (
            f"holds times as {column.dtype} numbers, which are too short for them, so the order of "
            "near times is lost; store them as whole numbers or as dates"
        )
    low, high = cast(float, seconds.min()), cast(float, seconds.max())
    if unit != "as given" and low < _DATES[0]:
        yield (
            f"begins in the year {1970 + int(low / _YEAR)}; if that is wrong, convert the times to "
            "the Gregorian calendar, or name their format with --timestamp-format"
        )
    if high > time.time() + _YEAR:
        yield (
            f"reaches the year {1970 + int(high / _YEAR)}; if that is wrong, "
            "name the format of the times with --timestamp-format"
        )
    elif unit == "as given" and _NO_ORDER < high < A_DATE:
        yield (
            f"holds numbers from {low:g} to {high:g}, too small for seconds since 1970, so they "
            "only order the events; if they are dates, name their format with --timestamp-format"
        )
    early = int((seconds < A_DATE).sum())
    unset = int((seconds == 0).sum())
    if 0 < 2 * early < len(seconds) or (0 < unset < len(seconds) and high >= _PLAUSIBLE[0]):
        yield (
            f"holds {early} times before March 1973, which come first in their users' histories; "
            "if they stand for a missing time, remove their rows"
        )


def tie_remarks(rows: pl.DataFrame) -> Iterator[str]:
    """Yield a remark if most users have one time for all of their events.

    Args:
        rows: the columns user and timestamp (seconds).
    """
    users = rows.group_by("user").agg(
        several=pl.len() > 1, tied=pl.col("timestamp").min() == pl.col("timestamp").max()
    )
    users = users.filter("several")
    if users.height and 2 * users["tied"].sum() > users.height:
        yield (
            f"has one time for all events of {users['tied'].sum()} of {users.height} users, so the "
            "order of the rows decides there, the oldest first"
        )


def _parsed(text: pl.Series, form: str) -> pl.Series:
    # Of the parser, %f counts nanoseconds, and %.f takes any number of digits after a point.
    form = form.replace(".%f", "%.f")
    if ",%f" in form:
        text, form = text.str.replace(r",(\d{1,9}\D*)$", ".$1"), form.replace(",%f", "%.f")
    if "%f" in form:
        raise DataError(
            f"the timestamp format {form!r} has %f without a point or comma in front; give %3f for "
            "milliseconds or %6f for microseconds"
        )
    if "%H" in form and "%M" not in form:  # the parser wants minutes as well
        text, form = text + ":00", f"{form}:%M"
    try:
        zone = None if form == "%+" else "UTC"  # "%+", ISO 8601, has zones of its own
        return text.str.to_datetime(form, time_zone=zone, strict=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the timestamp format {form!r} cannot be used ({reason}); give one such as "
            "'%d/%m/%Y %H:%M'"
        ) from None


def _epoch(times: pl.Series) -> pl.Series:
    # %Y also takes the 2 of 2/9/23 for a year.
    return times.set(times.dt.year() < 1000, None).dt.epoch("us") / 1e6


def formats_of(text: str) -> list[str]:
    """Return the formats in which a date of three numbers can be read, one for each order."""
    value, found = pl.Series([text.strip()]), {}
    for form in _ORDERS:
        for mark, clock in product("/-.", _CLOCKS):
            whole = mark.join(form.split()) + clock
            if form not in found and not _epoch(_parsed(value, whole)).has_nulls():
                found[form] = whole
    return list(found.values())


def _numeric_dates(text: pl.Series) -> tuple[Iterator[str], str]:
    """Decide from the whole column whether the day or the month comes first in 13/2/2023.

    Returns:
        The formats to try, none if the column leaves it open, and a remark on the decision.
    """
    parts = text.str.extract_groups(_NUMERIC_DATE).struct.unnest().drop_nulls()
    first, _, second, year = parts.get_columns()
    numbers = pl.DataFrame({"first": first, "second": second, "last": year}).cast(pl.Int64)
    days = [name for name in ("first", "second") if (numbers[name] > 12).any()]
    short = (year.str.len_chars() == 2).any()
    # In 25/12/23 the last number may be the day as well, unless some other one exceeds 31.
    year_first = short and "first" in days and not (numbers["last"] > 31).any()
    if len(days) != 1 or year_first:
        return iter(()), ""
    day_first = days == ["first"]
    example = text.filter(text.str.contains(_NUMERIC_DATE) & (_part(text, day_first) > 12))[0]
    word = "day" if day_first else "month"
    order = ("%d", "%m") if day_first else ("%m", "%d")
    formats = (
        f"{mark.join((*order, last))}{clock}"
        for mark in "/-"
        for last in (("%y", "%Y") if short else ("%Y",))
        for clock in _CLOCKS
    )
    return formats, f"was read with the {word} first, which {example!r} shows"


def _part(text: pl.Series, first: bool) -> pl.Series:
    return text.str.extract(_NUMERIC_DATE, 1 if first else 3).cast(pl.Int64)


def unclear_dates(text: pl.Series) -> bool:
    """Return whether some texts are dates such as 1/2/2023, which leave the month open."""
    return text.dtype == pl.String and bool(text.str.contains(_NUMERIC_DATE).any())


def _compact_dates(numbers: pl.Series) -> pl.Series:
    """Return the seconds of dates such as 20240131, 202401311015 and 20240131101500, else null."""
    near = [numbers.is_between(19e6 * step, 21.1e6 * step).any() for step in (1, 10**4, 10**6)]
    if not any(near):
        return numbers.clear(len(numbers))
    text = numbers.cast(pl.Int64, strict=False).cast(pl.String)
    text = text.set((numbers % 1 != 0).fill_null(True), None)
    forms = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    times = [
        _epoch(_parsed(text.set((text.str.len_chars() != size).fill_null(True), None), form))
        for size, form in forms.items()
    ]
    seconds = pl.select(pl.coalesce(times)).to_series()
    return seconds.set(~seconds.is_between(*_DATES), None)


def _in_own_unit(numbers: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return each number in seconds if its size alone decides on its unit, and the units."""
    own, unit = pl.lit(1.0), pl.lit("seconds")
    for limit, divisor, name in reversed(_TIME_UNITS):
        own = pl.when(pl.col("size") > limit).then(divisor).otherwise(own)
        unit = pl.when(pl.col("size") > limit).then(pl.lit(name)).otherwise(unit)
    sizes = numbers.abs().to_frame("size")
    known = sizes.drop_nulls()
    return numbers / sizes.select(own).to_series(), known.select(unit.alias("unit")).to_series()


def _numbers_in_seconds(numbers: pl.Series, column: pl.Series) -> tuple[pl.Series, str, str]:
    """Convert numbers to seconds.

    All numbers have the unit of the median. If their sizes show several units, each number gets its
    own one, provided that all of them are plausible times then. If at least half of the numbers are
    dates such as 20240131, the others must be dates or plausible times.

    Returns:
        The seconds, the unit, and a remark if there are several units.
    """
    count = numbers.count()
    for unit, times, in_1970, a_second in _CLOCKS_FROM_BEFORE:
        if count and numbers.is_between(*times).all():
            return (numbers - in_1970) / a_second, unit, ""
    dates, (each, units) = _compact_dates(numbers), _in_own_unit(numbers)
    plausible = each.is_between(*_PLAUSIBLE).fill_null(False)
    if count and 2 * dates.count() >= count:
        seconds = pl.select(pl.coalesce(dates, each.set(~plausible, None))).to_series()
        return seconds, "date", _DATES_AND_SECONDS if plausible.any() else ""
    if not plausible.any() and numbers.is_between(1011990, 31122040).all() and _day_first(column):
        return numbers.clear(len(numbers)), "unclear", ""
    size = cast(float, numbers.abs().median() or 0.0)
    common = next((unit for unit in _TIME_UNITS if size > unit[0]), (0.0, 1.0, "as given"))
    either = pl.select(pl.coalesce(each.set(~plausible, None), dates)).to_series()
    counts = units.value_counts(sort=True)
    if 2 * plausible.sum() >= count and either.count() == count:
        if dates.count():
            return either, "mixed", _DATES_AND_SECONDS
        if len(counts) > 1:
            return each, "mixed", f"holds {_shares(counts)}; each was converted from its own unit"
    if len(counts) < 2:
        return numbers / common[1], common[2], ""
    remark = f"seems to hold {_shares(counts)}; all were read as {common[2]}, so check the times"
    return numbers / common[1], common[2], remark


def _shares(counts: pl.DataFrame) -> str:
    return " and ".join(f"{name} (rows: {count})" for name, count in counts.iter_rows())


def _day_first(column: pl.Series) -> bool:
    """Return whether all numbers are dates such as 31012024 or 01312024, whose year comes last."""
    digits = column.cast(pl.Int64, strict=False).cast(pl.String).str.zfill(8)
    if digits.null_count() > column.null_count():
        return False
    years = digits.str.slice(4).cast(pl.Int64, strict=False)
    if not (years.is_between(1990, 2040) & (digits.str.len_chars() == 8)).all():
        return False
    for form in ("%d%m%Y", "%m%d%Y"):
        if _parsed(digits, form).null_count() == column.null_count():
            return len(column) > column.null_count()
    return False
