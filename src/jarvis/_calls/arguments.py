"""Reads arguments of a caller's own classes as plain values; an exception from their code becomes our error."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from jarvis.errors import InvalidEntryError, InvalidQueryError, InvalidSettingError, JarvisError

if TYPE_CHECKING:
    from collections.abc import Iterator


_PLAIN_COLLECTIONS = frozenset((list, tuple, set, frozenset))


def plain_text(text: object) -> str | None:
    """Return a text as an exact `str`, whatever its class does; None if it is no text.

    An object that only pretends to be a text, such as ``Mock(spec=str)``, is none.
    """
    if type(text) is str:
        return text
    return str.__str__(text) if issubclass(type(text), str) else None


def plain_moment(moment: object) -> datetime | None:
    """Return a moment as an exact `datetime`, whatever its class does; None if it is no moment."""
    if type(moment) is datetime:
        return moment
    if not issubclass(type(moment), datetime):
        return None
    return datetime.combine(datetime.date(moment), datetime.timetz(moment))  # type: ignore[arg-type]  # it is one


def is_on(field: str, switch: object) -> bool:
    """Return the truth of a switch; raise `InvalidQueryError` if its class raises."""
    if switch is True or switch is False:
        return switch
    with own_code(InvalidQueryError, field):
        return bool(switch)


@contextlib.contextmanager
def own_code(kind: type[InvalidEntryError | InvalidQueryError | InvalidSettingError], field: str) -> Iterator[None]:
    """Raise an error of this `kind` about `field` in place of an exception of a caller's classes in a ``with`` block.

    The exception is its cause. Call no functions of a caller in such a block: their exceptions must pass through.
    """
    try:
        yield
    except (JarvisError, MemoryError, RecursionError):
        raise
    except Exception as error:
        problem = f"cannot be read: its own code raised {type(error).__name__}"
        if issubclass(kind, InvalidEntryError):
            raise kind(field, problem) from error
        raise kind(f"{field}: {problem}") from error


def is_no_list(value: object) -> bool:
    """Tell whether a value cannot be a list of tags: it is no collection, or one of characters, bytes or pairs."""
    kind = type(value)
    return issubclass(kind, (str, bytes, Mapping)) or not issubclass(kind, Collection)


def tag_list(tags: Collection[str] | None) -> list[str]:
    """Return tags as a list for an entry, which checks its content.

    Raises:
        InvalidEntryError: the tags are no collection, or one that cannot be read.
    """
    if tags is None:
        return []
    if type(tags) in _PLAIN_COLLECTIONS:
        return list(tags)
    if is_no_list(tags):
        raise InvalidEntryError("tags", f"takes a list of str, not {type(tags).__name__}")
    with own_code(InvalidEntryError, "tags"):
        return list(tags)
