"""Whole memories, with version and past, in the form in which they go from one store to another.

Texts, numbers and lists only, so that every backend writes the same memory in the same bytes: values are JSON in the
plain form of `jarvis.codec`, moments are ISO 8601 texts. No commit number is in it, because each store numbers its
changes itself: the order of the memories tells which was changed last.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from jarvis.codec import Prepared, encode, parse_moment
from jarvis.codec.compression import Mode, compress, decompress
from jarvis.codec.instants import datetime_of, instant_of
from jarvis.codec.nesting import decoder_of
from jarvis.errors import InvalidEntryError
from jarvis.model.entry import MemoryEntry, check_expiry
from jarvis.model.record import (
    Encoded,
    LastingBody,
    Lifetime,
    check_stored,
    creation_of,
    encode_body,
    is_named,
    is_renewed,
    make_entry,
    may_hold_typed_forms,
)
from jarvis.model.revision import Operation, Signature

_UTC = "+00:00"
_NO_TIME = datetime.min.replace(tzinfo=UTC)
_decode_value = decoder_of(dict[str, Any])
_encode = msgspec.json.Encoder().encode
_Version = Annotated[int, msgspec.Meta(ge=1, le=2**62)]


class PortableEntry(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The state of an entry, without its id. `fold` and `zone` belong to the timestamp."""

    category: str
    key: str
    value: msgspec.Raw
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: str
    provenance: dict[str, str]
    version: _Version
    expires_at: str | None = None
    ttl_microseconds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    sliding: bool = False
    fold: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    zone: str | None = None

    @property
    def expires(self) -> int | None:
        """The instant of expiry, or None; raise ValueError if it is malformed."""
        return None if self.expires_at is None else check_expiry(parse_moment(datetime, self.expires_at))

    def named(self, entry_id: str) -> MemoryEntry:
        """Return the entry with its id; raise ValueError if a part of it means nothing here."""
        return self._made(entry_id, _decode_value(bytes(self.value)))

    def prepared(self, entry_id: str, compression: Mode) -> MemoryEntry:
        """Return the entry as it is to be stored: its value has the same bytes in every store.

        Raises:
            ValueError: a part of it means nothing here.
            InvalidEntryError: its value cannot be stored.
        """
        json = bytes(self.value)
        plain = _decode_value(json)
        entry = self._made(entry_id, plain)
        again = encode(entry.value)  # which checks it
        if again != json and _encode(plain) != json:  # somebody wrote it by hand
            json = again
        entry.value = Prepared(json, compress(json, compression))
        return entry

    def last_step(self, entry_id: str, compression: Mode, *, renews: bool) -> Step:
        """Return the present state as a `Step`; raise as `prepared`."""
        return Step(self.prepared(entry_id, compression), renews, None, None)

    def _made(self, entry_id: str, value: dict[str, Any]) -> MemoryEntry:
        life = 0 if self.ttl_microseconds is None else Lifetime(self.ttl_microseconds, self.sliding)
        expires = self.expires
        return make_entry(
            entry_id,
            self.category,
            self.key,
            self.entity_type,
            self.entity_id,
            self.version,
            None,
            LastingBody(value, self.tags, self.provenance, (self.timestamp, self.fold, self.zone), life),
            None if expires is None else datetime_of(expires),
            plain=not may_hold_typed_forms(bytes(self.value)),
        )


class SoundEntry(PortableEntry, kw_only=True):
    """A present state that is stored elsewhere as it was here, without a look at its value: its checksum was right.

    Attributes:
        stored: its body and its compressed value as they were stored, and the instant of its timestamp.
    """

    stored: tuple[bytes, bytes | None, int]

    def last_step(self, entry_id: str, compression: Mode, *, renews: bool) -> Step:
        """Return the state as a `Step` with its stored form, if that is the form of today."""
        body, packed, instant = self.stored
        if is_named(body) or is_renewed(body[-9:].decode(errors="replace")):
            return super().last_step(entry_id, compression, renews=renews)
        author, until = self.provenance, self.expires
        created = None if author.get("created_at") == self.timestamp else creation_of(author, instant)
        entry = MemoryEntry(
            entry_id,
            self.category,
            self.key,
            {},
            self.tags,
            self.entity_type,
            self.entity_id,
            _NO_TIME,
            author,
            self.version,
            expires_at=None if until is None else datetime_of(until),
        )
        return Step(entry, renews, None, None, Encoded(body, packed, instant, created))


