"""Compression of large values with zstd (https://www.rfc-editor.org/rfc/rfc8878), each value on its own.

A frame has no checksum of its own: page and row have theirs. No dictionary is trained on values, because it would
keep text of erased ones.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Literal

from jarvis.codec.values import MAX_VALUE_BYTES
from jarvis.errors import UnsupportedError, translated

Mode = Literal["auto", "off", "max"]
"""How values are stored: ``auto``, compressed fast; ``max``, as small as it gets; ``off``, as they are."""

THRESHOLD_BYTES = 1024
"""Smaller values are not compressed: of 300 bytes 200 would be left, at 12 µs more to write and 9 to read."""

_FAST, _THOROUGH, _THOROUGH_ENOUGH = 3, 19, 12
_LARGE = 2**18
"""From this size on ``max`` takes a lower level: 8 MiB take 4 s at level 19, perhaps in a transaction, 0.4 s at 12."""

_WINDOW_LOG = 26
"""The most memory that a frame may need, as a power of 2: the size of the largest value."""


def compress(data: bytes, mode: Mode) -> bytes | None:
    """Return `data` as a zstd frame; None if it is too small, would not become smaller, or the mode is ``off``."""
    if mode == "off" or len(data) < THRESHOLD_BYTES:
        return None
    level = _FAST if mode == "auto" else _THOROUGH if len(data) < _LARGE else _THOROUGH_ENOUGH
    packed: bytes = _zstd().compress(data, level)
    return packed if len(packed) < len(data) else None


def decompress(packed: bytes) -> bytes:
    """Return the data of a zstd frame.

    Raises:
        ValueError: it is no whole frame, or holds more than `MAX_VALUE_BYTES`.

    >>> decompress(compress(b"again and " * 200, "auto")) == b"again and " * 200
    True
    """
    zstd = _zstd()
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        data: bytes = frame.decompress(packed, MAX_VALUE_BYTES + 1)
    except zstd.ZstdError:  # its text is about stored data
        raise ValueError("is not compressed") from None
    if not frame.eof or frame.unused_data or len(data) > MAX_VALUE_BYTES:
        raise ValueError("is compressed, but not whole")
    return data


@functools.cache
def _zstd() -> Any:
    """Return the zstd module. Its import takes 5 ms, which only programs with large values pay.

    Raises:
        UnsupportedError: it is missing, such as in a bundle that was made without it.
        StoreError: it cannot be read, such as for want of file descriptors.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise UnsupportedError(
            f"the library for compression cannot be loaded ({error.name or type(error).__name__}): pip install "
            "backports.zstd; a bundle takes it along with --collect-all backports.zstd"
        ) from error
    except OSError as error:
        raise translated(error.filename or sys.prefix, error, "load the library for compression") from error
    return zstd
