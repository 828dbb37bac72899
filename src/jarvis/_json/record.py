"""One entry of the JSON store: as the file shows it, and in memory."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from jarvis.codec import InvalidMomentError, flatten, format_moment, parse_moment, revive
from jarvis.codec.instants import MICROSECOND, datetime_of
from jarvis.codec.nesting import decoder_of, ran_out, stack_error
from jarvis.codec.values import MAX_VALUE_BYTES, NO_STACK
from jarvis.errors import WAY_OUT, CorruptStoreError, InvalidEntryError, StackFullError
from jarvis.model.entry import DEFAULT_NAMESPACE, MemoryEntry, check_expiry
from jarvis.model.record import LastingBody, Lifetime, encode_body, make_body, make_entry, may_hold_typed_forms

FAR = 253_402_387_200_000_000
"""A day past the year 9999, in microseconds."""

Instant = Annotated[int, msgspec.Meta(ge=-FAR, le=FAR)]
Number = Annotated[int, msgspec.Meta(ge=1)]
"""The number of a commit."""


def revived(value: Any, entry_id: str) -> Any:
    """Return what `jarvis.codec.revive` does; if a moment is invalid, its error names the entry."""
    try:
        return revive(value)
    except InvalidMomentError as error:
        error.entry_id = entry_id
        raise


class Stored(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An entry as the file shows it. `value` is in the plain form of `jarvis.codec`, `expires_at` ISO 8601 in UTC.

    `renewed`: a renewal stored it, see `StorageBackend.update_if_changed`.
    """

    id: str
    category: str
    key: str
    value: dict[str, Any]
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: str
    provenance: dict[str, str]
    version: Annotated[int, msgspec.Meta(ge=1)]
    position: tuple[int, Annotated[int, msgspec.Meta(ge=0)]]
    fold: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    zone: str | None = None
    expires_at: str | None = None
    ttl_microseconds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    sliding: bool = False
    renewed: bool = False

    @property
    def content(self) -> tuple[object, ...]:
        """All that is stored but timestamp, provenance and version."""
        life = self.expires_at, self.ttl_microseconds, self.sliding
        return self.category, self.key, self.value, self.tags, self.entity_type, self.entity_id, *life

    @property
    def expires(self) -> int | None:
        """The instant of expiry, or None; raise ValueError if it is malformed."""
        return None if self.expires_at is None else check_expiry(parse_moment(datetime, self.expires_at))

    def entry(self, *, plain: bool) -> MemoryEntry:
        """Return the entry, which shares its parts with this object; raise ValueError if it is malformed."""
        life = 0 if self.ttl_microseconds is None else Lifetime(self.ttl_microseconds, self.sliding)
        try:
            return make_entry(
                self.id,
                self.category,
                self.key,
                self.entity_type,
                self.entity_id,
                self.version,
                self.position,
                LastingBody(self.value, self.tags, self.provenance, (self.timestamp, self.fold, self.zone), life),
                None if (expires := self.expires) is None else datetime_of(expires),
                plain=plain,
            )
        except InvalidMomentError as error:
            error.entry_id = self.id
            raise


class Record(msgspec.Struct, frozen=True):
    """A stored entry: the fields that are looked up, and the whole as the bytes that stand in the file.

    `label` is its id as it stands before those. `MemoryQuery.predicate` takes a record in place of an
    entry, and decodes the value only if a filter asks for it.
    """

    label: bytes
    fragment: bytes
    id: str
    category: str
    key: str
    tags: tuple[str, ...]
    entity_type: str
    entity_id: str | None
    version: int
    order: tuple[int, int, str]
    expires: int | None
    renewed: bool

    def has_expired(self, now: int) -> bool:
        """Tell whether it has expired at the instant `now`."""
        return self.expires is not None and self.expires <= now

    @property
    def value(self) -> Any:
        """The value, decoded at each call."""
        value = decode_stored(self.fragment).value
        return revived(value, self.id) if may_hold_typed_forms(self.fragment) else value

    @property
    def provenance(self) -> dict[str, str]:
        """The provenance, decoded at each call."""
        return _decode_provenance(self.fragment).provenance

    @property
    def creation(self) -> int:
        """The instant of its creation, see `MemoryEntry.creation`; decoded at each call."""
        return self.entry().creation

    def entry(self) -> MemoryEntry:
        """Decode and return the entry; raise ValueError if a tagged form or the time means nothing here."""
        try:
            stored = _decoder.decode(
                self.fragment
            )  # not `decode_stored`: a list would make one call more for each entry
        except RecursionError:
            raise stack_error(self.fragment) from None
        return stored.entry(plain=not may_hold_typed_forms(self.fragment))


