"""Gives a connection its key for the page cipher of the driver, in the format of SQLCipher 4.

Each page of 1,024 bytes is encrypted with AES-256-CBC and an initialization vector of its own. Its last 80 bytes hold
that vector and an HMAC-SHA-512 of the page and its number. The first page begins with the salt in the clear
(https://www.zetetic.net/sqlcipher/design/). The write-ahead log holds the same pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw

from jarvis.errors import StoreAccessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jarvis.encryption.data_key import DataKey

PLAIN = b"SQLite format 3\0"
"""The first bytes of a plain file; an encrypted one has its salt there."""

SALT_BYTES = 16
RESERVED_BYTES = 80
PAGE_BYTES = 1_024
"""Small, because a create changes a few bytes in each of a dozen pages, which are encrypted whole: 14 µs for 4 KiB."""

PLAIN_PAGE_BYTES = 4_096
_START_BYTES = 16
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def may_be_sealed(beginning: bytes, size: int) -> bool:
    """Tell whether a file of this size and beginning may be an encrypted store: a random salt, whole pages.

    A plain store with damaged first bytes still begins with most of `PLAIN`; other files begin with text or zeros.
    """
    alike = sum(one == other for one, other in zip(beginning, PLAIN, strict=False))
    return size > 0 and size % PAGE_BYTES == 0 and alike < SALT_BYTES // 2 and len(set(beginning)) > SALT_BYTES // 2


def unlock(connection: apsw.Connection, key: DataKey, path: str) -> None:
    """Give a connection that has not read anything the key of its file.

    This reads nothing and so proves nothing: a wrong key fails at the first page.

    Raises:
        StoreAccessError: the driver does not answer like one that encrypts; plain SQLite silently ignores a key.
    """
    answers = []
    spoken = f"\"x'{_spoken(key)}'\""
    for setting in ("cipher = 'sqlcipher'", "legacy = 4", f"legacy_page_size = {PAGE_BYTES}", f"key = {spoken}"):
        answers += connection.execute(f"PRAGMA {setting}", can_cache=False).fetchall()
    if answers != [("sqlcipher",), ("4",), (str(PAGE_BYTES),), ("ok",)]:
        raise StoreAccessError(path, "the driver does not encrypt; install apsw-sqlite3mc, and no other apsw")


def address(path: str, key: DataKey | None) -> str:
    """Return the URI for ``VACUUM INTO`` to make a file with this key, or a plain one, from any store.

    A connection to a plain file without a log must be told the size of the new pages first: ``PRAGMA page_size``.
    """
    if key is None:
        return f"file:{quote(path)}?key="
    spoken = f"x'{_spoken(key)}'".encode().hex()
    return f"file:{quote(path)}?cipher=sqlcipher&legacy=4&legacy_page_size={PAGE_BYTES}&hexkey={spoken}"


def _spoken(key: DataKey) -> str:
    return key.pages.hex() + key.salt.hex()


def check(connection: apsw.Connection, beginning: bytes, key: DataKey, path: str) -> None:
    """Raise `StoreAccessError` if a file that was written with `key`, and begins with these bytes, is not encrypted."""
    if beginning != key.salt or connection.reserve_bytes() != RESERVED_BYTES:
        raise StoreAccessError(path, "was not encrypted, although the driver said so; nothing is kept in it")


def opens(path: str, key: DataKey) -> bool:
    """Tell whether the key opens the file at `path`, which must begin with its salt; nothing is written.

    Opened as immutable: another reader would create a log and its index beside the file, or write to that index.
    """
    address = f"file:{quote(path)}?mode=ro&immutable=1"
    connection = apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        unlock(connection, key, path)
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except apsw.Error:
        return False
    finally:
        connection.close()
    return True


def decrypted(page: bytes, key: DataKey, *, is_first: bool) -> bytes:
    """Return the content of an encrypted page, as long as that; what is damaged in it stays damaged."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    content, start = page[:-RESERVED_BYTES], page[-RESERVED_BYTES:][:_START_BYTES]
    beginning = PLAIN if is_first else b""
    decryptor = Cipher(AES256(key.pages), CBC(start)).decryptor()
    return beginning + decryptor.update(content[len(beginning) :]) + decryptor.finalize()


def pages_of(chunks: Iterator[bytes], key: DataKey, *, is_log: bool) -> Iterator[bytes]:
    """Decrypt the bytes of an encrypted file, or of its log, and yield the content of its pages; verify nothing."""
    step = PAGE_BYTES + (_FRAME_HEADER_BYTES if is_log else 0)
    skipped = _LOG_HEADER_BYTES if is_log else 0
    left = bytearray()
    for chunk in chunks:
        left += chunk
        del left[: min(skipped, len(left))]
        skipped = 0
        whole = len(left) - len(left) % step
        pages = [bytes(left[end - PAGE_BYTES : end]) for end in range(step, whole + 1, step)]
        del left[:whole]
        yield b"".join(decrypted(page, key, is_first=page.startswith(key.salt)) for page in pages)
