"""All operations: what people and agents can ask of a memory, once for all doors. `OPERATIONS` has them by name.

They are thin: each says in the words of a door what `MemoryModule` or its store does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from jarvis.errors import DuplicateEntryError, EntryNotFoundError, InvalidQueryError, UnsupportedError
from jarvis.importers.source import Imported
from jarvis.interfaces import addresses
from jarvis.interfaces.operation import Group, Operation, Plan, operation
from jarvis.model.analytics import Analytics
from jarvis.model.change import Change, Deleted
from jarvis.model.context import Context
from jarvis.model.entry import MemoryEntry
from jarvis.model.erasure import ErasureReceipt
from jarvis.model.key_place import SlotInfo
from jarvis.model.marks import ABSENT, NEVER
from jarvis.model.options import KeySource
from jarvis.model.place import Order
from jarvis.model.revision import Difference, Revision
from jarvis.model.rewriting import Progress, RewriteProgress, Rewritten
from jarvis.model.salvaged import RepairReport, Verification
from jarvis.model.transfers import ExportReport, ImportReport, MigrationReport, OnConflict
from jarvis.persistent_memory import MemoryModule, RetentionPlan, SweepReport

Address = Annotated[str, "the memory: its id, the beginning of one, or category/key"]
Limit = Annotated[int, "show at most this many"]
AsOf = Annotated[datetime | None, "answer as of this moment of the past"]
Ttl = Annotated[timedelta | None, "the memory is gone after this time, such as 12h or 30d"]
Why = Annotated[str | None, "the reason of the change, for the history"]
Named = Annotated[list[str] | None, "the memories: ids, beginnings of ids, or category/key"]
Tags = Annotated[list[str] | None, "a tag of the memory; may be given several times"]
_EXAMPLES = 10
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one letter is a drive


class Filters(Group, frozen=True, kw_only=True):
    """Which memories: those that match every filter that is given."""

    category: Annotated[str | None, "only memories of this category"] = None
    entity_type: Annotated[str | None, "only memories about this type of entity"] = None
    entity_id: Annotated[str | None, "only memories about the entity with this id"] = None
    tag: Annotated[list[str] | None, "only memories with this tag; several mean any of them"] = None
    all_tags: Annotated[bool, "only memories with all of the tags"] = False
    no_entity_id: Annotated[bool, "only memories about an entity without an id, or about none"] = False
    key: Annotated[list[str] | None, "only memories with this key; several mean any of them"] = None
    key_prefix: Annotated[str | None, "only memories whose key begins so"] = None
    category_prefix: Annotated[str | None, "only memories whose category begins so"] = None
    since: Annotated[datetime | None, "only memories of this moment or later"] = None
    until: Annotated[datetime | None, "only memories before this moment"] = None
    where: Annotated[
        dict[str, Any] | None, "a condition on the value, such as status=failed or duration>10; all must hold"
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the filters that are given, as `MemoryModule.search_memories` takes them."""
        filters = {name: value for name in _PASSED_ON if (value := getattr(self, name)) is not None}
        if self.no_entity_id:
            filters["entity_id"] = ABSENT
        if self.key is not None:
            filters["keys"] = self.key
        if self.tag is not None:
            filters["tags"] = self.tag
            filters["tags_match"] = "all" if self.all_tags else "any"
        return filters


_TRANSLATED = ("no_entity_id", "key", "tag", "all_tags")
_PASSED_ON = [name for name in Filters.__struct_fields__ if name not in _TRANSLATED]


