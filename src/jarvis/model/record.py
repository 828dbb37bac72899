"""Entries to stored records and back, the same for every backend of ours.

The fields that are looked up (id, category, key, entity, position) are stored beside the *body*. The body is one
JSON text with the rest, because decoding one text a row takes 0.6 of the time of three. A large value
may stand beside it, compressed; then the body has null in its place, and all else stays readable.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from jarvis.codec import InvalidMomentError, Prepared, encode, flatten, format_moment, instant_of, parse_moment, revive
from jarvis.codec.compression import THRESHOLD_BYTES, Mode, compress, decompress
from jarvis.codec.instants import MICROSECOND, nearest_instant, text_of
from jarvis.codec.nesting import decoder_of, stack_error
from jarvis.codec.values import MAX_VALUE_BYTES, NO_STACK
from jarvis.errors import InvalidEntryError
from jarvis.model.entry import MemoryEntry, check_entry, check_value, moment_in


class Body(msgspec.Struct, array_like=True):
    """The part of an entry that is not looked up, stored as an array: 100 bytes less than an object with names.

    Attributes:
        value: in the plain form of `jarvis.codec`; None if it is stored beside the body, compressed. In a body that
            is only encoded it may be a `msgspec.Raw`, its JSON.
        tags: as given.
        provenance: as given; or (module, task_id) if besides it holds only ``created_at``, equal to the timestamp.
        moment: the timestamp: in UTC as ISO 8601 text without its ``+00:00``, in another zone as (ISO 8601
            text, fold, name of the zone).
    """

    value: dict[str, Any] | None
    tags: list[str]
    provenance: dict[str, str] | tuple[str, str]
    moment: str | tuple[str, int, str | None]


class Lifetime(msgspec.Struct, omit_defaults=True):
    """How long an entry lives that got a ttl, in microseconds, and whether that begins again at reads."""

    ttl: int
    sliding: bool = False


class LastingBody(Body, array_like=True):
    """A body as it is read. `lifetime` is a number, which means nothing here, if the entry has no ttl."""

    lifetime: Lifetime | int = 0

    @property
    def ttl(self) -> timedelta | None:
        """The ttl of the entry, or None."""
        return None if isinstance(self.lifetime, int) else timedelta(microseconds=self.lifetime.ttl)

    @property
    def sliding(self) -> bool:
        """Whether reads let the ttl begin again."""
        return not isinstance(self.lifetime, int) and self.lifetime.sliding


class _NamedBody(msgspec.Struct):
    """The body in stores of version 1, an object."""

    value: dict[str, Any]
    tags: list[str]
    timestamp: str
    provenance: dict[str, str]
    fold: int = 0
    zone: str | None = None


class Encoded(NamedTuple):
    """An entry as it is stored, without the fields that are looked up.

    Attributes:
        body: UTF-8 JSON of a `Body`.
        packed: the JSON of its value, compressed, if the body does not hold it.
        instant: of the timestamp.
        created: the instant of creation if it is another one, see `creation_of`.
    """

    body: bytes
    packed: bytes | None
    instant: int
    created: int | None = None


_UTC = "+00:00"
_NO_VALUE = "[null,"  # how a body begins whose value is elsewhere
_RENEWED = ",1]"  # how a body ends that is like the one before but for timestamp and provenance
_CREATED = ("module", "task_id", "created_at")
_FEW, _SHORT = 8, 200
_SCALARS = frozenset((int, float, bool, type(None)))
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LastingBody)
_decode_named_body = decoder_of(_NamedBody)
_decode_value = decoder_of(dict[str, Any])


def prepare(value: dict[str, Any], compression: Mode) -> Prepared:
    """Return `value` encoded, and compressed as by `encode_entry`, to be put into an entry in its place.

    Raises:
        InvalidEntryError: it cannot be stored exactly, or is over `jarvis.codec.MAX_VALUE_BYTES`.
    """
    check_value(value)
    json = encode(value)
    return Prepared(json, compress(json, compression))


def is_small(value: object) -> bool:
    """Tell whether a value is a few short texts and numbers: preparing it would take as long as encoding it."""
    if type(value) is not dict or len(value) > _FEW:
        return False
    for item in value.values():
        kind = type(item)
        if kind is str:
            if len(item) > _SHORT:
                return False
        elif kind not in _SCALARS:
            return False
    return True


def make_body(entry: MemoryEntry) -> tuple[Body, int]:
    """Return (body, instant) of `entry`, checked whole.

    Raises:
        InvalidEntryError: a field cannot be stored exactly; the error names it.
    """
    check_entry(entry)
    timestamp, provenance, value = entry.timestamp, entry.provenance, entry.value
    plain: Any = msgspec.Raw(value.json) if type(value) is Prepared else flatten(value)
    try:
        instant = instant_of(timestamp)
        if timestamp.tzinfo is not UTC or timestamp.fold:
            return _lasting(Body(plain, entry.tags, provenance, format_moment(timestamp)), entry), instant
    except InvalidMomentError as error:
        raise InvalidEntryError("timestamp", str(error)) from None
    text = text_of(timestamp)
    author: dict[str, str] | tuple[str, str] = provenance
    if tuple(provenance) == _CREATED and provenance["created_at"] == text:
        author = (provenance["module"], provenance["task_id"])
    body = Body(plain, entry.tags, author, text.removesuffix(_UTC))
    return body if entry.ttl is None else _lasting(body, entry), instant


def _lasting(body: Body, of: MemoryEntry | LastingBody) -> Body:
    """Return a body with the lifetime of an entry or of another body, if it has one."""
    if of.ttl is None:
        return body
    lifetime = Lifetime(of.ttl // MICROSECOND, of.sliding)
    return LastingBody(body.value, body.tags, body.provenance, body.moment, lifetime)


def encode_body(entry: MemoryEntry) -> tuple[bytes, int]:
    """Return (UTF-8 JSON of the body, instant) of `entry`, checked whole.

    Raises:
        InvalidEntryError: a field cannot be stored exactly, or the whole is over
            `jarvis.codec.MAX_VALUE_BYTES`; the error names it.
    """
    body, instant = make_body(entry)
    return _encode(body), instant


def encode_entry(entry: MemoryEntry, compression: Mode) -> Encoded:
    """Return `entry` as it is to be stored, its value compressed as `compression` says; raise as `encode_body`.

    The size limit holds before compression, so it depends neither on the text nor on a setting.
    """
    body, instant = make_body(entry)
    encoded, created = _encode(body), None if type(body.provenance) is tuple else creation_of(body.provenance, instant)
    if len(encoded) < THRESHOLD_BYTES or compression == "off":
        return tuple.__new__(Encoded, (encoded, None, instant, created))  # no call, see `jarvis._disk.files.Stamp`
    without = _without_value(body)
    if type(entry.value) is Prepared:
        packed = entry.value.packed
        return _chosen(encoded, without, packed, instant, created)
    value = encoded[1 : 1 + len(encoded) - len(without) + len("null")]  # encoding it again would take longer
    packed = compress(value, compression)
    return _chosen(encoded, without, packed, instant, created)


def _chosen(encoded: bytes, without: bytes, packed: bytes | None, instant: int, created: int | None) -> Encoded:
    if packed is None:
        return Encoded(encoded, None, instant, created)
    return Encoded(without, packed, instant, created)


def creation_of(author: dict[str, str] | tuple[str, str], instant: int) -> int | None:
    """Return the instant of creation that the provenance in a body tells; None if it tells none, or `instant`."""
    moment = None if isinstance(author, tuple) else moment_in(author, "created_at")
    created = instant if moment is None else nearest_instant(moment)
    return None if created == instant else created


def repack(body: str, packed: bytes | None, compression: Mode) -> tuple[bytes, bytes | None] | None:
    """Return (body, packed) of a stored entry as `compression` wants it; None if nothing is to be changed.

    A compressed value that would not become smaller stays as it is.

    Raises:
        ValueError: it cannot be decoded.
    """
    if packed is None:
        decoded = decode_body(body)
        if decoded.value is None:
            raise ValueError("it has no value")
        smaller = compress(_encoder.encode(decoded.value), compression)
        without = _without_value(decoded)
        return None if smaller is None else (renewed(without) if is_renewed(body) else without, smaller)
    value = decompress(packed)
    _decode_value(value)
    if not body.startswith(_NO_VALUE):
        raise ValueError("it has two values")
    if compression == "off":
        return b"[" + value + body[len(_NO_VALUE) - 1 :].encode(), None
    smaller = compress(value, compression)
    return None if smaller is None or len(smaller) >= len(packed) else (body.encode(), smaller)


def _without_value(body: Body) -> bytes:
    without = Body(None, body.tags, body.provenance, body.moment)
    return _encoder.encode(_lasting(without, body) if isinstance(body, LastingBody) else without)


def _encode(body: Body) -> bytes:
    try:
        encoded = _encoder.encode(body)
    except RecursionError:
        raise InvalidEntryError("value", NO_STACK) from None
    if len(encoded) > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            "value",
            f"makes an entry of {len(encoded):,} bytes, the limit is {MAX_VALUE_BYTES:,}; "
            "store a file and keep its path",
        )
    return encoded


def renewed(body: bytes) -> bytes:
    """Return a body marked as one that a renewal stored, see `StorageBackend.update_if_changed`; readers skip that."""
    return body[:-1] + _RENEWED.encode()


def is_renewed(body: str) -> bool:
    """Tell whether a renewal stored this body."""
    return body.endswith(_RENEWED)


def is_same(one: MemoryEntry, other: MemoryEntry) -> bool:
    """Tell whether two entries are stored byte for byte alike, but for timestamp, provenance and version."""
    return one.expires_at == other.expires_at and _content(one) == _content(other)


def _content(entry: MemoryEntry) -> tuple[object, ...]:
    value = entry.value.json if type(entry.value) is Prepared else encode(entry.value)
    life = entry.ttl, entry.sliding
    return value, entry.tags, entry.category, entry.key, entry.entity_type, entry.entity_id, *life


def holds(body: str, packed: bytes | None, encoded: Encoded, provenance: dict[str, str]) -> bool:
    """Tell whether a stored body has the value and tags of an entry, byte for byte, whatever compression they have.

    Args:
        body, packed: as stored.
        encoded: the entry, encoded.
        provenance: that of the entry.
    """
    if packed is None and encoded.packed is None and not body.startswith("{"):
        end = encoded.body.rfind(_encoder.encode(provenance))  # -1, so all but the last byte, if it is in short form
        return body.startswith(encoded.body[:end].decode()) and _end(body) == _end(encoded.body.decode())
    stored, new = decode_body(body), decode_body(encoded.body)
    same = (stored.tags, stored.ttl, stored.sliding) == (new.tags, new.ttl, new.sliding)
    return same and _value_of(stored, packed) == _value_of(new, encoded.packed)


def _end(body: str) -> str:
    """Return the lifetime at the end of a body, as it stands there; empty if it has none."""
    body = body.removesuffix(_RENEWED) + "]" if body.endswith(_RENEWED) else body
    return body[body.rfind("{") :] if body.endswith("}]") else ""


def _value_of(body: Body, packed: bytes | None) -> bytes:
    return _encoder.encode(body.value) if packed is None else decompress(packed)


def decode_body(encoded: bytes | str) -> LastingBody:
    """Return the body that `encode_body` encoded; its value is still plain, or None.

    Raises:
        ValueError: it is no such body.
        StackFullError: it is nested too deep for what is left of the call stack.
    """
    if is_named(encoded):
        named = _decode_named_body(encoded)
        return LastingBody(named.value, named.tags, named.provenance, (named.timestamp, named.fold, named.zone))
    try:
        return _decoder.decode(encoded)
    except RecursionError:
        raise stack_error(encoded) from None


def is_named(encoded: bytes | str) -> bool:
    """Tell whether a body is one of a store of version 1, an object."""
    return encoded[:1] in ("{", b"{")


def decode_value(encoded: bytes | str, packed: bytes | None) -> Any:
    """Return the value of a record, without the entry around it; raise ValueError if it is malformed."""
    body = decode_body(encoded)
    has_typed_forms = may_hold_typed_forms(encoded) if packed is None else _unpack(body, packed)
    if body.value is None:
        raise ValueError("it has no value")
    return revive(body.value) if has_typed_forms else body.value


def check_stored(encoded: bytes | str, packed: bytes | None) -> LastingBody:
    """Return the body of a record with its value, still plain; raise ValueError if one of them is malformed."""
    body = decode_body(encoded)
    if packed is not None:
        _unpack(body, packed)
    if body.value is None:
        raise ValueError("it has no value")
    return body


def _unpack(body: Body, packed: bytes) -> bool:
    """Give a body its compressed value; return whether that may hold tagged forms."""
    if body.value is not None:
        raise ValueError("it has two values")
    value = decompress(packed)
    body.value = _decode_value(value)
    return may_hold_typed_forms(value)


def may_hold_typed_forms(encoded: bytes | str) -> bool:
    """Tell whether a body may hold tagged forms; if not, `revive` would change nothing."""
    return b'"$type"' in encoded if isinstance(encoded, bytes) else '"$type"' in encoded


def decode_entry(
    entry_id: str,
    category: str,
    key: str,
    entity_type: str,
    entity_id: str | None,
    version: int,
    position: tuple[int, int] | None,
    encoded: bytes | str,
    expires_at: datetime | None,
    packed: bytes | None,
) -> MemoryEntry:
    """Return the entry of a record whose body is `encoded`, and whose value is `packed` if the body has none.

    Raises:
        ValueError: the body, its value, its timestamp or a tagged form is malformed.
    """
    body = decode_body(encoded)
    if packed is not None:
        has_typed_forms = _unpack(body, packed)
    else:  # as `may_hold_typed_forms`, without its call
        has_typed_forms = '"$type"' in encoded if type(encoded) is str else may_hold_typed_forms(encoded)
    return make_entry(
        entry_id,
        category,
        key,
        entity_type,
        entity_id,
        version,
        position,
        body,
        expires_at,
        plain=not has_typed_forms,
    )


def unknown_zone(entry_id: str | None, error: InvalidMomentError) -> str:
    """Return what is wrong with a store whose entry has a time zone that this machine does not know."""
    which = "an entry" if entry_id is None else f"the entry {entry_id!r}"
    return f"{which} {error}; or delete or erase it: that needs its id alone"


def make_entry(
    entry_id: str,
    category: str,
    key: str,
    entity_type: str,
    entity_id: str | None,
    version: int,
    position: tuple[int, int] | None,
    body: LastingBody,
    expires_at: datetime | None = None,
    *,
    plain: bool = False,
) -> MemoryEntry:
    """Return the entry of a record. `plain`: its value holds no tagged form.

    Raises:
        ValueError: the timestamp or a tagged form is malformed.
    """
    value = body.value if plain else revive(body.value)
    if type(value) is not dict:
        raise ValueError("the value is no object")
    author, moment = body.provenance, body.moment
    if type(moment) is str:
        text = moment + _UTC
        timestamp = datetime.fromisoformat(text)
        if type(author) is tuple:
            author = {"module": author[0], "task_id": author[1], "created_at": text}
    else:
        timestamp = parse_moment(datetime, *moment)
    if not isinstance(author, dict):
        raise ValueError("it has no created_at")
    return MemoryEntry(
        entry_id,
        category,
        key,
        value,
        body.tags,
        entity_type,
        entity_id,
        timestamp,
        author,
        version,
        position,
        expires_at,
        None if type(body.lifetime) is int else body.ttl,
        type(body.lifetime) is not int and body.sliding,
    )
