"""Keep a user's settings across sessions.

python examples/user_preferences.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from typing import Any

from jarvis.persistent_memory import MemoryModule


def save_user_settings(memory: MemoryModule, settings: dict[str, dict[str, Any]]) -> None:
    """Save user settings across sessions."""
    for key, value in settings.items():
        memory.set_user_preference(key, value)
    memory.shutdown()


def load_user_settings(memory: MemoryModule) -> dict[str, Any]:
    """Load previously saved user settings."""
    return memory.get_user_preferences()


if __name__ == "__main__":
    memory = MemoryModule(storage_dir=sys.argv[1] if len(sys.argv) > 1 else None)
    save_user_settings(memory, {"theme": {"mode": "dark"}, "voice": {"speed": 1.2, "name": "ada"}})
    print(load_user_settings(memory))