class Memories(msgspec.Struct, frozen=True, kw_only=True):
    """Memories that answer a question, a page of them.

    Attributes:
        entries: the memories, in their order.
        scores: how well each answers, from 0 to 1, if they are ranked.
        next: a cursor: ``after=`` takes it for the next page; None if there is no more, or they are ranked.
    """

    entries: tuple[MemoryEntry, ...]
    scores: tuple[float, ...] | None = None
    next: str | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """The history of a memory.

    Attributes:
        present: as it is now, or None if it was deleted.
        revisions: past states with the changes that ended them, the newest first.
    """

    present: MemoryEntry | None
    revisions: tuple[Revision, ...]


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """A change.

    Attributes:
        change: what happened, when, and by whom.
        entry: the memory as it is now, or as it was before it was removed; None if that is not known any more.
        is_gone: it is not there now.
    """

    change: Change
    entry: MemoryEntry | None
    is_gone: bool


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed or stored smaller.

    Attributes:
        expired: memories that had expired.
        pruned: past states that were older than the policy keeps.
        recompressed: values that were stored again.
        bytes_before, bytes_after: the size of those values.
    """

    expired: int
    pruned: int
    recompressed: int
    bytes_before: int
    bytes_after: int


def _on_disk(name: str, path: Path) -> Path:
    """Return a path that is written to.

    Raises:
        InvalidQueryError: it is a URL, of which a file or directory would be made, or ``-``.
    """
    if _URL.match(str(path)):
        raise InvalidQueryError(f"{name}: takes a path, not a URL; migrate and import write into a server")
    if str(path) == "-":
        raise InvalidQueryError(f"{name}: takes a path, not the standard output")
    return path


def _page(entries: Sequence[MemoryEntry], limit: int) -> Memories:
    """Return at most `limit` of the entries, of which one more was asked for."""
    shown = tuple(entries[:limit])
    return Memories(entries=shown, next=shown[-1].cursor if len(entries) > limit and shown else None)


def _limited(limit: int) -> int:
    """Return one more than a limit, so that it shows whether there are more.

    Raises:
        InvalidQueryError: it is below 1.
    """
    if limit < 1:
        raise InvalidQueryError(f"limit: takes a whole number from 1 up, not {limit}")
    return limit + 1


def _kept(memory: MemoryModule, memory_id: str) -> MemoryEntry:
    """Return the memory as it is now."""
    entry = memory.get_memory(memory_id)
    if entry is None:
        raise EntryNotFoundError(f"the memory {memory_id} is gone: another writer deleted it")
    return entry


# --- looking -------------------------------------------------------------------------------------


@operation("reads")
def list_(
    memory: MemoryModule,
    category: Annotated[str | None, "only memories of this category"] = None,
    *,
    limit: Limit = 20,
    after: Annotated[str | None, "go on behind this cursor of the page before"] = None,
    order: Annotated[Order, "by the last change, by creation or by key"] = "changed",
    ascending: Annotated[bool, "the oldest first"] = False,
    as_of: AsOf = None,
) -> Memories:
    """List memories, those that changed last first."""
    entries = memory.search_memories(
        category, limit=_limited(limit), after=after, order=order, ascending=ascending or None, as_of=as_of
    )
    return _page(entries, limit)


@operation("reads")
def get(memory: MemoryModule, address: Address, *, as_of: AsOf = None) -> MemoryEntry:
    """Show one memory whole."""
    return addresses.found(memory, address, as_of=as_of)


@operation("reads")
def find(
    memory: MemoryModule,
    words: Annotated[str | None, "words that the memory has, in any form; the best match comes first"] = None,
    *,
    filters: Filters,
    limit: Limit = 20,
    after: Annotated[str | None, "go on behind this cursor of the page before; not with words"] = None,
    as_of: AsOf = None,
) -> Memories:
    """Find memories by words and filters."""
    if words is None:
        asked = {"include_archived": True, **filters.given()}
        return _page(memory.search_memories(limit=_limited(limit), after=after, as_of=as_of, **asked), limit)
    if as_of is not None or after is not None:
        raise InvalidQueryError("words are searched in the present, and ranked: leave out as-of and after")
    ranked = memory.search_text(words, limit=limit, include_archived=True, **filters.given())
    return Memories(entries=tuple(each.entry for each in ranked), scores=tuple(each.score for each in ranked))


@operation("reads")
def tags(
    memory: MemoryModule, prefix: Annotated[str | None, "only those that begin so"] = None, *, as_of: AsOf = None
) -> dict[str, int]:
    """List the tags, and how many memories have each."""
    return memory.list_tags(prefix=prefix, counts=True, as_of=as_of).counts


@operation("reads")
def categories(
    memory: MemoryModule, prefix: Annotated[str | None, "only those that begin so"] = None, *, as_of: AsOf = None
) -> dict[str, int]:
    """List the categories, and how many memories each has."""
    return memory.list_categories(prefix=prefix, counts=True, as_of=as_of).counts


@operation("reads")
def prefs(
    memory: MemoryModule, key: Annotated[str | None, "only this preference"] = None, *, as_of: AsOf = None
) -> dict[str, Any]:
    """Show the preferences of the user."""
    known = memory.get_user_preferences(as_of=as_of)
    if key is None:
        return known
    if key not in known:
        from jarvis.errors import nearest

        raise EntryNotFoundError(f"there is no preference {key!r}{nearest(key, known)}")
    return {key: known[key]}


@operation("reads")
def device(memory: MemoryModule) -> dict[str, Any]:
    """Show what is known of the device."""
    return memory.get_device_info()


@operation("reads")
def tasks(
    memory: MemoryModule,
    *,
    status: Annotated[str | None, "only tasks with this status"] = None,
    limit: Limit = 20,
    as_of: AsOf = None,
) -> Memories:
    """List the tasks, the newest first."""
    where = None if status is None else {"status": status}
    return _page(memory.search_memories("tasks", where=where, limit=_limited(limit), as_of=as_of), limit)


@operation("reads")
def tools(memory: MemoryModule, *, limit: Limit = 100, as_of: AsOf = None) -> Memories:
    """List the tools that the assistant learned."""
    return _page(memory.search_memories("tools", order="key", limit=_limited(limit), as_of=as_of), limit)


@operation("reads")
def namespaces(memory: MemoryModule) -> dict[str, int]:
    """List the namespaces, and how many memories each has."""
    return {name: memory.for_namespace(name).count_memories() for name in memory.store.list_namespaces()}


# --- in words ------------------------------------------------------------------------------------


@operation("changes")
def remember(
    memory: MemoryModule,
    text: Annotated[str, "a fact, in plain words"],
    *,
    about: Annotated[str | None, "what it is about: the type and id of an entity, such as person/maria"] = None,
    tag: Tags = None,
    category: Annotated[str, "where it is kept"] = "facts",
    ttl: Ttl = None,
    reason: Why = None,
) -> MemoryEntry:
    """Remember a fact; one that is known already is not stored twice."""
    entity = None
    if about is not None:
        kind, _, name = about.partition("/")
        if not (kind and name):
            raise InvalidQueryError(f"about: takes a type and an id, such as person/maria, not {about!r}")
        entity = (kind, name)
    memory_id = memory.remember(text, about=entity, tags=tag, category=category, ttl=ttl, reason=reason)
    return _kept(memory, memory_id)


@operation("reads")
def recall(
    memory: MemoryModule,
    question: Annotated[str, "a question, in plain words"],
    *,
    filters: Filters,
    limit: Annotated[int, "at most this many"] = 5,
    min_score: Annotated[float, "only memories that answer this well, from 0 to 1"] = 0.0,
) -> Memories:
    """Find the memories that answer a question best."""
    ranked = memory.recall(question, limit=limit, min_score=min_score, **filters.given())
    return Memories(entries=tuple(each.entry for each in ranked), scores=tuple(each.score for each in ranked))


def _meant(memory: MemoryModule, text: str) -> MemoryEntry:
    """Return the memory that an address or its text names."""
    try:
        return addresses.found(memory, text)
    except EntryNotFoundError:
        from jarvis.services.remembering import meant

        return _kept(memory, meant(memory.backend, text, None))


def _forgetting(memory: MemoryModule, text: str, **_: object) -> Plan:
    return Plan(action="forget 1 memory", count=1, examples=(_meant(memory, text),), can_be_undone=True)


@operation("destroys", plan=_forgetting)
def forget(
    memory: MemoryModule,
    text: Annotated[str, "the whole text of the memory, its id, or category/key"],
    *,
    reason: Why = None,
) -> MemoryEntry:
    """Forget one memory; undo brings it back, erase leaves no trace."""
    entry = _meant(memory, text)
    memory.forget(entry.id, reason=reason)
    return entry


@operation("reads")
def context(
    memory: MemoryModule,
    question: Annotated[str | None, "what the prompt is about"] = None,
    *,
    max_tokens: Annotated[int, "at most this many tokens, counted as bytes or fewer"] = 2_000,
    min_score: Annotated[float, "only memories that answer this well, from 0 to 1"] = 0.0,
) -> Context:
    """Build the text of what is remembered, for the prompt of a model."""
    return memory.build_context(question, max_tokens, min_score=min_score)


@operation("changes")
def record_turn(
    memory: MemoryModule,
    session: Annotated[str, "names the conversation"],
    speaker: Annotated[str, "who said it, such as user or assistant"],
    text: Annotated[str, "what was said"],
    *,
    tag: Tags = None,
    ttl: Ttl = None,
) -> MemoryEntry:
    """Record what was said in a conversation, so that it can be recalled."""
    return _kept(memory, memory.record_turn(session, speaker, text, tags=tag, ttl=ttl))


# --- changing ------------------------------------------------------------------------------------


@operation("changes")
def set_(
    memory: MemoryModule,
    address: Annotated[str, "category/key of the memory, which is created if it is not there"],
    value: Annotated[dict[str, Any], "its value: key=value, each typed as JSON if it is JSON, else text"],
    *,
    merge: Annotated[bool, "keep the keys of the present value that are not given"] = False,
    entity_type: Annotated[str | None, "the type of the entity that it is about"] = None,
    entity_id: Annotated[str | None, "the id of that entity"] = None,
    tag: Tags = None,
    ttl: Ttl = None,
    reason: Why = None,
) -> MemoryEntry:
    """Store a value under category/key, as a new version if there is one."""
    category, key = addresses.split(address)
    with memory.transaction():
        if merge:
            present = memory.get_memory_by_key(key, category)
            value = {**(present.value if present is not None else {}), **value}
        if (entity_type, entity_id, tag) == (None, None, None) and category == "preferences":
            memory_id = memory.set_user_preference(key, value, ttl=ttl, reason=reason)
        elif address == "devices/device_info" and (entity_type, entity_id, tag, ttl) == (None, None, None, None):
            memory_id = memory.set_device_info(value, reason=reason)
        else:
            memory_id = memory.upsert_memory(
                category, key, value, entity_type or "", entity_id, tag, ttl=ttl, reason=reason
            )
        return _kept(memory, memory_id)


@operation("changes")
def update(
    memory: MemoryModule,
    address: Address,
    value: Annotated[dict[str, Any], "the new value"],
    *,
    merge: Annotated[bool, "keep the keys of the present value that are not given"] = False,
    if_version: Annotated[int | None, "only if the memory still has this version"] = None,
    reason: Why = None,
) -> MemoryEntry:
    """Change the value of a memory that is there."""
    entry = addresses.found(memory, address)
    change = memory.merge_memory if merge else memory.update_memory
    if not change(entry.id, value, if_version=if_version, reason=reason):
        raise EntryNotFoundError(f"the memory {entry.id} is gone: another writer deleted it")
    return _kept(memory, entry.id)


@operation("changes")
def tag(
    memory: MemoryModule,
    address: Address,
    tags: Annotated[list[str] | None, "tags to add"] = None,
    *,
    remove: Annotated[list[str] | None, "a tag to take away; may be given several times"] = None,
    reason: Why = None,
) -> MemoryEntry:
    """Add tags to a memory, or take some away."""
    if not tags and not remove:
        raise InvalidQueryError("give a tag to add, or one to remove")
    if "" in (tags or ()):
        raise InvalidQueryError("a tag is a word; this one is empty")
    with memory.transaction():
        entry = addresses.found(memory, address)
        gone = {*(remove or ())}
        new = [name for name in dict.fromkeys([*entry.tags, *(tags or ())]) if name not in gone]
        if new != list(entry.tags):
            memory.update_memory(entry.id, tags=new, reason=reason)
        return _kept(memory, entry.id)


@operation("changes")
def move(
    memory: MemoryModule,
    address: Address,
    to: Annotated[str | None, "its new category/key; /key or category/ changes one of them"] = None,
    *,
    entity_type: Annotated[str | None, "the new type of the entity that it is about"] = None,
    entity_id: Annotated[str | None, "the new id of that entity; empty for none"] = None,
    reason: Why = None,
) -> MemoryEntry:
    """Give a memory another category, key or entity; it keeps its id and history."""
    category, slash, key = (to or "").partition("/")
    if to is not None and not slash:
        raise InvalidQueryError(f"to: takes category/key, category/ or /key, not {to!r}")
    with memory.transaction():
        entry = addresses.found(memory, address)
        new = (category or entry.category, key or entry.key)
        if new != (entry.category, entry.key) and memory.count_memories(new[0], key=new[1], include_archived=True):
            raise DuplicateEntryError(f"there is a memory {'/'.join(new)!r} already, which would hide this one")
        memory.move_memory(
            entry.id,
            category or None,
            key or None,
            entity_type=entity_type,
            entity_id=ABSENT if entity_id == "" else entity_id,
            reason=reason,
        )
        return _kept(memory, entry.id)


def _counted(verb: str, count: int) -> str:
    return f"{verb} {count:,} {'memory' if count == 1 else 'memories'}"


def _are_named(names: list[str] | None, filters: Filters) -> bool:
    """Tell whether names say which memories, or filters do; raise if it is both or none."""
    if bool(names) == bool(filters.given()):
        raise InvalidQueryError("say which memories: either name them, or give filters")
    return bool(names)


def _removal(verb: str, memory: MemoryModule, names: list[str] | None, filters: Filters) -> Plan:
    if _are_named(names, filters):
        entries = tuple(addresses.found(memory, name) for name in names or ())
        count = len(entries)
    else:
        given: dict[str, Any] = {"include_archived": True, **filters.given()}
        count, entries = memory.count_memories(**given), tuple(memory.search_memories(limit=_EXAMPLES, **given))
    return Plan(action=_counted(verb, count), count=count, examples=entries[:_EXAMPLES], can_be_undone=True)


def _deletion(memory: MemoryModule, memories: list[str] | None, *, filters: Filters, **_: object) -> Plan:
    return _removal("delete", memory, memories, filters)


@operation("destroys", plan=_deletion)
def delete(memory: MemoryModule, memories: Named = None, *, filters: Filters, reason: Why = None) -> Deleted:
    """Delete memories; undo brings them back, erase leaves no trace."""
    if _are_named(memories, filters):
        ids = [addresses.found(memory, name).id for name in memories or ()]
        return memory.delete_memories(ids=ids, reason=reason)
    return memory.delete_memories(include_archived=True, reason=reason, **filters.given())


# --- the past ------------------------------------------------------------------------------------


@operation("reads")
def history(memory: MemoryModule, address: Address, *, limit: Limit = 20) -> Past:
    """Show what a memory was before, and who changed it when and why."""
    memory_id = addresses.id_of(memory, address)
    return Past(present=memory.get_memory(memory_id), revisions=tuple(memory.get_history(memory_id, limit=limit)))


@operation("reads")
def diff(
    memory: MemoryModule,
    address: Address,
    from_version: Annotated[int | None, "compare this version; the one before the other if left out"] = None,
    to_version: Annotated[int | None, "with this one; the newest if left out"] = None,
) -> list[Difference]:
    """Show what differs between two versions of a memory."""
    memory_id = addresses.id_of(memory, address)
    if to_version is None:
        entry, last = memory.get_memory(memory_id), memory.get_history(memory_id, limit=1)
        to_version = entry.version if entry is not None else last[0].version if last else 1
    return memory.diff_memory(memory_id, to_version - 1 if from_version is None else from_version, to_version)


@operation("changes")
def undo(
    memory: MemoryModule,
    address: Annotated[
        str | None, "the memory, which may be deleted: its id, the beginning of one, or category/key"
    ] = None,
    *,
    steps: Annotated[int, "take back this many changes"] = 1,
    change: Annotated[str | None, "take back the change with this cursor, and all that it changed"] = None,
    reason: Why = None,
) -> MemoryEntry | int | None:
    """Take back the last change of a memory, also its deletion."""
    if (address is None) == (change is None):
        raise InvalidQueryError("give a memory, or the cursor of a change")
    if change is not None:
        return memory.undo_change(change, reason=reason)
    memory_id = addresses.id_of(memory, address or "")
    memory.undo(memory_id, steps, reason=reason)
    return memory.get_memory(memory_id)


@operation("reads")
def recent(memory: MemoryModule, *, limit: Limit = 20) -> list[Happened]:
    """Show what was learned and forgotten lately, the newest first."""
    changes = memory.recent_changes(limit=limit)
    present = {entry.id: entry for entry in memory.get_memories([each.memory_id for each in changes if each.memory_id])}
    gone = {each.memory_id for each in changes if each.memory_id is not None} - present.keys()
    last = {memory_id: _last_state(memory, memory_id) for memory_id in gone}
    return [
        Happened(
            change=each,
            entry=present.get(each.memory_id or "") or last.get(each.memory_id or ""),
            is_gone=each.memory_id not in present,
        )
        for each in changes
    ]


def _last_state(memory: MemoryModule, memory_id: str) -> MemoryEntry | None:
    """Return a memory as it was before it was removed."""
    revisions = memory.get_history(memory_id, limit=1)
    return revisions[0].entry if revisions else None


# --- the future ----------------------------------------------------------------------------------


@operation("changes")
def expire(
    memory: MemoryModule,
    address: Address,
    ttl: Annotated[timedelta | None, "after this time from now, such as 12h or 30d"] = None,
    *,
    at: Annotated[datetime | None, "at this moment"] = None,
    never: Annotated[bool, "it does not expire any more"] = False,
    reason: Why = None,
) -> MemoryEntry:
    """Say when a memory is gone by itself."""
    if (ttl is not None) + (at is not None) + never != 1:
        raise InvalidQueryError("say when: a time from now, a moment, or never")
    entry = addresses.found(memory, address)
    if at is not None:
        memory.touch_memory(entry.id, expires_at=at, reason=reason)
    else:
        memory.touch_memory(entry.id, ttl=NEVER if never else ttl, reason=reason)
    return _kept(memory, entry.id)


@operation("reads")
def retention_plan(memory: MemoryModule) -> RetentionPlan:
    """Show what the retention rules of the configuration would delete and archive."""
    return memory.plan_retention()


def _sweep(memory: MemoryModule, **_: object) -> Plan:
    plan = memory.plan_retention(examples=_EXAMPLES)
    examples = tuple(entry for step in plan.steps for entry in step.examples)[:_EXAMPLES]
    action = f"{_counted('delete or archive', plan.count)}, as the retention rules say"
    return Plan(action=action, count=plan.count, examples=examples, can_be_undone=True)


@operation("destroys", plan=_sweep)
def retention_apply(memory: MemoryModule, *, reason: Why = None) -> SweepReport:
    """Delete and archive what the retention rules of the configuration say."""
    return memory.sweep(reason=reason)


# --- privacy -------------------------------------------------------------------------------------


def _erasure(
    memory: MemoryModule, memories: list[str] | None, *, filters: Filters, whole_namespace: str | None, **_: object
) -> Plan:
    if whole_namespace is not None:
        doomed = memory.for_namespace(whole_namespace)
        count, examples = doomed.count_memories(), tuple(doomed.list_memories(limit=_EXAMPLES))
        action = f"{_counted('erase', count)}: the whole namespace {whole_namespace!r}, its past and its name"
        return Plan(action=action, count=count or None, examples=examples)  # of deleted ones the past is there
    if _are_named(memories, filters):
        ids = [addresses.id_of(memory, name) for name in memories or ()]
        return Plan(
            action=f"{_counted('erase', len(ids))} and what is known of their past",
            count=len(ids),
            examples=tuple(memory.get_memories(ids[:_EXAMPLES])),
        )
    plan = _removal("erase", memory, memories, filters)
    return msgspec.structs.replace(
        plan,
        action=f"{plan.action}, those that matched in the past, and their past",
        count=plan.count or None,  # deleted memories may have matched, and their past is there
        can_be_undone=False,
    )


@operation("destroys", plan=_erasure)
def erase(
    memory: MemoryModule,
    memories: Annotated[list[str] | None, "the memories, also deleted ones: as for delete"] = None,
    *,
    filters: Filters,
    whole_namespace: Annotated[str | None, "erase this whole namespace, and its name"] = None,
    reason: Why = None,
) -> list[ErasureReceipt]:
    """Remove every trace of memories from the files of the store; nothing brings them back."""
    if whole_namespace is not None:
        if memories or filters.given():
            raise InvalidQueryError("a namespace is erased whole: leave out memories and filters")
        return [memory.store.erase_namespace(whole_namespace, reason=reason)]
    if _are_named(memories, filters):
        ids = [addresses.id_of(memory, name) for name in memories or ()]
        return [memory.erase_memory(memory_id, reason=reason) for memory_id in ids]
    return [memory.erase_memories(reason=reason, **filters.given())]


@operation("changes")
def encrypt(
    memory: MemoryModule,
    keys: Annotated[list[KeySource], "a source that opens the store from now on, such as file:PATH"],
    *,
    progress: Progress | None = None,
) -> Rewritten | None:
    """Encrypt the whole store."""
    return memory.store.encrypt(keys, progress=_told(progress))


def _decryption(memory: MemoryModule) -> Plan:
    return Plan(action="write the whole store in clear", count=memory.count_memories())


@operation("destroys", plan=_decryption)
def decrypt(memory: MemoryModule, *, progress: Progress | None = None) -> Rewritten | None:
    """Make the encrypted store plain again."""
    return memory.store.decrypt(progress=_told(progress))


@operation("reads")
def keys_list(memory: MemoryModule) -> list[SlotInfo]:
    """List the sources of keys that open the encrypted store."""
    return memory.store.key_slots()


@operation("changes")
def keys_add(
    memory: MemoryModule, source: Annotated[KeySource, "one more source that opens the store, such as file:PATH"]
) -> int:
    """Let one more source of keys open the encrypted store."""
    return memory.store.add_key_slot(source)


def _key_removal(memory: MemoryModule, slot: int) -> Plan:
    sources = {each.id: each for each in memory.store.key_slots()}
    if slot not in sources:
        raise EntryNotFoundError(f"no slot has the number {slot}; there are {', '.join(map(str, sources))}")
    return Plan(action=f"remove the slot {slot} ({sources[slot].source}), which opens the store no longer", count=1)


@operation("destroys", plan=_key_removal)
def keys_remove(memory: MemoryModule, slot: Annotated[int, "its number, as `keys list` shows it"]) -> None:
    """Remove a source of keys, which opens the store no longer."""
    memory.store.remove_key_slot(slot)


@operation("changes")
def keys_rotate(
    memory: MemoryModule,
    keys: Annotated[list[KeySource] | None, "a source of the store that has to be given, such as a passphrase"] = None,
    *,
    progress: Progress | None = None,
) -> Rewritten:
    """Write the encrypted store again with a new key; its sources stay."""
    return memory.store.rotate_key(keys=keys or (), progress=_told(progress))


def _told(progress: Progress | None) -> Any:
    """Return the progress of rewriting a store for one that takes two numbers."""
    if progress is None:
        return None

    def tell(made: RewriteProgress) -> None:
        progress(made.done, made.total)

    return tell


# --- moving --------------------------------------------------------------------------------------


@operation("reads")
def export(
    memory: MemoryModule,
    path: Annotated[Path, "the file to write"],
    *,
    filters: Filters,
    only_namespace: Annotated[list[str] | None, "only this namespace; may be given several times; else all"] = None,
    no_history: Annotated[bool, "leave out the past"] = False,
    plain_text: Annotated[bool, "write an encrypted store in clear"] = False,
    overwrite: Annotated[bool, "replace an export that is there"] = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write memories with their past to a file of JSON Lines."""
    return memory.store.export(
        _on_disk("path", path),
        namespaces=only_namespace,
        history=not no_history,
        plain_text=plain_text,
        overwrite=overwrite,
        progress=progress,
        **filters.given(),
    )


