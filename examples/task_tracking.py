"""Execute tasks and remember how each went.

python examples/task_tracking.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from jarvis.persistent_memory import MemoryModule


def execute_task(memory: MemoryModule, task_id: str, task_fn: Callable[[], Any]) -> None:
    """Execute and track a task."""
    try:
        result = task_fn()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is remembered
        memory.record_task(task_id=task_id, task_data={"status": "failed", "error": str(error)}, tags=["failed"])
    else:
        memory.record_task(
            task_id=task_id,
            task_data={"status": "completed", "result": result},
            tags=["executed"],
            on_unstorable="repr",  # whatever the task returned, it succeeded
        )


if __name__ == "__main__":
    with MemoryModule(storage_dir=sys.argv[1] if len(sys.argv) > 1 else None) as memory:
        execute_task(memory, "sum", lambda: sum(range(1000)))
        execute_task(memory, "divide", lambda: 1 / 0)
        execute_task(memory, "find", lambda: map(str.upper, ["nothing that could be stored"]))
        for task in memory.get_task_history(limit=10):
            print(task.entity_id, task.value)
        print("failed:", memory.count_memories(category="tasks", where={"status": "failed"}))
