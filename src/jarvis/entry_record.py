"""Entries to stored records and back: what every backend of ours keeps of an entry, in one place.

What is looked up (id, category, key, entity, position) is stored beside the *body*; the body is one
JSON text with the rest, because decoding one text a row takes 0.6 of the time of three.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from jarvis.codec import InvalidMomentError, flatten, format_moment, instant_of, parse_moment, revive
from jarvis.codec.values import MAX_VALUE_BYTES
from jarvis.errors import InvalidEntryError
from jarvis.memory_entry import MemoryEntry, check_entry


class Body(msgspec.Struct, omit_defaults=True):
    """The part of an entry that is not looked up. `value` is in the plain form of `jarvis.codec`."""

    value: dict[str, Any]
    tags: list[str]
    timestamp: str
    provenance: dict[str, str]
    fold: int = 0
    zone: str | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Body)


def make_body(entry: MemoryEntry) -> tuple[Body, int]:
    """Return (body, instant) of `entry`, checked whole.

    Raises:
        InvalidEntryError: a field cannot be stored exactly; the error names it.
    """
    check_entry(entry)
    try:
        instant = instant_of(entry.timestamp)
        text, fold, zone = format_moment(entry.timestamp)
    except InvalidMomentError as error:
        raise InvalidEntryError("timestamp", str(error)) from None
    return Body(flatten(entry.value), entry.tags, text, entry.provenance, fold, zone), instant


def encode_body(entry: MemoryEntry) -> tuple[bytes, int]:
    """Return (UTF-8 JSON of the body, instant) of `entry`, checked whole.

    Raises:
        InvalidEntryError: a field cannot be stored exactly, or the whole is over
            `jarvis.codec.MAX_VALUE_BYTES`; the error names it.
    """
    body, instant = make_body(entry)
    encoded = _encoder.encode(body)
    if len(encoded) > MAX_VALUE_BYTES:
        raise InvalidEntryError(
            "value",
            f"makes an entry of {len(encoded):,} bytes, the limit is {MAX_VALUE_BYTES:,}; "
            "store a file and keep its path",
        )
    return encoded, instant


def decode_body(encoded: bytes | str) -> Body:
    """Return what `encode_body` encoded, its value still plain; raise ValueError if it is none."""
    return _decoder.decode(encoded)


def may_hold_tags(encoded: bytes | str) -> bool:
    """Tell whether a body may hold tagged forms; False means that `revive` would change nothing."""
    return b'"$type"' in encoded if isinstance(encoded, bytes) else '"$type"' in encoded


def make_entry(
    entry_id: str,
    category: str,
    key: str,
    entity_type: str,
    entity_id: str | None,
    version: int,
    position: tuple[int, int],
    body: Body,
    *,
    plain: bool = False,
) -> MemoryEntry:
    """Return the entry of a record. `plain` says that the value is known to hold no tagged form.

    Raises:
        ValueError: the timestamp or a tagged form is malformed.
    """
    value = body.value if plain else revive(body.value)
    if type(value) is not dict:
        raise ValueError("the value is no object")
    return MemoryEntry(
        entry_id,
        category,
        key,
        value,
        body.tags,
        entity_type,
        entity_id,
        parse_moment(datetime, body.timestamp, body.fold, body.zone),
        body.provenance,
        version,
        position,
    )