@operation("changes")
def import_(
    memory: MemoryModule,
    path: Annotated[Path, "an export of jarvis, or a file of another program"],
    *,
    kind: Annotated[str | None, "of the file; found out if left out"] = None,
    on_conflict: Annotated[OnConflict, "what to do with a memory that is here with another state"] = "error",
    dry_run: Annotated[bool, "say what would be done, and change nothing"] = False,
    incomplete: Annotated[bool, "take what is there of an export that was cut short"] = False,
    progress: Progress | None = None,
) -> ImportReport | Imported:
    """Read memories from an export, or from what another program remembers."""
    from jarvis import importers

    if not path.exists():
        raise EntryNotFoundError(f"there is no file {path}")
    if kind is None and _is_export(path):
        return memory.store.import_(
            path, on_conflict=on_conflict, dry_run=dry_run, incomplete=incomplete, progress=progress
        )
    return importers.import_from(memory, path, kind, dry_run=dry_run, progress=progress)


def _is_export(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(18).startswith(b'{"jarvis_export":')


@operation("changes")
def migrate(
    memory: MemoryModule,
    target: Annotated[str, "the other store: a directory, a URL, or a file of settings; it must be absent or empty"],
    *,
    plain_text: Annotated[bool, "copy an encrypted store into one that is not"] = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Copy the whole store into one of another backend, and compare both."""
    from jarvis import moving

    return moving.migrate(memory, target, plain_text=plain_text, progress=progress)


@operation("changes")
def restore(
    backup: Annotated[Path, "a backup, its directory, or the directory of several: then the newest"],
    into: Annotated[Path, "the directory of the new store, which must hold none"],
    *,
    keys: Annotated[list[KeySource] | None, "a source that opens an encrypted backup"] = None,
    progress: Progress | None = None,
) -> Path:
    """Make a store of a backup, and compare both."""
    from jarvis import moving

    return moving.restore_backup(backup, _on_disk("into", into), keys=keys or (), progress=progress)


# --- care ----------------------------------------------------------------------------------------


@operation("reads")
def verify(
    memory: MemoryModule,
    *,
    index: Annotated[bool, "also compare the index of words, which takes twice as long"] = False,
    progress: Progress | None = None,
) -> Verification:
    """Read the whole store, and compare it with its checksums and indexes."""
    return memory.store.verify(index=index, progress=progress)


@operation("changes")
def repair(
    memory: MemoryModule,
    to: Annotated[Path, "the directory of the new store, absent or empty"],
    *,
    progress: Progress | None = None,
) -> RepairReport:
    """Take all that can be read of a damaged store into a new one."""
    return memory.store.repair(_on_disk("to", to), progress=progress)


@operation("reads")
def backup(
    memory: MemoryModule,
    directory: Annotated[Path, "where the copy goes"],
    *,
    keep_daily: Annotated[int | None, "keep the last copy of this many days, each in a directory of its own"] = None,
    keep_weekly: Annotated[int | None, "the same for weeks"] = None,
    progress: Progress | None = None,
) -> Path:
    """Write a copy of the store as it is now."""
    place = _on_disk("directory", directory)
    return memory.store.back_up(place, keep_daily=keep_daily, keep_weekly=keep_weekly, progress=progress)


@operation("changes")
def compact(memory: MemoryModule, *, progress: Progress | None = None) -> Compacted:
    """Remove what has expired and what is too old to be kept, and store values smaller."""
    expired = _until_none(memory.store.purge_expired)
    pruned = _until_none(memory.store.prune_history)
    try:
        made = memory.store.recompress(progress)
    except UnsupportedError:  # the backend has nothing to compress
        return Compacted(expired=expired, pruned=pruned, recompressed=0, bytes_before=0, bytes_after=0)
    return Compacted(
        expired=expired,
        pruned=pruned,
        recompressed=made.entries + made.past_states,
        bytes_before=made.bytes_before,
        bytes_after=made.bytes_after,
    )


def _until_none(step: Any) -> int:
    total = 0
    try:
        while removed := step(limit=1_000):
            total += removed
    except UnsupportedError:  # then there is nothing of the kind
        return total
    return total


@operation("changes")
def mend_dates(memory: MemoryModule, *, reason: Why = None) -> int:
    """Give new dates to memories that are dated ahead of the clock; set the clock right before."""
    return memory.store.mend_dates(reason=reason)


@operation("changes")
def index(
    memory: MemoryModule,
    *,
    rebuild: Annotated[bool, "make the index of words again, too"] = False,
    progress: Progress | None = None,
) -> int:
    """Make what searches by meaning need; return how many vectors were made."""
    if rebuild:
        memory.store.rebuild_index(progress=progress)
    return memory.store.index_pending(progress=progress)


# --- insight -------------------------------------------------------------------------------------


@operation("reads")
def stats(
    memory: MemoryModule,
    *,
    only_namespace: Annotated[list[str] | None, "only this namespace; may be given several times; else all"] = None,
    top: Annotated[int, "show this many names, memories and groups of each list"] = 20,
    deep: Annotated[bool, "also find memories that say nearly the same, which takes longer"] = False,
    progress: Progress | None = None,
) -> Analytics:
    """Show what the store holds: how much of what, since when, how it grows and what it takes."""
    return memory.store.analytics(namespaces=only_namespace, top=top, near=deep, progress=progress)


OPERATIONS: dict[str, Operation[..., Any]] = {
    each.name: each for each in list(globals().values()) if isinstance(each, Operation)
}
"""Every operation by its name."""
