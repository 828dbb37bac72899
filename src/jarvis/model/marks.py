"""`ABSENT` and `NEVER`: arguments for what None cannot say, because None means that nothing was given."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal


class Mark(Enum):
    """The type of `ABSENT` and `NEVER`. A member is one object, also after a copy or a pickle."""

    ABSENT = "absent"
    NEVER = "never"

    def __repr__(self) -> str:
        return self.name


Absent = Literal[Mark.ABSENT]
Never = Literal[Mark.NEVER]

ABSENT: Final = Mark.ABSENT
"""As a filter: the memory has no such field. ``entity_id=ABSENT`` finds memories about no entity in particular."""

NEVER: Final = Mark.NEVER
"""As a lifetime: the memory never expires, where None leaves its expiry as it is."""
