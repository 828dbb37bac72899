"""Datetimes as text and as instants.

An *instant* is a whole number of microseconds since 1970-01-01T00:00:00Z: what times are ordered by.
A naive datetime means local time; its instant is computed with the offset of the moment when it is written.
"""

from __future__ import annotations

from datetime import MINYEAR, UTC, datetime, time, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_last_text = EPOCH, EPOCH.isoformat()

FIRST_INSTANT = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The first instant that has a date in UTC."""

LAST_INSTANT = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The last instant that has a date in UTC."""

Moment = TypeVar("Moment", datetime, time)


class InvalidMomentError(ValueError):
    """A datetime or time cannot be kept exactly; the message says why.

    Attributes:
        entry_id: of the entry that holds it, or None if that is not known.
    """

    entry_id: str | None = None


def instant_of(moment: datetime) -> int:
    """Return the instant of `moment`: microseconds since 1970 UTC; naive means local time.

    Raises:
        InvalidMomentError: the time is naive and so close to year 1 or 9999 that its offset leaves the calendar, or its
            time zone tells no offset.

    >>> instant_of(datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc))
    1000000
    """
    try:
        if moment.tzinfo is None or moment.utcoffset() is None:
            moment = moment.astimezone()
        return (moment - EPOCH) // MICROSECOND
    except Exception as error:
        if moment.tzinfo is not None:
            raise InvalidMomentError("has a time zone that tells no offset") from error
        raise InvalidMomentError("is too close to the end of the calendar to have a local time") from error


def nearest_instant(moment: datetime) -> int:
    """Return the instant of `moment`; for a naive time without local time, the nearest end of the calendar.

    Questions need that: ``datetime.min`` and ``datetime.max`` mean "from the first on" and "to the last" everywhere.

    Raises:
        InvalidMomentError: its time zone tells no offset.
    """
    try:
        return instant_of(moment)
    except InvalidMomentError:
        if moment.tzinfo is not None:
            raise
        return FIRST_INSTANT if moment.year == MINYEAR else LAST_INSTANT


def datetime_of(instant: int) -> datetime:
    """Return the moment of an instant, aware, in UTC; beyond the calendar, its nearest end.

    >>> datetime_of(1000000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return EPOCH + timedelta(0, 0, min(max(instant, FIRST_INSTANT), LAST_INSTANT))


def format_moment(moment: Moment) -> tuple[str, int, str | None]:
    """Return (ISO 8601 text, fold, name of the time zone or None).

    Raises:
        InvalidMomentError: the time zone is neither fixed (`datetime.timezone`) nor a named `ZoneInfo`,
            so it could not be read back exactly.
    """
    zone = moment.tzinfo
    name: str | None = None
    if zone is not None and type(zone) is not timezone:
        name = _zone_name(zone)
    return moment.isoformat(), moment.fold, name


def text_of(moment: datetime) -> str:
    """Return ``moment.isoformat()``. The last one is remembered: a write asks for that of its moment twice."""
    global _last_text
    known, text = _last_text
    if known is not moment:
        text = moment.isoformat()
        _last_text = moment, text
    return text


def parse_moment(kind: type[Moment], text: str, fold: int = 0, zone: str | None = None) -> Moment:
    """Return the moment that `format_moment` was given.

    Raises:
        InvalidMomentError: the text is no ISO 8601 time, or this machine does not know the time zone.
    """
    try:
        moment = kind.fromisoformat(text)
    except ValueError as error:
        raise InvalidMomentError("is not an ISO 8601 time") from error
    if zone is not None:
        moment = moment.replace(tzinfo=_load_zone(zone), fold=fold)
    elif fold:
        moment = moment.replace(fold=fold)
    return moment


def _zone_name(zone: tzinfo) -> str:
    from zoneinfo import ZoneInfo

    name = zone.key if type(zone) is ZoneInfo else None
    if name is None:
        raise InvalidMomentError(
            f"has a time zone of type {type(zone).__name__}, which cannot be stored exactly; "
            "use datetime.timezone or zoneinfo.ZoneInfo"
        )
    return name


def _load_zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidMomentError(
            f"needs the time zone {name!r}, which this machine does not know; pip install tzdata"
        ) from error
