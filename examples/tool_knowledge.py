"""Remember what a tool can do.

python examples/tool_knowledge.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from typing import Any

from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule


def learn_tool(memory: MemoryModule, tool_name: str, tool_info: dict[str, Any]) -> None:
    """Store learned tool capabilities."""
    memory.create_memory(
        category="tools",
        key=f"tool_{tool_name}",
        value=tool_info,
        entity_type="tool",
        entity_id=tool_name,
        tags=["learned", "tool"],
        module="tool_teaching_module",
    )


def recall_tool(memory: MemoryModule, tool_name: str) -> MemoryEntry | None:
    """Retrieve learned tool information."""
    return memory.get_memory_by_key(f"tool_{tool_name}")


if __name__ == "__main__":
    with MemoryModule(storage_dir=sys.argv[1] if len(sys.argv) > 1 else None) as memory:
        learn_tool(memory, "grep", {"purpose": "find lines", "flags": {"-i": "ignore case"}})
        known = recall_tool(memory, "grep")
        print(known.value if known else "unknown")
