"""Values to the bytes that are sealed, and back: their JSON, or its zstd frame if that is smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jarvis.codec import Prepared, encode, revive
from jarvis.codec.compression import compress, decompress
from jarvis.codec.nesting import decoder_of
from jarvis.model.record import may_hold_typed_forms

if TYPE_CHECKING:
    from jarvis.model.options import Compression

_decode = decoder_of(dict[str, Any])


def pack_value(value: dict[str, Any], compression: Compression) -> bytes:
    """Return a value that was checked as bytes, compressed if that makes it smaller, for `unpack_value`."""
    if type(value) is Prepared:
        return value.packed or value.json
    json = encode(value)
    return compress(json, compression) or json


def unpack_json(packed: bytes) -> bytes:
    """Return the JSON of the value that `pack_value` packed; raise ValueError if it did not."""
    return packed if packed.startswith(b"{") else decompress(packed)


def unpack_value(packed: bytes) -> dict[str, Any]:
    """Return the value that `pack_value` packed; raise ValueError if it did not."""
    json = unpack_json(packed)
    value = _decode(json)
    revived: dict[str, Any] = revive(value) if may_hold_typed_forms(json) else value
    return revived
