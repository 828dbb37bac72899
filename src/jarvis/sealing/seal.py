"""`Seal`: texts and bytes, sealed under the key of a store.

A nonce is computed from what is sealed and where, as in synthetic initialization vectors
(https://www.rfc-editor.org/rfc/rfc5297#section-1.3): the same text at the same place gives the same sealed text. So a
database can look it up by equality, and a nonce repeats only with its text.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.codec import Prepared, encode, revive
from jarvis.codec.compression import compress, decompress
from jarvis.codec.nesting import decoder_of
from jarvis.encryption.data_key import NONCE_BYTES, cipher
from jarvis.model.entry import LONG_SEALED, MAX_NAME_BYTES
from jarvis.model.record import may_hold_typed_forms

if TYPE_CHECKING:
    from jarvis.encryption.data_key import DataKey
    from jarvis.model.options import Compression

_MANY = 10_000  # names that are remembered in each direction

place_of = msgspec.msgpack.Encoder().encode
"""Returns where something is sealed, as bytes: different ones for different places."""


class _Box:
    """AES-256-GCM for one purpose, with nonces by HMAC-SHA-256."""

    def __init__(self, key: DataKey, purpose: str) -> None:
        self._cipher = cipher(key.derive(f"sealed {purpose}"))
        self._nonces = key.derive(f"nonces of sealed {purpose}")
        from cryptography.exceptions import InvalidTag

        self._refusal = InvalidTag

    def seal(self, place: bytes, plain: bytes) -> bytes:
        """Return nonce, ciphertext and tag; `place` is authenticated."""
        nonce = hmac.digest(self._nonces, b"%d:%b%b" % (len(place), place, plain), "sha256")[:NONCE_BYTES]
        sealed: bytes = self._cipher.encrypt(nonce, plain, place)
        return nonce + sealed

    def open(self, place: bytes, sealed: bytes) -> bytes:
        """Return what `seal` sealed at this place; raise ValueError if it did not."""
        try:
            plain: bytes = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except self._refusal:
            raise ValueError("it was not sealed here") from None
        return plain


class Seal:
    """Seals names and values. No message, representation or pickle shows its key.

    >>> from jarvis.encryption.data_key import DataKey
    >>> seal = Seal(DataKey(bytes(32), bytes(16)))
    >>> seal.name(b"key", "theme") == seal.name(b"key", "theme"), seal.text(b"key", seal.name(b"key", "theme"))
    (True, 'theme')
    """

    def __init__(self, key: DataKey) -> None:
        self._names, self._values = _Box(key, "names"), _Box(key, "values")
        self._sealed: dict[tuple[bytes, str], str] = {}
        self._opened: dict[tuple[bytes, str], str] = {}

    def name(self, place: bytes, text: str) -> str:
        """Return a name sealed, as text that a backend takes as a name."""
        known = self._sealed.get((place, text))
        if known is None:
            known = _written(self._names.seal(place, text.encode("utf-8", "surrogatepass")))
            _remember(self._sealed, (place, text), known)
        return known

    def text(self, place: bytes, name: str) -> str:
        """Return the text of a name that was sealed at this place; raise ValueError if it was not."""
        known = self._opened.get((place, name))
        if known is None:
            is_long = name.startswith(LONG_SEALED)
            sealed = base64.b85decode(name[len(LONG_SEALED) :]) if is_long else binascii.a2b_base64(name)
            if _written(sealed) != name:  # it would be read, but not found
                raise ValueError("it was written in another way")
            known = self._names.open(place, sealed).decode()
            _remember(self._opened, (place, name), known)
        return known

    def value(self, place: bytes, content: bytes) -> str:
        """Return bytes sealed, as text."""
        return binascii.b2a_base64(self._values.seal(place, content), newline=False).decode()

    def content(self, place: bytes, value: str) -> bytes:
        """Return the bytes that `value` sealed at this place; raise ValueError if it did not."""
        return self._values.open(place, binascii.a2b_base64(value, strict_mode=True))


def _written(sealed: bytes) -> str:
    """Return sealed bytes as a name. Base85 is a fifteenth shorter, and a tenth as fast."""
    name = binascii.b2a_base64(sealed, newline=False).decode()
    return name if len(name) <= MAX_NAME_BYTES else LONG_SEALED + base64.b85encode(sealed).decode()


def _remember(known: dict[tuple[bytes, str], str], which: tuple[bytes, str], text: str) -> None:
    if len(known) >= _MANY:
        known.clear()
    known[which] = text


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
