"""The page cipher of the driver, in the format of SQLCipher 4: how a connection is given its key.

Each page of 1,024 bytes is AES-256-CBC under a key of its own start value, with an HMAC-SHA-512 over it and its
number in the 80 bytes at its end; the first page begins with the salt in the clear
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
"""What a plain file begins with, where an encrypted one has its salt."""

SALT_BYTES = 16
RESERVED_BYTES = 80
PAGE_BYTES = 1_024
"""A create writes a dozen pages, most of them for a few bytes, and each is encrypted whole: 14 µs for 4 KiB."""

PLAIN_PAGE_BYTES = 4_096
_START_BYTES = 16
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def may_be_sealed(beginning: bytes, size: int) -> bool:
    """Tell whether a file of this size that begins so may be an encrypted store: with a random salt, in whole pages.

    A plain one whose first bytes are damaged begins with most of `PLAIN` still; other files, with text or zeros.
    """
    alike = sum(one == other for one, other in zip(beginning, PLAIN, strict=False))
    return size > 0 and size % PAGE_BYTES == 0 and alike < SALT_BYTES // 2 and len(set(beginning)) > SALT_BYTES // 2


def unlock(connection: apsw.Connection, key: DataKey, path: str) -> None:
    """Give a connection that has read nothing yet the key of its file.

    Nothing is read, so nothing is proved: a wrong key fails at the first page.

    Raises:
        StoreAccessError: the driver does not answer as one that encrypts; plain SQLite ignores a key in silence.
    """
    answers = []
    spoken = f"\"x'{_spoken(key)}'\""
    for setting in ("cipher = 'sqlcipher'", "legacy = 4", f"legacy_page_size = {PAGE_BYTES}", f"key = {spoken}"):
        answers += connection.execute(f"PRAGMA {setting}", can_cache=False).fetchall()
    if answers != [("sqlcipher",), ("4",), (str(PAGE_BYTES),), ("ok",)]:
        raise StoreAccessError(path, "the driver does not encrypt; install apsw-sqlite3mc, and no other apsw")


def address(path: str, key: DataKey | None) -> str:
    """Return the URI by which ``VACUUM INTO`` makes a file with this key, or a plain one, whatever it makes it from.

    A connection to a plain file, without a log, is told the size of the new pages before: ``PRAGMA page_size``.
    """
    if key is None:
        return f"file:{quote(path)}?key="
    spoken = f"x'{_spoken(key)}'".encode().hex()
    return f"file:{quote(path)}?cipher=sqlcipher&legacy=4&legacy_page_size={PAGE_BYTES}&hexkey={spoken}"


def _spoken(key: DataKey) -> str:
    return key.pages.hex() + key.salt.hex()


def check(connection: apsw.Connection, beginning: bytes, key: DataKey, path: str) -> None:
    """Raise `StoreAccessError` if what was written with `key`, and begins with these bytes, is not encrypted."""
    if beginning != key.salt or connection.reserve_bytes() != RESERVED_BYTES:
        raise StoreAccessError(path, "was not encrypted by the driver, against what it answered; nothing is kept in it")


def opens(path: str, key: DataKey) -> bool:
    """Tell whether the key opens the file at `path`, taken for one that begins with its salt; nothing is written.

    A reader that is not told that the file is immutable makes a log and its index beside it, or writes to that.
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


def pages_of(chunks: Iterator[bytes], key: DataKey, *, is_log: bool) -> Iterator[bytes]:
    """Yield the content of the pages of an encrypted file, or of its log, given its bytes; verify nothing."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC

    algorithm = AES256(key.pages)
    step = PAGE_BYTES + (_FRAME_HEADER_BYTES if is_log else 0)
    skipped = _LOG_HEADER_BYTES if is_log else 0
    left = bytearray()
    for chunk in chunks:
        left += chunk
        del left[: min(skipped, len(left))]
        skipped = 0
        whole = len(left) - len(left) % step
        contents = []
        for end in range(step, whole + 1, step):
            page = bytes(left[end - PAGE_BYTES : end])
            content, start = page[:-RESERVED_BYTES], page[-RESERVED_BYTES:][:_START_BYTES]
            if content.startswith(key.salt):
                content = content[SALT_BYTES:]
            decryptor = Cipher(algorithm, CBC(start)).decryptor()
            contents.append(decryptor.update(content) + decryptor.finalize())
        del left[:whole]
        yield b"".join(contents)
