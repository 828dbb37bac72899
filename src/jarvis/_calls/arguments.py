"""Arguments of a caller's own classes: read as plain values; an exception from their code becomes our error."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from jarvis.errors import InvalidEntryError, InvalidQueryError, InvalidSettingError, JarvisError

if TYPE_CHECKING:
    from collections.abc import Iterator


_PLAIN_COLLECTIONS = frozenset((list, tuple, set, frozenset))


def plain_text(held: object) -> str | None:
    """Return a text as an exact `str`, whatever its class does; None if it is no text.

    A stand-in that only says it is one, such as ``Mock(spec=str)``, is none.
    """
    if type(held) is str:
        return held
    return str.__str__(held) if issubclass(type(held), str) else None


def plain_moment(held: object) -> datetime | None:
    """Return a moment as an exact `datetime`, whatever its class does; None if it is no moment."""
    if type(held) is datetime:
        return held
    if not issubclass(type(held), datetime):
        return None
    return datetime.combine(datetime.date(held), datetime.timetz(held))  # type: ignore[arg-type]  # it is one


def is_on(field: str, held: object) -> bool:
    """Return the truth of a switch; raise `InvalidQueryError` if its class does not tell."""
    if held is True or held is False:
        return held
    with own_code(InvalidQueryError, field):
        return bool(held)


@contextlib.contextmanager
def own_code(kind: type[InvalidEntryError | InvalidQueryError | InvalidSettingError], field: str) -> Iterator[None]:
    """Raise an error of this `kind` about `field` in place of what a caller's classes raise in a ``with`` block.

    That is its cause. Functions of a caller are not called in such a block: what they raise passes through.
    """
    try:
        yield
    except (JarvisError, MemoryError, RecursionError):
        raise
    except Exception as error:
        problem = f"cannot be looked at: its own code raised {type(error).__name__}"
        if issubclass(kind, InvalidEntryError):
            raise kind(field, problem) from error
        raise kind(f"{field}: {problem}") from error


def is_no_list(held: object) -> bool:
    """Tell whether this can be no list of tags: it is no collection, or is one of characters, bytes or pairs."""
    kind = type(held)
    return issubclass(kind, (str, bytes, Mapping)) or not issubclass(kind, Collection)


def tag_list(tags: Collection[str] | None) -> list[str]:
    """Return tags as the list an entry holds; what is in it is left to the entry's check.

    Raises:
        InvalidEntryError: they are no collection, or it cannot be looked at.
    """
    if tags is None:
        return []
    if type(tags) in _PLAIN_COLLECTIONS:
        return list(tags)
    if is_no_list(tags):
        raise InvalidEntryError("tags", f"takes a list of str, not {type(tags).__name__}")
    with own_code(InvalidEntryError, "tags"):
        return list(tags)
