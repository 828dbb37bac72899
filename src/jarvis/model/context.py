"""`Context`: what an assistant remembers, as text for a prompt, and line by line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from jarvis.model.entry import MemoryEntry

Section = Literal["device", "preferences", "recent_tasks", "recalled"]
SECTIONS: tuple[Section, ...] = get_args(Section)
"""The parts of a context in the order in which they stand in it: what changes least comes first."""


class ContextLine(NamedTuple):
    """One memory in a context.

    Attributes:
        id: the id of the memory.
        short_id: the part of it that stands in the line; no other line of the context has it.
        section: the part of the context that it is in.
        source: its category, what it is about and who wrote it, as in the line.
        age: such as ``3 days ago``, as in the line.
        text: the whole line.
        is_cut: the memory is longer than the line.
        entry: the memory.
        score: how well it answers the question, from 0 to 1; None outside of the section ``recalled``, or without one.
    """

    id: str
    short_id: str
    section: Section
    source: str
    age: str
    text: str
    is_cut: bool
    entry: MemoryEntry
    score: float | None


class Context(str):
    """What an assistant remembers, as text that goes into a prompt as it is.

    It is a `str`, empty if there is nothing to tell, or no room for it.

    Attributes:
        lines: the same, line by line.
        tokens: how long the text is, as the counter counted it.
        is_complete: nothing was left out or cut for want of room.

    >>> from jarvis.persistent_memory import MemoryModule
    >>> memory = MemoryModule.in_memory()
    >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
    >>> context = memory.build_context()
    >>> context.lines[0].source, context.lines[0].age, context.is_complete
    ('preferences', 'today', True)
    >>> context.lines[0].text in context
    True
    """

    lines: tuple[ContextLine, ...]
    tokens: int
    is_complete: bool

    def __new__(
        cls, text: str = "", lines: Sequence[ContextLine] = (), tokens: int = 0, *, is_complete: bool = True
    ) -> Context:
        context = super().__new__(cls, text)
        context.lines, context.tokens, context.is_complete = tuple(lines), tokens, is_complete
        return context

    @property
    def text(self) -> str:
        """The text alone, a plain `str`."""
        return str.__str__(self)
