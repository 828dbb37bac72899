"""Whole memories, sealed on their way into a store and opened on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jarvis.capabilities import Transfers, Verifies
from jarvis.errors import CorruptStoreError
from jarvis.model.portable import Ending, Lost, PastEntry, PortableEntry, WholeMemory, portable
from jarvis.sealing.seal import unpack_json
from jarvis.sealing.sealer import VALUE, Draft, Sealer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jarvis.model.options import Compression
    from jarvis.storage_backend import StorageBackend

State = TypeVar("State", bound=PortableEntry)

_NAMES = ("category", "key", "entity_type", "entity_id")
_decode_sealed = msgspec.json.Decoder(dict[str, str]).decode


def sealed(sealer: Sealer, whole: WholeMemory, compression: Compression) -> WholeMemory:
    """Return a memory for the backend below.

    Raises:
        InvalidEntryError: a part of it cannot be stored, or its versions are out of order.
    """
    states = [
        portable(sealer.entry(Draft(step.entry, compression), step.entry.version)) for step in whole.steps(compression)
    ]
    past = [_ended(state, before.ended, sealer) for state, before in zip(states, whole.past, strict=False)]
    return WholeMemory(
        sealer.namespace_name,
        sealer.name("id", whole.id),
        None if whole.entry is None else states[-1],
        past,
        _lost(whole.lost, sealer.name),
    )


def _ended(state: PortableEntry, ended: Ending, sealer: Sealer) -> PastEntry:
    fields = {name: getattr(state, name) for name in PortableEntry.__struct_fields__}
    operation, *author = sealer.signature(ended.signature)
    return PastEntry(**fields, ended=Ending(operation, ended.timestamp, *author))


def opened(sealer: Sealer, whole: WholeMemory) -> WholeMemory:
    """Return a memory of the backend below as it was before it was sealed.

    Raises:
        CorruptStoreError: it is not what was sealed there.
    """
    entry_id = sealer.text("id", whole.id)
    for state in whole.past:
        open_state(state, entry_id, sealer)
        operation, *author = sealer.opened_signature(state.ended.signature)
        state.ended = Ending(operation, state.ended.timestamp, *author)
    if whole.entry is not None:
        open_state(whole.entry, entry_id, sealer)
    return WholeMemory(sealer.namespace, entry_id, whole.entry, whole.past, _lost(whole.lost, sealer.text))


def in_order(memories: Iterator[WholeMemory]) -> Iterator[WholeMemory]:
    """Yield opened memories; those of which only a gap is left, which come last, by their ids."""
    gaps = []
    for whole in memories:
        if whole.entry is None and not whole.past:
            gaps.append(whole)
        else:
            yield whole
    yield from sorted(gaps, key=lambda whole: whole.id)


def findings(sealer: Sealer, below: StorageBackend, looked_at: Callable[[], object]) -> Iterator[str]:
    """Yield what is wrong with the store below, and then which memories are not what was sealed."""
    yield from below.capability(Verifies).findings(looked_at)
    for name in below.capability(Transfers).all_namespaces():
        there = sealer.of_namespace(name)
        for whole in below.for_namespace(name).capability(Transfers).whole_memories(past=True):
            try:
                opened(there, whole)
            except CorruptStoreError:
                yield "a memory is not what was sealed"


def open_state(state: PortableEntry, entry_id: str, sealer: Sealer) -> None:
    """Open a state of the memory with this id, in place.

    Raises:
        CorruptStoreError: it is not what was sealed there.
    """
    for kind in _NAMES:
        name = getattr(state, kind)
        if name is not None:
            setattr(state, kind, sealer.text(kind, name))
    state.tags = [sealer.text("tag", tag) for tag in state.tags]
    state.provenance = sealer.opened_provenance(state.provenance)
    names = (entry_id, state.category, state.key, state.entity_type, state.entity_id)
    try:
        value = _decode_sealed(bytes(state.value))[VALUE]
        content = sealer.seal.content(sealer.place(names, state.tags, state.version), value)
        state.value = msgspec.Raw(unpack_json(content))
    except (ValueError, KeyError):
        raise sealer.corrupt() from None


def _lost(lost: Lost | None, translate: Callable[[str, str], str]) -> Lost | None:
    if lost is None:
        return None
    names: dict[str, Any] = {kind: getattr(lost, kind) for kind in _NAMES}
    known = {kind: translate(kind, name) for kind, name in names.items() if name is not msgspec.UNSET}
    return msgspec.structs.replace(lost, **known)
