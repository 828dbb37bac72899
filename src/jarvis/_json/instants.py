"""The instants and numbers that stand in a JSON store's file, and their bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec

FAR = 253_402_387_200_000_000
"""A day past the year 9999, in microseconds."""

Instant = Annotated[int, msgspec.Meta(ge=-FAR, le=FAR)]
Number = Annotated[int, msgspec.Meta(ge=1)]
"""The number of a commit."""
