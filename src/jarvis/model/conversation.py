"""What was said and done in one exchange of a conversation: `Exchange`, and its `Execution`s."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec

from jarvis.model.entry import copied

EXECUTIONS, EXECUTION = "executions", "execution"
"""The category of executions, and the type of the entity that each is about."""

CONVERSATIONS, CONVERSATION = "conversations", "conversation"
"""The category and the entity type of exchanges that the first life stored as one memory."""

USER, ASSISTANT = "user", "assistant"
"""The speakers of the two turns of an exchange."""

REPLY_TO, LINKS, RUN_IDS, METADATA = "reply_to", "executions", "execution_run_ids", "metadata"
"""The fields of the assistant's turn: the id of the user's, ids of executions, ids that the caller gave, and more."""

USUAL_SESSION = "default"
"""The conversation of an exchange for which no session is named."""


class Dumpable(Protocol):
    """An object with fields, such as a model of pydantic."""

    def model_dump(self) -> Mapping[str, Any]:
        """Return its fields by name."""


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What the assistant ran for a request, and what came of it. A copy that the caller owns.

    Attributes:
        user_request: what the user asked for.
        description: what was run, in words; searches find it.
        code_generated: the code that was run, or None.
        file_locations: the files that it made.
        output: what it printed, or None.
        success: whether it succeeded; None if that is not known.
        tags: the tags of the memory.
        execution_id: its name: the id of the entity that the memory is about.
        execution_time_ms: how long it took, or None.
        error_message: why it failed, or None.
        metadata: anything more.
        timestamp: when it ran; None before it was stored.
        id: the id of the memory; "" before it was stored.

    >>> from jarvis.model.conversation import Execution
    >>> Execution(user_request="count my files", description="a file counter", success=True).file_locations
    []
    """

    user_request: str
    description: str
    code_generated: str | None = None
    file_locations: list[str] = []
    output: str | None = None
    success: bool | None = None
    tags: list[str] = []
    execution_id: str = ""
    execution_time_ms: int | float | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = {}
    timestamp: datetime | None = None
    id: str = ""

    def model_dump(self) -> dict[str, Any]:
        """Return all fields as a dict, which shares nothing with the execution."""
        return {name: copied(getattr(self, name)) for name in self.__struct_fields__}


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said, and what the assistant answered and ran. A copy that the caller owns.

    Attributes:
        turn_id: the id of the memory with the answer.
        timestamp: when it was stored, or the moment that the caller gave.
        user_message: what the user said; "" if that turn was deleted.
        assistant_response: the answer.
        execution_history: the executions that are linked to it and still there.
        context_tags: the tags of the answer's memory.
        session_id: the conversation; None for an exchange of the first life that has none.
        metadata: what the caller gave.
        execution_run_ids: what the caller gave, also ids that name no execution of this store.

    >>> from jarvis.persistent_memory import MemoryModule
    >>> memory = MemoryModule.in_memory()
    >>> _ = memory.save_conversation_turn("Hello", "Good morning", context_tags=["greeting"])
    >>> [(each.user_message, each.assistant_response) for each in memory.get_conversation_history()]
    [('Hello', 'Good morning')]
    """

    turn_id: str
    timestamp: datetime
    user_message: str
    assistant_response: str
    execution_history: list[Execution] = []
    context_tags: list[str] = []
    session_id: str | None = None
    metadata: dict[str, Any] = {}
    execution_run_ids: list[str] = []

    def model_dump(self) -> dict[str, Any]:
        """Return all fields as a dict, which shares nothing with the exchange; its executions are dicts, too."""
        dumped = {name: copied(getattr(self, name)) for name in self.__struct_fields__ if name != "execution_history"}
        return {**dumped, "execution_history": [each.model_dump() for each in self.execution_history]}
