"""`Recompression`: what storing the values of a store anew came to."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

Progress = Callable[[int, int], object]
"""Is told how many states were looked at, of how many; both are equal in the last call."""


class Recompression(msgspec.Struct, frozen=True, kw_only=True):
    """What was stored anew; all else was as the setting has it, or would not have become smaller.

    Attributes:
        entries: how many memories of the present.
        past_states: how many of the history.
        bytes_before: what these took.
        bytes_after: what they take now.
    """

    entries: int
    past_states: int
    bytes_before: int
    bytes_after: int