class Provenance(msgspec.Struct):
    """The provenance in a `Stored`, and nothing else of it."""

    provenance: dict[str, str]


by_order = attrgetter("order")
encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Stored)
decode_stored = decoder_of(Stored)
_decode_provenance = decoder_of(Provenance)


def by_number(record: Record) -> int:
    """Return the commit number of the change that stored `record`."""
    return record.order[1]


def by_expiry(record: Record) -> tuple[int, tuple[int, int, str]]:
    """Return the sort key of records that expire."""
    return record.expires or 0, record.order


class Draft:
    """A checked entry that waits for its version and commit number."""

    def __init__(self, entry: MemoryEntry) -> None:
        """Check `entry`; raise `InvalidEntryError` naming the field that cannot be kept exactly."""
        body, self._instant = make_body(entry)
        text, fold, zone = format_moment(entry.timestamp)
        self._stored = Stored(
            entry.id,
            entry.category,
            entry.key,
            {} if body.value is None else body.value,  # which is never None here
            body.tags,
            entry.entity_type,
            entry.entity_id,
            text,
            entry.provenance,
            1,
            (self._instant, 0),
            fold,
            zone,
            None if entry.expires_at is None else datetime_of(check_expiry(entry.expires_at)).isoformat(),
            None if entry.ttl is None else entry.ttl // MICROSECOND,
            entry.sliding,
        )
        try:
            size = len(encode(self._stored))
        except RecursionError:
            raise InvalidEntryError("value", NO_STACK) from None
        if size > MAX_VALUE_BYTES:
            encode_body(entry)  # raises by the rule, and with the message, of every backend

    def is_in(self, record: Record) -> bool:
        """Tell whether `record` has all of the entry, byte for byte, but timestamp, provenance and version."""
        return encode(decode_stored(record.fragment).content) == encode(self._stored.content)

    def record(self, namespace: str, version: int, commit: int, *, renewed: bool = False) -> Record:
        """Return the record to store in `namespace`."""
        self._stored.version, self._stored.position = version, (self._instant, commit)
        self._stored.renewed = renewed
        try:
            return make_record(self._stored, fragment_of(self._stored, namespace))
        except RecursionError:
            raise InvalidEntryError("value", NO_STACK) from None


def with_expiry(record: Record, namespace: str, expires: int) -> Record:
    """Return a record with another expiry, and all else as it is; raise ValueError if it is malformed."""
    stored = decode_stored(record.fragment)
    stored.expires_at = datetime_of(expires).isoformat()
    return make_record(stored, fragment_of(stored, namespace))


def normalize(stored: Stored) -> None:
    """Bring an entry that was edited by hand into the form we write; raise ValueError if it is malformed."""
    entry = stored.entry(plain=False)
    stored.value = flatten(entry.value)
    stored.expires_at = None if entry.expires_at is None else entry.expires_at.isoformat()


def make_record(stored: Stored, fragment: bytes) -> Record:
    """Return the record of `stored`, which stands as `fragment` in the file."""
    return Record(
        b"%b: " % encode(stored.id),
        fragment,
        stored.id,
        stored.category,
        stored.key,
        tuple(stored.tags),
        stored.entity_type,
        stored.entity_id,
        stored.version,
        (*stored.position, stored.id),
        stored.expires,
        stored.renewed,
    )


def fragment_of(stored: Stored, namespace: str) -> bytes:
    """Return the bytes of `stored` as they stand in the file."""
    return indented(stored, margin_of(namespace))


def margin_of(namespace: str) -> bytes:
    """Return the line break and indent in front of each line of an entry, a past state or an event."""
    return b"\n    " if namespace == DEFAULT_NAMESPACE else b"\n        "


def indented(value: object, margin: bytes) -> bytes:
    """Return the JSON of `value` over several lines, with `margin` before each but the first."""
    return msgspec.json.format(encode(value), indent=2).replace(b"\n", margin)  # no text holds a bare newline


def malformed(path: str, part: str, namespace: str, error: Exception) -> CorruptStoreError | StackFullError:
    """Return the error that something in the file at `path` is malformed, such as "entry number 3"."""
    if ran_out(error):
        return StackFullError()
    problem = "a text holds a lone surrogate" if isinstance(error, UnicodeError) else str(error)
    return CorruptStoreError(
        path,
        f"{part} of namespace {namespace!r} is malformed: {problem}; mend or remove it there; or {WAY_OUT}",
    )
