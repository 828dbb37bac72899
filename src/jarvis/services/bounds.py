"""The bounds of categories: what is larger than all of one is refused, and a write pushes out what has no room."""

from __future__ import annotations

from collections.abc import Sequence

from jarvis.errors import InvalidEntryError
from jarvis.model.author import Author
from jarvis.model.entry import MemoryEntry
from jarvis.model.policies import CategoryPolicy, Policies
from jarvis.services.changing import sign
from jarvis.storage_backend import StorageBackend

_MODULE = "retention"


class Bounds:
    """The policies that limit how much their categories have. `are_set`: there is one."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self.are_set = any(policy.is_bound for policy in policies.given)

    def check(self, backend: StorageBackend, entry: MemoryEntry) -> None:
        """Raise `InvalidEntryError` if an entry that is to be written is larger than its category may be."""
        policy = self._of(entry.category)
        if policy is None or policy.max_bytes is None:
            return
        size = backend.size_of(entry)  # which checks every field
        if size > policy.max_bytes and set(policy.keep_tags).isdisjoint(entry.tags):
            raise InvalidEntryError(
                "value",
                f"makes a memory of {size:,} bytes, the policy of the category has max_bytes={policy.max_bytes:,}; "
                "make it smaller, or give it a tag of keep_tags",
            )

    def keep(self, backend: StorageBackend, written: Sequence[MemoryEntry], author: Author) -> None:
        """Delete what the categories of entries have no room for, now that these were written, in their change.

        The last one written in each category stays.
        """
        for category, last in {entry.category: entry.id for entry in written}.items():
            policy = self._of(category)
            if policy is None:
                continue
            beyond = [entry_id for entry_id in backend.beyond(category, policy) if entry_id != last]
            if beyond:
                reason = _reason(category, policy)
                sign(backend, Author(author.module or _MODULE, author.task_id, reason), "delete")
            for entry_id in beyond:
                backend.discard(entry_id)

    def _of(self, category: str) -> CategoryPolicy | None:
        policy = self._policies.of(category) if self.are_set else None
        return policy if policy is not None and policy.is_bound else None


def _reason(category: str, policy: CategoryPolicy) -> str:
    limits = [] if policy.max_entries is None else [f"the {policy.max_entries} written last"]
    limits += [] if policy.max_bytes is None else [f"{policy.max_bytes} bytes"]
    return f"policy of {policy.category}: {category} beyond {' or '.join(limits)}"
