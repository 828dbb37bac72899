"""`Sealer`: entries, questions and changes of one namespace, sealed for the backend below and opened again.

1. A name is sealed with its kind and its namespace, so equal names of two namespaces or kinds do not show. Who made a
   change is sealed for the whole store, because a transaction that is signed once may change several namespaces.
2. The value is sealed with all names of its entry, its tags and its version.
3. Moments stay readable, and so do expiry, version and operation: the backend below decides by them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.codec import InvalidMomentError
from jarvis.errors import CorruptStoreError, InvalidEntryError, StoreAccessError
from jarvis.model.entry import NO_MODULE, NO_TASK, MemoryEntry, check_name, moment_in
from jarvis.model.erasure import Erased
from jarvis.model.marks import ABSENT
from jarvis.model.place import cursor_of, renamed
from jarvis.model.query import MemoryQuery
from jarvis.model.record import encode_body, unknown_zone
from jarvis.model.revision import Revision, Signature
from jarvis.model.rules import is_reason_of_expiry
from jarvis.sealing.seal import Seal, pack_value, place_of, unpack_value

if TYPE_CHECKING:
    from jarvis.model.change import Change
    from jarvis.model.listing import Listing
    from jarvis.model.options import Compression
    from jarvis.model.policies import CategoryPolicy

_KINDS = ("id", "category", "key", "entity_type", "entity_id", "tag")
_NAMESPACE, _AUTHOR = place_of(["namespace"]), place_of(["author"])
VALUE = "sealed"
"""The key of a sealed value in the dict that takes its place."""

_MOMENTS = ("created_at", "updated_at")
_AUTHORS = ("module", "task_id", "reason", "updated_by", "updated_task_id")
_NOBODY = (NO_MODULE, NO_TASK)


def sealed_namespace(seal: Seal, namespace: str) -> str:
    """Return the name of a namespace for the backend below."""
    return seal.name(_NAMESPACE, namespace)


def opened_namespace(seal: Seal, name: str) -> str:
    """Return the name that `sealed_namespace` sealed; raise ValueError if it did not."""
    return seal.text(_NAMESPACE, name)


class Draft:
    """An entry that was checked and packed, which takes time, but not sealed yet: that takes its version."""

    def __init__(self, entry: MemoryEntry, compression: Compression) -> None:
        encode_body(entry)  # checks every field
        self.entry, self.content = entry, pack_value(entry.value, compression)


class Sealer:
    """Seals for one namespace.

    Args:
        path: names the store in messages.
    """

    def __init__(self, seal: Seal, namespace: str, path: str) -> None:
        self.namespace, self.path, self.seal = namespace, path, seal
        self._places = {kind: place_of([kind, namespace]) for kind in _KINDS}

    # --- names -----------------------------------------------------------------------------------

    @property
    def namespace_name(self) -> str:
        """The name of the namespace, sealed."""
        return sealed_namespace(self.seal, self.namespace)

    def name(self, kind: str, text: str) -> str:
        """Return a name of this kind, sealed."""
        return self.seal.name(self._places[kind], text)

    def names(self, kind: str, texts: Collection[str]) -> list[str]:
        """Return names of this kind, sealed."""
        return [self.name(kind, text) for text in texts]

    def looked_up(self, kind: str, text: object) -> str | None:
        """Return a name by which something is asked for, sealed; None for what is no name, which nothing has."""
        try:
            return self.name(kind, check_name(kind, text))
        except InvalidEntryError:
            return None

    def text(self, kind: str, name: str) -> str:
        """Return the text of a name of this kind."""
        return self._opened(self._places[kind], name)

    def namespaces(self, names: Sequence[str]) -> list[str]:
        """Return the names of namespaces that the backend below told, sorted."""
        return sorted(self._opened(_NAMESPACE, name) for name in names)

    def of_namespace(self, name: str) -> Sealer:
        """Return the sealer of a namespace that the backend below told."""
        return Sealer(self.seal, self._opened(_NAMESPACE, name), self.path)

    def _opened(self, place: bytes, name: str) -> str:
        try:
            return self.seal.text(place, name)
        except ValueError:
            raise self.corrupt() from None

    def corrupt(self) -> CorruptStoreError:
        """Return the error that something stored is not what was sealed."""
        return CorruptStoreError(
            self.path,
            "is damaged: something was changed, or moved to another place, since it was sealed; restore the database "
            "from a backup",
        )

    # --- authors ---------------------------------------------------------------------------------

    def signature(self, signature: Signature) -> Signature:
        """Return a signature, sealed."""
        operation, *author = signature
        return Signature(operation, *(None if text is None else self._author(text) for text in author))

    def opened_signature(self, signature: Signature) -> Signature:
        """Return a signature that the backend below told, opened."""
        operation, *author = signature
        return Signature(operation, *(None if text is None else self._author_in(text) for text in author))

    def _author(self, text: str) -> str:
        return text if text in _NOBODY else self.seal.name(_AUTHOR, text)

    def _author_in(self, text: str) -> str:
        if text in _NOBODY or is_reason_of_expiry(text):  # the backend below wrote that
            return text
        return self._opened(_AUTHOR, text)

    def _provenance(self, provenance: dict[str, str]) -> dict[str, str]:
        sealed = {}
        for name, text in provenance.items():
            if name in _MOMENTS and moment_in(provenance, name) is not None:
                sealed[name] = text
            else:
                sealed[name if name in _AUTHORS else self.seal.name(_AUTHOR, name)] = self._author(text)
        return sealed

    def opened_provenance(self, sealed: dict[str, str]) -> dict[str, str]:
        """Return a provenance, opened."""
        provenance = {}
        for name, text in sealed.items():
            if name in _MOMENTS:
                provenance[name] = text
            else:
                provenance[name if name in _AUTHORS else self._author_in(name)] = self._author_in(text)
        return provenance

    # --- entries ---------------------------------------------------------------------------------

    def entry(self, draft: Draft, version: int) -> MemoryEntry:
        """Return an entry sealed as this version."""
        entry, names = draft.entry, self._names_of(draft.entry)
        return MemoryEntry(
            **names,
            value={VALUE: self.seal.value(self._place(entry, version), draft.content)},
            version=version,
            tags=self.names("tag", entry.tags),
            timestamp=entry.timestamp,
            provenance=self._provenance(entry.provenance),
            expires_at=entry.expires_at,
            ttl=entry.ttl,
            sliding=entry.sliding,
        )

    def _names_of(self, entry: MemoryEntry) -> dict[str, Any]:
        names: dict[str, Any] = {kind: self.name(kind, getattr(entry, kind)) for kind in _KINDS[:4]}
        names["entity_id"] = None if entry.entity_id is None else self.name("entity_id", entry.entity_id)
        return names

    def _place(self, entry: MemoryEntry, version: int) -> bytes:
        names = (entry.id, entry.category, entry.key, entry.entity_type, entry.entity_id)
        return self.place(names, entry.tags, version)

    def place(self, names: tuple[str | None, ...], tags: list[str], version: int) -> bytes:
        """Return what is authenticated with the value of an entry: `names` begin with its id."""
        return place_of(["value", self.namespace, *names, tags, version])

    def opened(self, entry: MemoryEntry) -> MemoryEntry:
        """Open an entry of the backend below, in place, and return it.

        Raises:
            CorruptStoreError: it is not what was sealed there.
        """
        text, places = self.seal.text, self._places
        try:
            entry.id = text(places["id"], entry.id)
            entry.category = text(places["category"], entry.category)
            entry.key = text(places["key"], entry.key)
            entry.entity_type = text(places["entity_type"], entry.entity_type)
            if entry.entity_id is not None:
                entry.entity_id = text(places["entity_id"], entry.entity_id)
            entry.tags = [text(places["tag"], tag) for tag in entry.tags]
            entry.provenance = self.opened_provenance(entry.provenance)
            content = self.seal.content(self._place(entry, entry.version), entry.value[VALUE])
            entry.value = unpack_value(content)
        except InvalidMomentError as error:
            raise StoreAccessError(self.path, unknown_zone(entry.id, error)) from None
        except (ValueError, TypeError, KeyError, OverflowError):  # its message may hold stored values
            raise self.corrupt() from None
        return entry

    # --- what is asked ---------------------------------------------------------------------------

    def query(self, query: MemoryQuery) -> MemoryQuery:
        """Return the part of a query that the backend below can decide, sealed.

        If that is all of it (see `decides`), the answer has its order and its page; else it has all that matches.
        """
        entity_id = query.entity_id
        page: dict[str, Any] = {"after": None if query.after is None else self._cursor(query.after)}
        if query.order == "key":
            page = {"after": None, "order": "changed"}
        if not decides(query):
            page |= {"limit": None, "offset": 0, "where": None, "key_prefix": None, "category_prefix": None}
        return msgspec.structs.replace(
            query,
            category=self._asked("category", query.category),
            key=self._asked("key", query.key),
            entity_type=self._asked("entity_type", query.entity_type),
            entity_id=entity_id if entity_id is ABSENT else self._asked("entity_id", entity_id),
            tags=self._several("tag", query.tags),
            exclude_tags=self._several("tag", query.exclude_tags),
            keys=self._several("key", query.keys),
            **page,
        )

    def _asked(self, kind: str, text: str | None) -> str | None:
        return None if text is None else self.name(kind, text)

    def _several(self, kind: str, texts: Collection[str] | None) -> list[str] | None:
        return None if texts is None else self.names(kind, texts)

    def _cursor(self, after: MemoryEntry | str) -> str:
        cursor = after if isinstance(after, str) else cursor_of(after)
        return renamed(cursor, lambda entry_id, key: (self.name("id", entry_id), self.name("key", key)))

    def listing(self, listing: Listing) -> Listing:
        """Return a question about names, sealed, whose answer is not sorted and has every name."""
        return msgspec.structs.replace(
            listing,
            category=self._asked("category", listing.category),
            entity_type=self._asked("entity_type", listing.entity_type),
            exclude_tags=self._several("tag", listing.exclude_tags),
            prefix=None,
            limit=None,
            after=None,
        )

    def policy(self, policy: CategoryPolicy, category: str) -> CategoryPolicy:
        """Return the policy of a category, with its names sealed."""
        tags = tuple(self.names("tag", policy.keep_tags))
        return msgspec.structs.replace(policy, category=self.name("category", category), keep_tags=tags)

    # --- what is told ----------------------------------------------------------------------------

    def revision(self, revision: Revision) -> Revision:
        """Return a revision that the backend below told, opened."""
        return msgspec.structs.replace(revision, entry=self.opened(revision.entry), **self._told_author(revision))

    def change(self, change: Change) -> Change:
        """Return a change that the backend below told, opened."""
        names = {"memory_id": "id", "category": "category", "key": "key"}
        told = {name: getattr(change, name) for name in names}
        opened = {name: self.text(names[name], text) for name, text in told.items() if text is not None}
        return msgspec.structs.replace(change, **opened, **self._told_author(change))

    def _told_author(self, told: Revision | Change) -> dict[str, str]:
        author = {name: getattr(told, name) for name in _AUTHORS[:3]}
        return {name: self._author_in(text) for name, text in author.items() if text is not None}

    def erased(self, erased: Erased) -> Erased:
        """Return what was erased, opened."""
        return Erased(tuple(self.text("id", entry_id) for entry_id in erased.ids), erased.removed)


def decides(query: MemoryQuery) -> bool:
    """Tell whether the backend below can answer a query: it compares names whole, and knows no order of them."""
    parts = (query.where, query.key_prefix, query.category_prefix)
    return query.order != "key" and all(part is None for part in parts)
