"""The key of a store, what is derived from it, and values that are sealed with it.

A backend whose medium has no pages to encrypt seals each value: AES-256-GCM, with the entry's place and
version as authenticated data, so that a sealed value can be neither moved to another entry nor taken back
to an older version alone.
"""

from __future__ import annotations

import functools
import hmac
import os
from typing import Any

import msgspec

from jarvis.codec.compression import Mode, compress, decompress
from jarvis.errors import UnsupportedError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
_SALT_BYTES = 16
_FORMAT = b"\x01"
_AS_IT_IS, _COMPRESSED = b"\0", b"\1"


class UnsealError(ValueError):
    """A sealed value was changed, stands in another's place, or was sealed with another key."""


class DataKey:
    """The random key of a store. It is shown by no message, representation or copy of its state.

    Args:
        secret: 32 bytes.
        salt: 16 bytes that tell keys apart, and stand in the clear at the beginning of what this key encrypts.
    """

    def __init__(self, secret: bytes, salt: bytes) -> None:
        if len(secret) != KEY_BYTES or len(salt) != _SALT_BYTES:
            raise ValueError("a key has 32 bytes, and its salt 16")
        self._secret = secret
        self.salt = salt

    @classmethod
    def new(cls) -> DataKey:
        """Return a random key with a random salt."""
        return cls(os.urandom(KEY_BYTES), os.urandom(_SALT_BYTES))

    def __repr__(self) -> str:
        return f"DataKey(salt={self.salt.hex()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the key of a store is not pickled")

    def derive(self, purpose: str) -> bytes:
        """Return the 32 bytes that HKDF-SHA-256 makes of the key for one purpose (RFC 5869)."""
        return stretched(self._secret, self.salt, f"jarvis {purpose}")

    @property
    def wrapped_content(self) -> bytes:
        """The key itself, to be wrapped with another one."""
        return self._secret

    @functools.cached_property
    def pages(self) -> bytes:
        """The key of the pages of a file."""
        return self.derive("pages")

    @functools.cached_property
    def check(self) -> bytes:
        """What tells that this is the right key, without telling the key."""
        return self.derive("key check")

    @functools.cached_property
    def _values(self) -> Any:
        return cipher(self.derive("values"))

    @functools.cached_property
    def _blind(self) -> bytes:
        return self.derive("blind indexes")

    def seal(self, value: bytes, place: tuple[str, ...], version: int) -> bytes:
        """Return `value` sealed for the entry at `place`, such as (namespace, id), and this version of it."""
        nonce = os.urandom(NONCE_BYTES)
        return _FORMAT + nonce + bytes(self._values.encrypt(nonce, value, _bound(place, version)))

    def unseal(self, sealed: bytes, place: tuple[str, ...], version: int) -> bytes:
        """Return the value that was sealed for this place and version.

        Raises:
            UnsealError: it was not, or not with this key, or it was changed since.
        """
        from cryptography.exceptions import InvalidTag

        nonce, content = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        if sealed[:1] != _FORMAT or len(content) < TAG_BYTES:
            raise UnsealError("it is no sealed value")
        try:
            return bytes(self._values.decrypt(nonce, content, _bound(place, version)))
        except InvalidTag:
            raise UnsealError("the sealed value was changed, moved, or belongs to another version or key") from None

    def blind_index(self, field: str, text: str) -> bytes:
        """Return 16 bytes that stand for a text in an index, equal for equal texts of one field, and tell nothing else.

        Whoever has the index learns which entries share a text, and how many.
        """
        message = b"%d:%b%b" % (len(field.encode()), field.encode(), text.encode("utf-8", "surrogatepass"))
        return hmac.digest(self._blind, message, "sha256")[:16]


def pack(key: DataKey, value: bytes, mode: Mode, place: tuple[str, ...], version: int) -> bytes:
    """Return a value compressed, if that makes it smaller, and then sealed: what is sealed cannot be compressed."""
    packed = compress(value, mode)
    return key.seal(_AS_IT_IS + value if packed is None else _COMPRESSED + packed, place, version)


def unpack(key: DataKey, sealed: bytes, place: tuple[str, ...], version: int) -> bytes:
    """Return what `pack` packed.

    Raises:
        UnsealError: it was changed, or is not of this place, version or key.
    """
    held = key.unseal(sealed, place, version)
    if held[:1] == _AS_IT_IS:
        return held[1:]
    try:
        return decompress(held[1:])
    except ValueError:
        raise UnsealError("the sealed value cannot be decompressed") from None


def cipher(key: bytes) -> Any:
    """Return AES-256-GCM under `key`."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise missing() from None
    return AESGCM(key)


def stretched(secret: bytes, salt: bytes, info: str) -> bytes:
    """Return 32 bytes that HKDF-SHA-256 makes of a secret that is random already."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise missing() from None
    return HKDF(SHA256(), KEY_BYTES, salt, info.encode()).derive(secret)


def missing() -> UnsupportedError:
    """Return the error that the packages for encryption are not installed."""
    return UnsupportedError("encryption needs the package cryptography: pip install 'jarvis-memory[encryption]'")


def _bound(place: tuple[str, ...], version: int) -> bytes:
    return msgspec.json.encode([*place, version])
