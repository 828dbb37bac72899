"""The JSON store's file as the first life wrote it, read as records of today."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from jarvis._json.record import Record, Stored, fragment_of, make_record, malformed
from jarvis.codec import InvalidMomentError, flatten, format_moment, instant_of, parse_moment
from jarvis.model.entry import DEFAULT_NAMESPACE


class _FirstLifeEntry(msgspec.Struct, forbid_unknown_fields=True):
    """The nine fields as the first life wrote them with `json.dumps`; the value is literal, not tagged."""

    id: str
    category: str
    key: str
    value: Any
    tags: list[str]
    entity_type: str
    entity_id: str | None
    timestamp: str
    provenance: dict[str, str]


def read_first_life(path: str, document: dict[str, Any], doubled: list[object]) -> dict[str, Record]:
    """Return the entries of a first life's file: no format, no checksum, naive times that mean local time.

    Inside a value a name may stand twice (``json.dumps({1: …, "1": …})`` does that); the last one counts, as it did
    then. Anywhere else a name that stands twice is damage.
    """
    entries = document.get("entries")
    if type(entries) is not dict or not document.keys() <= {"entries", "updated_at"}:
        raise ValueError('it holds neither a "format" nor the "entries" of the first life alone')
    structure = [document, entries, *entries.values()]
    structure += [each["provenance"] for each in entries.values() if type(each) is dict and "provenance" in each]
    if any(each is other for each in doubled for other in structure):
        raise ValueError("a name stands twice in an object")
    records: dict[str, Record] = {}
    for number, (entry_id, plain) in enumerate(entries.items(), 1):
        try:
            records[entry_id] = _read_entry(entry_id, plain, number)
        except (ValueError, RecursionError) as error:
            raise malformed(path, f"entry number {number}", DEFAULT_NAMESPACE, error) from None
    return records


def _read_entry(entry_id: str, plain: Any, commit: int) -> Record:
    old = msgspec.convert(plain, _FirstLifeEntry)
    if old.id != entry_id:
        raise ValueError("its id is not the one it stands under")
    if type(old.value) is not dict:
        raise ValueError("its value is no object")
    try:
        moment = parse_moment(datetime, old.timestamp)
        instant = instant_of(moment)
    except InvalidMomentError as error:
        raise ValueError(f"its timestamp {error}") from error
    stored = Stored(
        old.id,
        old.category,
        old.key,
        flatten(old.value),
        old.tags,
        old.entity_type,
        old.entity_id,
        format_moment(moment)[0],
        old.provenance,
        1,
        (instant, commit),
    )
    return make_record(stored, fragment_of(stored, DEFAULT_NAMESPACE))
