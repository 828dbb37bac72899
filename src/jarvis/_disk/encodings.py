"""The encoding of a text file as editors save it: what its byte order mark says, or else UTF-8."""

from __future__ import annotations

import codecs

_MARKS = (  # the longer first: one begins with the other
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def encoding_of(data: bytes) -> str:
    """Return the name of the encoding of a text file; decoding with it removes the byte order mark.

    >>> encoding_of(b"storage:"), encoding_of("storage:".encode("utf-16"))
    ('utf-8', 'utf-16')
    """
    return next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
