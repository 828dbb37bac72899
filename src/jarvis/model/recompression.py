"""`Recompression`: the result of storing the values of a store again, compressed or not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Progress = Callable[[int, int], object]
"""Is called with (states or pages looked at, all of them); both are equal in the last call."""


class Recompression(msgspec.Struct, frozen=True, kw_only=True):
    """The values that were stored again. All others were as the setting wants them, or would not become smaller.

    Attributes:
        entries: the number of memories of the present.
        past_states: the number of past states.
        bytes_before: the size of all these before.
        bytes_after: their size now.
    """

    entries: int
    past_states: int
    bytes_before: int
    bytes_after: int