class Ending(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """The change that ended a past state: how, when (in UTC), by whom and why."""

    operation: Operation
    timestamp: str
    module: str | None = None
    task_id: str | None = None
    reason: str | None = None

    @property
    def instant(self) -> int:
        """The instant of the change; raise ValueError if it is malformed."""
        return instant_at(self.timestamp)

    @property
    def signature(self) -> Signature:
        """Who made the change, how and why."""
        return Signature(self.operation, self.module, self.task_id, self.reason)


class PastEntry(PortableEntry, kw_only=True):
    """A state that a change ended."""

    ended: Ending


class Lost(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Past states that are not known any more: they were pruned, or purged because the memory had expired.

    Attributes:
        since: when the first of them began, in UTC.
        until: when the last of them ended.
        expired_at: when the memory expired, if that is why they are gone.
        category, key, entity_type, entity_id: of every lost state; left out if they differ, or are not known.
    """

    since: str
    until: str
    expired_at: str | None = None
    category: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    entity_type: str | msgspec.UnsetType = msgspec.UNSET
    entity_id: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def instants(self) -> tuple[int, int, int | None]:
        """The instants of `since`, `until` and `expired_at`; raise ValueError if one is malformed."""
        expires = None if self.expired_at is None else instant_at(self.expired_at)
        return instant_at(self.since), instant_at(self.until), expires


class Step(NamedTuple):
    """One state of a memory, read and checked.

    Attributes:
        entry: the state; its value is a `jarvis.codec.Prepared`, or not there if it has `stored`.
        renews: it renewed the one before.
        made: the instant of the change that ended it, None for the present state.
        signature: who made that change, how and why.
        stored: the state as it is to be stored, if that need not be made of the entry.
    """

    entry: MemoryEntry
    renews: bool
    made: int | None
    signature: Signature | None
    stored: Encoded | None = None


class WholeMemory(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A memory with all that is known of it.

    Attributes:
        namespace: the name of the namespace that has it.
        id: its id.
        entry: its present state; None if it was removed.
        past: its earlier states, the oldest first.
        lost: what is missing before those.
    """

    namespace: str
    id: str
    entry: PortableEntry | None = None
    past: list[PastEntry] = []
    lost: Lost | None = None

    def steps(self, compression: Mode = "off") -> list[Step]:
        """Return its states as they are to be stored, the oldest first.

        Raises:
            InvalidEntryError: a part of it cannot be stored, or its versions are out of order.
        """
        steps: list[Step] = []
        renews, version = False, 0
        try:
            for state in self.past:
                ended, signature = state.ended.instant, state.ended.signature
                steps.append(Step(state.prepared(self.id, compression), renews, ended, signature))
                renews = signature.operation == "renew"
            if self.entry is not None:
                steps.append(self.entry.last_step(self.id, compression, renews=renews))
        except InvalidEntryError:
            raise
        except (ValueError, OverflowError) as error:
            raise InvalidEntryError("entry", f"cannot be read: {error}") from None
        if not steps and self.lost is None:
            raise InvalidEntryError("entry", "is missing, and there is no past")
        for step in steps:
            if step.entry.version < version:
                raise InvalidEntryError("past", "has versions that are out of order")
            version = step.entry.version
        return steps

    def has_expired(self, now: int) -> bool:
        """Tell whether nobody may be told of it at the instant `now`, because it has expired."""
        last = self.entry or (self.past[-1] if self.past else None)
        return self.lost is not None if last is None else (last.expires or now + 1) <= now


decode_whole = decoder_of(WholeMemory)
"""Returns the memory in JSON; raises ValueError if it is malformed."""

# --- from stored forms -------------------------------------------------------------------------------


class _RawBody(msgspec.Struct, array_like=True):
    """A `LastingBody` whose value is not decoded."""

    value: msgspec.Raw
    tags: list[str]
    provenance: dict[str, str] | tuple[str, str]
    moment: str | tuple[str, int, str | None]
    lifetime: Lifetime | Literal[0, 1] = 0


class _RawNamedBody(msgspec.Struct):
    """The body in stores of version 1."""

    value: msgspec.Raw
    tags: list[str]
    timestamp: str
    provenance: dict[str, str]
    fold: int = 0
    zone: str | None = None


_decode_raw = decoder_of(_RawBody)
_decode_raw_named = decoder_of(_RawNamedBody)


raw_body = _decode_raw
"""Returns a body that is not `is_named`, its value still JSON; raises ValueError if it is malformed."""


def check_form(body: bytes | str, packed: bytes | None) -> LastingBody | _RawBody:
    """Return the body of a stored entry whose JSON is well-formed; raise ValueError if not. Its value may be raw."""
    if packed is not None or is_named(body):
        return check_stored(body, packed)
    raw = _decode_raw(body)
    if bytes(raw.value)[:1] != b"{":
        raise ValueError("it has no value")
    return raw


Names = tuple[str, str, str, str | None]
"""Category, key, entity type and entity id."""


def fields_of(
    names: Names, version: int, expires: int | None, body: bytes | str, packed: bytes | None
) -> tuple[Any, ...]:
    """Return the fields of a `PortableEntry` for a stored entry, whose value is not decoded.

    Raises:
        ValueError: it is malformed.
    """
    if is_named(body):
        named = _decode_raw_named(body)
        value, tags, moment = named.value, named.tags, (named.timestamp, named.fold, named.zone)
        author: dict[str, str] | tuple[str, str] = named.provenance
        lifetime: Lifetime | int = 0
    else:
        raw = _decode_raw(body)
        value, tags, author, lifetime = raw.value, raw.tags, raw.provenance, raw.lifetime
        moment = raw.moment if isinstance(raw.moment, tuple) else (raw.moment + _UTC, 0, None)
    if packed is not None:
        value = msgspec.Raw(decompress(packed))
    if isinstance(author, tuple):
        author = {"module": author[0], "task_id": author[1], "created_at": moment[0]}
    ttl, sliding = (None, False) if isinstance(lifetime, int) else (lifetime.ttl, lifetime.sliding)
    category, key, entity_type, entity_id = names
    until = None if expires is None else text_at(expires)
    life = until, ttl, sliding, *moment[1:]
    return category, key, value, tags, entity_type, entity_id, moment[0], author, version, *life


def portable(entry: MemoryEntry) -> PortableEntry:
    """Return the portable form of an entry, checked whole.

    Raises:
        InvalidEntryError: a field cannot be stored exactly; the error names it.
    """
    body, _ = encode_body(entry)
    names = entry.category, entry.key, entry.entity_type, entry.entity_id
    expires = None if entry.expires_at is None else check_expiry(entry.expires_at)
    return PortableEntry(*fields_of(names, entry.version, expires, body.decode(), None))


def instant_at(text: str) -> int:
    """Return the instant of an ISO 8601 text; raise ValueError if it is none."""
    return instant_of(parse_moment(datetime, text))


def moment_at(text: str) -> datetime:
    """Return the moment of an ISO 8601 text, in UTC; raise ValueError if it is none."""
    return datetime_of(instant_at(text))


def text_at(instant: int) -> str:
    """Return the ISO 8601 text of an instant, in UTC."""
    return datetime_of(instant).isoformat()
