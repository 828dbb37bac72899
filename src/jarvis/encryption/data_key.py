"""The random key of a store, and the keys that are derived from it for one purpose each."""

from __future__ import annotations

import functools
import os
from typing import Any

from jarvis.errors import UnsupportedError
from jarvis.keys import KEY_BYTES

NONCE_BYTES = 12
SALT_BYTES = 16


class DataKey:
    """The random key of a store. No message, representation or pickle shows it.

    Args:
        secret: 32 bytes.
        salt: 16 bytes that tell keys apart. They stand in the clear at the beginning of files that it encrypts.
    """

    def __init__(self, secret: bytes, salt: bytes) -> None:
        if len(secret) != KEY_BYTES or len(salt) != SALT_BYTES:
            raise ValueError("a key has 32 bytes, and its salt 16")
        self._secret = secret
        self.salt = salt

    @classmethod
    def new(cls) -> DataKey:
        """Return a random key with a random salt."""
        return cls(os.urandom(KEY_BYTES), os.urandom(SALT_BYTES))

    def __repr__(self) -> str:
        return f"DataKey(salt={self.salt.hex()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("the key of a store is not pickled")

    def derive(self, purpose: str) -> bytes:
        """Return the 32 bytes that HKDF-SHA-256 (RFC 5869) derives from the key for one purpose."""
        return stretched(self._secret, self.salt, f"jarvis {purpose}")

    @property
    def wrapped_content(self) -> bytes:
        """The key itself, to be wrapped with another key."""
        return self._secret

    @functools.cached_property
    def pages(self) -> bytes:
        """The key of the pages of a file."""
        return self.derive("pages")

    @functools.cached_property
    def check(self) -> bytes:
        """A value that identifies this key without revealing it."""
        return self.derive("key check")


def cipher(key: bytes) -> Any:
    """Return AES-256-GCM under `key`."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise missing() from None
    return AESGCM(key)


def stretched(secret: bytes, salt: bytes, info: str) -> bytes:
    """Return 32 bytes that HKDF-SHA-256 derives from a secret that is random already."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise missing() from None
    return HKDF(SHA256(), KEY_BYTES, salt, info.encode()).derive(secret)


def missing() -> UnsupportedError:
    """Return the error that the packages for encryption are not installed."""
    return UnsupportedError("encryption needs the package cryptography: pip install 'jarvis-memory[encryption]'")
