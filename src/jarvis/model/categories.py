"""The categories of the specification's own verbs."""

from __future__ import annotations

PREFERENCES, TASKS, DEVICES = "preferences", "tasks", "devices"
DEVICE_KEY = "device_info"
"""The key of the device's information."""

PREFERENCES_MANAGER, TASK_EXECUTOR, DEVICE_MANAGER = "preferences_manager", "task_executor", "device_manager"
"""The authors of these memories if no other module is named."""
