"""`Store`: what concerns the whole store of a memory: its copies, keys, size, dates and namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from jarvis._calls.arguments import is_on
from jarvis._calls.arguments import plain_text as text_of
from jarvis._calls.caller import Gates
from jarvis.backend_registry import ask
from jarvis.capabilities import Compresses, Encrypts, Expires, KeepsHistory, MendsDates, Namespaced, SearchesText
from jarvis.errors import InvalidSettingError
from jarvis.model.author import Author
from jarvis.model.entry import MOST_VERSIONS, check_namespace
from jarvis.model.erasure import ErasureReceipt
from jarvis.model.key_place import SlotInfo
from jarvis.model.listing import Page
from jarvis.model.marks import Absent
from jarvis.model.options import AnySource, KeySources, TextIndex, checked, sources_of
from jarvis.model.query import MemoryQuery, asked_number
from jarvis.model.rewriting import Progress, Recompression, RewriteProgress, Rewritten
from jarvis.model.salvaged import RepairReport, Verification
from jarvis.model.transfers import ExportReport, ImportReport, OnConflict
from jarvis.services import erasure, expiry
from jarvis.services.bulk import ids_of
from jarvis.services.changing import Changes
from jarvis.storage_backend import StorageBackend

if TYPE_CHECKING:
    from jarvis.model.analytics import Analytics
    from jarvis.services.meaning import Meaning


class Authors(Protocol):
    """Who makes a change: `MemoryModule._author`."""

    def __call__(self, module: str | None, task_id: str | None, reason: str | None, /) -> Author:
        """Return the author with these fields; a field that is None is taken from the acting author."""


class Store:
    """The whole store of a memory, with every namespace: `MemoryModule.store`.

    Its verbs concern all users of the store, in every namespace; those keep reading and writing meanwhile.
    Every verb may raise `jarvis.errors.StoreError`.

    What only one of them needs is imported in it: a process that begins and asks one question needs none of it.

    >>> import tempfile
    >>> from jarvis.persistent_memory import MemoryModule
    >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
    >>> _ = memory.for_namespace("alice").set_user_preference("theme", {"mode": "dark"})
    >>> memory.store.list_namespaces()
    ['alice']
    """

    def __init__(
        self,
        backend: StorageBackend,
        change: Changes,
        *,
        change_apart: Changes,
        author: Authors,
        now: Callable[[], datetime],
        gates: Gates,
        meaning: Callable[[], Meaning],
    ) -> None:
        self.backend = backend
        self._change, self._change_apart = change, change_apart
        self._author, self._now, self._gates, self._meaning = author, now, gates, meaning

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend!r})"

    # --- copies ----------------------------------------------------------------------------------

    def back_up(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_daily: int | None = None,
        keep_weekly: int | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Write a copy of the store as it is now into `directory`, durably; return the copy's path.

        Readers and writers go on meanwhile. A copy of an encrypted store is encrypted, and its file of keys is copied,
        too: any of its sources opens it. To go back: `jarvis.moving.restore_backup`. The pages of store and copy are
        compared with their checksums; whether the memories in them are sound is for `verify`.

        With `keep_daily` or `keep_weekly` the copy gets a directory of its own below `directory`, named by the moment,
        and older copies there are removed, but for the newest of each kept day and week.

        Args:
            directory: made if it is absent; without a policy it must not hold a backup yet.
            keep_daily: for how many days that have a backup the newest one is kept.
            keep_weekly: the same for weeks.
            progress: is called with (done, total) now and then: pages of a SQLite store, else memories.

        Raises:
            InvalidSettingError: `keep_daily` or `keep_weekly` is no number from 1 up.
            StoreAccessError: it holds a backup, or a log of one, already; or the backups of another store.
            CorruptStoreError: a page of the store is damaged, or its structure. Nothing was kept of the copy.
            StoreBusyError: a read-only module reads without locks, and writers keep changing the store; call it again.
            UnsupportedError: the backend makes no backups.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> memory = MemoryModule(storage_dir=tmp_path)
        >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory.store.back_up(tmp_path / "monday").name
        'memory.db'
        >>> MemoryModule(storage_dir=tmp_path / "monday").get_user_preferences()
        {'theme': {'mode': 'dark'}}
        """
        from jarvis.services import backups

        path: Path = checked("directory", directory)
        told = checked("progress", progress)
        if keep_daily is None and keep_weekly is None:
            return backups.back_up_into(self.backend, path, told)
        days = backups.Kept(keep_daily, keep_weekly)
        return backups.back_up(self.backend, path, self._now(), days, told)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        namespaces: Collection[str] | None = None,
        history: bool = True,
        category: str | None = None,
        entity_type: str | None = None,
        entity_id: str | Absent | None = None,
        tags: Collection[str] | None = None,
        key: str | None = None,
        tags_match: Literal["any", "all"] = "any",
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[Any, Any] | None = None,
        keys: Collection[str] | None = None,
        key_prefix: str | None = None,
        category_prefix: str | None = None,
        plain_text: bool = False,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write the memories of the store to a file that `import_` reads: JSON Lines, a memory a line.

        Ids, versions, timestamps, provenance, expiry, values and the past are in it, exactly. Equal stores give equal
        bytes. Expired memories are left out. Each namespace is written as it is at one moment; others go on writing.

        Args:
            path: of the file. At any moment nothing is there, or the whole file; it is for its owner only.
            namespaces: which, None for all.
            history: also write the past states, and memories of which only those are left.
            category, entity_type, entity_id, tags, key, tags_match, since, until, where, keys, key_prefix,
                category_prefix: as for `MemoryModule.search_memories`; of a deleted memory its last state must match.
            plain_text: write an encrypted store, though the file is not encrypted.
            overwrite: replace an export that is there.
            progress: is called with (done, total) now and then.

        Raises:
            InvalidSettingError: the store is encrypted, and `plain_text` is False.
            InvalidQueryError: a filter is invalid.
            StoreAccessError: a file is there, with `overwrite` one that is no export, or it cannot be written.
            StoreFullError: the disk is full. Nothing is left of the file.
            TransactionError: the calling thread has a transaction open.

        >>> import pathlib, tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory = pathlib.Path(tempfile.mkdtemp())
        >>> memory = MemoryModule(storage_dir=directory / "one")
        >>> memory_id = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory.store.export(directory / "all.jsonl").memories
        1
        >>> other = MemoryModule(storage_dir=directory / "other", backend_type="json")
        >>> other.store.import_(directory / "all.jsonl").created
        1
        >>> other.get_memory(memory_id) == memory.get_memory(memory_id)
        True
        """
        query = MemoryQuery(
            category=category,
            entity_type=entity_type,
            entity_id=entity_id,
            tags=tags,
            key=key,
            tags_match=tags_match,
            since=since,
            until=until,
            where=where,
            keys=keys,
            key_prefix=key_prefix,
            category_prefix=category_prefix,
        )
        from jarvis.services import exporting

        target: Path = checked("path", path)
        return exporting.export(
            exporting.parts_of(self.backend, _names(namespaces)),
            target,
            query=query,
            past=history is True,
            plain_text=plain_text is True,
            overwrite=overwrite is True,
            now=self._now,
            progress=checked("progress", progress),
        )

    def import_(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "error",
        namespaces: Collection[str] | None = None,
        dry_run: bool = False,
        incomplete: bool = False,
        progress: Progress | None = None,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> ImportReport:
        """Read the memories of a file that `export` wrote into the store; return what was done.

        Into an empty store everything comes as it was, and questions as of a moment are answered from the dates of the
        memories. In a store with memories they are new: known from now on. A memory that is here as it is in the file
        is left alone, so an interrupted import is continued by calling it again. An import deletes nothing.

        A damaged line is reported with its number; all other memories are imported.

        Args:
            path: of the file.
            on_conflict: what to do with a memory whose id has another memory here, or had one that was deleted:
                ``"error"``: import nothing at all; ``"skip"``: leave what is here; ``"replace"``: take the state of
                the file as the next version, so that `undo` brings the other back; ``"newer"``: do that if its
                timestamp is later than the last change here.
            namespaces: which of the file, None for all.
            dry_run: find out what would be done, and write nothing.
            incomplete: import what is there of a file that was cut short or lacks lines.
            progress: is called with (done, total) now and then.
            module, task_id, reason: who replaces memories, see `MemoryModule`.

        Raises:
            CorruptExportError: it is no export, or not whole; nothing was imported.
            DuplicateEntryError: `on_conflict` is ``"error"``, and there are conflicts; nothing was imported.
            StoreTooNewError: a newer version wrote it.
            StoreFullError: the disk is full; call it again when there is room.
        """
        from jarvis.services.importing import Import

        if text_of(on_conflict) not in get_args(OnConflict):
            raise InvalidSettingError(f"on_conflict: takes one of {', '.join(get_args(OnConflict))}")
        self._gates.here.check(self.backend)
        source: Path = checked("path", path)
        author = self._author(module, task_id, f"imported from {source.name}" if reason is None else reason)
        names = _names(namespaces)
        one = Import(
            self.backend,
            source,
            on_conflict=on_conflict,
            author=author,
            namespaces=None if names is None else frozenset(names),
            incomplete=incomplete is True,
        )
        return one.run(checked("progress", progress), dry=dry_run is True)

    def digest(self, *, progress: Progress | None = None) -> str:
        """Return a digest of all memories of the store and their past: equal stores have equal ones, on any backend.

        Expired memories count until they are purged. Cursors and the feed of changes do not count.

        Args:
            progress: is called with (done, total) now and then.

        Returns:
            64 hexadecimal digits (BLAKE2b).

        Raises:
            TransactionError: the calling thread has a transaction open.
        """
        from jarvis.services import exporting, transferring

        return transferring.digest_of(exporting.parts_of(self.backend, None), checked("progress", progress))

    def verify(self, *, index: bool = False, progress: Progress | None = None) -> Verification:
        """Read all of the store, and compare it with its checksums, its indexes, and what its history and feed say.

        Opening a store does that when another program wrote to it; this verb does it whenever it is asked. What other
        programs did with right checksums of pages is found as well: rows that were changed, added or deleted, and
        triggers. But nothing tells of a row that another program deleted if it had no tag and was never changed.

        Args:
            index: make the words of each memory again, too, and compare them with the index of words, which takes twice
                as long. Else only numbers are compared: a word that is missing there is not found.
            progress: is called with (done, total) now and then.

        Returns:
            How much was read, and what is wrong. `repair` takes what is sound into a new store; for the index of words
            there is `rebuild_index`.

        Raises:
            CorruptStoreError: the store is too damaged to be opened.
            TransactionError: the calling thread has a transaction open.
            UnsupportedError: the backend verifies nothing.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory.store.verify()
        Verification(states=1, problems={})
        """
        from jarvis.services import repairing

        return repairing.verify(self.backend, checked("progress", progress), index=checked("index", index))

    def repair(self, to: str | os.PathLike[str], *, progress: Progress | None = None) -> RepairReport:
        """Make a new store of all that can be read of this damaged one, which need not open and is not touched.

        Each memory and each past state is taken if it is as it was stored: in a SQLite store its checksum tells that.
        They keep ids, versions, timestamps and values. For questions as of a moment, and for the feed of changes, they
        are new. The new store has the options of this one; an encrypted one is encrypted with a new key, for the same
        sources.

        Args:
            to: the directory of the new store: absent or empty. At any moment it has the whole new store, or nothing.
            progress: is called with (done, total) now and then.

        Returns:
            What it has, and the ids of memories whose last state is gone.

        Raises:
            StoreMissingError: there is no file to read.
            CorruptStoreError: the file is no store, or nothing is left of one.
            StoreAccessError: `to` is not empty.
            KeyUnavailableError, WrongKeyError: the store is encrypted, and no key opens it.
            StoreFullError: the disk is full; nothing is left of the new store.
            UnsupportedError: the backend repairs nothing, such as PostgreSQL, whose own tools do.

        >>> import pathlib, tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory = pathlib.Path(tempfile.mkdtemp())
        >>> with MemoryModule(storage_dir=directory / "store") as memory:
        ...     _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory.store.repair(directory / "new").memories
        1
        """
        from jarvis.services import repairing

        target: Path = checked("path", to)
        return repairing.repair(self.backend, target, checked("progress", progress))

    # --- keys and encryption ----------------------------------------------------------------------

    def encrypt(
        self, keys: KeySources = (), *, progress: Callable[[RewriteProgress], None] | None = None
    ) -> Rewritten | None:
        """Encrypt the plain store, while all its processes go on reading and writing.

        The store is copied into an encrypted file, beside writers, and compared row by row. Then that file takes the
        place of the plain one; writers wait for a moment. If the process is killed at any point, the store still opens,
        and the next call continues. Other processes open the encrypted file by themselves, if they have a key: from
        their ``keys=``, or from a source that the file of keys names.

        The blocks of the plain file are free then, but not overwritten: see docs/security.md.

        On PostgreSQL all rows are written again in one transaction. Writers wait for it; other processes that have the
        store open get `StoreAccessError` from then on, until they call `shutdown()` or restart.

        Args:
            keys: the sources that open it, see `jarvis.keys`, besides those that this module was opened with.
            progress: called again and again with the progress; if it raises, the encryption stops.

        Returns:
            The result; None if this call only finished an interrupted encryption, or called off a decryption.

        Raises:
            InvalidSettingError: it is encrypted already.
            KeyUnavailableError: a source has no key to give, or there is no source. Nothing was done.
            StoreBusyError: another call is changing the keys, or an iteration that was begun before takes too long;
                call it again.
            UnsupportedError: the backend does not encrypt.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.keys import KeyFile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> memory = MemoryModule(storage_dir=tmp_path / "store")
        >>> _ = memory.set_user_preference("theme", {"mode": "dark"})
        >>> done = memory.store.encrypt([KeyFile.create(tmp_path / "its-key")])
        >>> done.rows["entries"], memory.get_user_preferences()
        (1, {'theme': {'mode': 'dark'}})
        """
        return ask(self.backend, Encrypts).encrypt(sources_of(keys), checked("progress", progress))

    def decrypt(self, *, progress: Callable[[RewriteProgress], None] | None = None) -> Rewritten | None:
        """Make the encrypted store plain, in the way of `encrypt`, and remove its file of keys.

        Args:
            progress: as for `encrypt`.

        Raises:
            NotEncryptedError: it is plain already.
            InvalidSettingError: this module was opened with ``encryption="required"``.
            StoreBusyError: as for `encrypt`.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).decrypt(checked("progress", progress))

    def rotate_key(
        self, *, keys: KeySources = (), progress: Callable[[RewriteProgress], None] | None = None
    ) -> Rewritten:
        """Give the encrypted store a new random key, in the way of `encrypt`; its sources stay as they are.

        After that, neither the old key nor an old copy of the file of keys opens the store. The new key is put into
        every slot, so the source of each must be at hand.

        Args:
            keys: sources besides those that the module was opened with, such as the passphrase.
            progress: as for `encrypt`.

        Raises:
            NotEncryptedError: the store is plain.
            KeyUnavailableError, WrongKeyError: the source of a slot is not at hand; nothing was done. Give it, or
                remove the slot.
            StoreBusyError: as for `encrypt`.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).rotate(sources_of(keys), checked("progress", progress))

    def key_slots(self) -> list[SlotInfo]:
        """Return the slots of the encrypted store: the sources that open it. An empty list if it is plain.

        Raises:
            KeyUnavailableError, CorruptStoreError: it is encrypted, but its file of keys is lost.
            UnsupportedError: the backend does not encrypt.
        """
        return ask(self.backend, Encrypts).key_slots()

    def add_key_slot(self, source: AnySource) -> int:
        """Let one more source open the store, see `jarvis.keys`; return the number of its slot.

        Only the file of keys is written, whatever the size of the store. Have two sources at least: if all of them are
        lost, the store is lost.

        Raises:
            KeyUnavailableError: the source has no key to give.
            NotEncryptedError: the store is plain.
            InvalidSettingError: it is no source, the file of keys cannot hold its kind or hint, or there are 64 slots.
            UnsupportedError: the backend does not encrypt.

        >>> import tempfile
        >>> from pathlib import Path
        >>> from jarvis.keys import KeyFile, Passphrase
        >>> from jarvis.persistent_memory import MemoryModule
        >>> tmp_path = Path(tempfile.mkdtemp())
        >>> key = KeyFile.create(tmp_path / "key")
        >>> memory = MemoryModule(storage_dir=tmp_path / "new", encryption="on", keys=[key])
        >>> memory.bootstrap()
        >>> memory.store.add_key_slot(Passphrase("correct horse battery staple"))
        2
        >>> [slot.source for slot in memory.store.key_slots()]
        ['file', 'passphrase']
        """
        return ask(self.backend, Encrypts).add_key_slot(sources_of([source])[0])

    def remove_key_slot(self, slot_id: int) -> None:
        """Remove a slot, such as that of a lost source: it no longer opens the store.

        Only the file of keys is written. An older copy of that file still opens the store with the source: to prevent
        that, call `rotate_key` as well.

        Raises:
            InvalidSettingError: there is no such slot, or it is the last one.
            NotEncryptedError: the store is plain.
            UnsupportedError: the backend does not encrypt.
        """
        if type(slot_id) is not int or not 0 <= slot_id < MOST_VERSIONS:
            raise InvalidSettingError("slot_id must be a number that key_slots() gives")
        ask(self.backend, Encrypts).remove_key_slot(slot_id)

    # --- analytics --------------------------------------------------------------------------------

    def analytics(
        self,
        *,
        namespaces: Collection[str] | None = None,
        top: int = 20,
        near: bool = False,
        progress: Progress | None = None,
    ) -> Analytics:
        """Return what the store holds, in figures: names, ids and keys of memories are in it, and never a value.

        Counts, ages, changes and encoded bytes are the same on every backend; what files take is each one's own. All
        memories and past states are read, and others write meanwhile. Each list has at most `top` members, and tells
        how much is not in it.

        Args:
            namespaces: which, None for all.
            top: how many names, memories and groups are told one by one.
            near: find memories that say nearly the same, too; they are in the working memory meanwhile, and it takes
                some 50 µs for each.
            progress: is called with (done, total) now and then.

        Raises:
            InvalidQueryError: `top` is no whole number from 1 to 1,000.
            InvalidEntryError: a namespace has no valid name.
            TransactionError: the calling thread has a transaction open.

        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule.in_memory()
        >>> for number in range(3):
        ...     _ = memory.remember(f"note {number}", tags=["note"])
        >>> report = memory.store.analytics()
        >>> report.memories, [(share.name, share.memories) for share in report.tags.shares]
        (3, [('note', 3)])
        >>> report.ages.histogram[0].name, report.ages.histogram[0].memories
        ('under 1 hour', 3)
        """
        from jarvis.services import analytics, exporting

        most = asked_number("top", top, 1, analytics.MOST_TOP)
        parts = exporting.parts_of(self.backend, _names(namespaces))
        told = checked("progress", progress)
        return analytics.analyse(self.backend, parts, self._now(), top=most, near=is_on("near", near), progress=told)

    # --- size ------------------------------------------------------------------------------------

    def recompress(self, progress: Progress | None = None) -> Recompression:
        """Store every value again, in all namespaces and in the past, as the memory's ``compression=`` says.

        Call it for a store from before there was compression, or after the setting was changed. Versions, timestamps,
        history and feed stay as they are. With ``"auto"`` compressed values stay so, with ``"max"`` they become
        smaller, with ``"off"`` they are written out. Others may write in between. If it is interrupted, call it again.

        Args:
            progress: is called with (done, total) after each step.

        Raises:
            UnsupportedError: the backend has no compression.
            TransactionError: the calling thread has a transaction open.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory = tempfile.mkdtemp()
        >>> memory = MemoryModule(storage_dir=directory, compression="off")
        >>> _ = memory.create_memory("notes", "long", {"text": "again and again " * 500}, "note")
        >>> memory.shutdown()
        >>> memory = MemoryModule(storage_dir=directory)
        >>> done = memory.store.recompress()
        >>> done.entries, done.bytes_before > 5 * done.bytes_after
        (1, True)
        """
        return ask(self.backend, Compresses).recompress(checked("progress", progress))

    def rebuild_index(self, *, language: TextIndex | None = None, progress: Progress | None = None) -> None:
        """Make the index of words again, by which texts are found, from the memories of all namespaces.

        Call it for another language, for a damaged index, or after a large import, so that no search has to do it.
        Others may read and write meanwhile; their searches take longer. If it is interrupted, the next search goes on.

        Args:
            language: of the texts, see `MemoryModule`; None for the one that the index has, ``"off"`` to have none.
            progress: is called with (done, total) after each step.

        Raises:
            InvalidSettingError: there is no such language.
            UnsupportedError: the backend has no index of words.
            TransactionError: the calling thread has a transaction open.

        >>> import tempfile
        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule(storage_dir=tempfile.mkdtemp())
        >>> _ = memory.remember("Die Häuser stehen in Lissabon")
        >>> memory.store.rebuild_index(language="german")
        >>> [entry.value["text"] for entry, *_ in memory.recall("Haus")]
        ['Die Häuser stehen in Lissabon']
        """
        index = ask(self.backend, SearchesText)
        index.rebuild_index(checked("text_index", language), checked("progress", progress))

    def index_pending(self, *, background: bool = False, progress: Progress | None = None) -> int:
        """Make the vectors that memories lack, in every namespace, with the embedder of this memory; return how many.

        From then on `MemoryModule.recall` finds memories that mean what a question means, in other words. Call it after
        writes, and again whenever you like: it makes what is missing. Others may read and write meanwhile; what changes
        while the model is at it stays without a vector until the next call. If it is interrupted, what was made stays.
        Of a JSON store, and of a sealed one on a server, vectors are in memory and end with the process.
        A role of a server that may not see all namespaces makes those of this memory's namespace.
        After a change of the embedder all vectors are made again, and memories are found by their words until then.

        Args:
            background: return at once, and let a thread do it; no-op if one is at it. `MemoryModule.shutdown` ends it.
                A model that fails is logged (``jarvis.search``).
            progress: is called with (done, total) after each step; not in the background.

        Raises:
            UnsupportedError: no embedder is installed.
            InvalidSettingError: the embedder is ``"off"``.
            EmbedderError: the model failed.
            TransactionError: the calling thread has a transaction open.

        >>> from jarvis.persistent_memory import MemoryModule
        >>> memory = MemoryModule.in_memory(embedder="minilm")
        >>> _ = memory.remember("Maria's dog had puppies")
        >>> memory.store.index_pending()
        1
        >>> [entry.value["text"] for entry, *_ in memory.recall("does she keep pets?")]
        ["Maria's dog had puppies"]
        """
        told = checked("progress", progress)
        if is_on("background", background):
            self._meaning().index_behind(self.backend)
            return 0
        return self._meaning().index(self.backend, told)

    def prune_history(self, *, limit: int = 1_000) -> int:
        """Remove at most `limit` past states that the policy has no room for; return how many.

        Writers do that in small steps beside their changes; this verb is for a store that nobody writes to.

        Raises:
            UnsupportedError: the backend keeps no history.
        """
        asked_number("limit", limit)
        self._gates.here.check(self.backend)
        return ask(self.backend, KeepsHistory).prune(self._now(), limit)

    def purge_expired(
        self,
        *,
        limit: int = 1_000,
        module: str | None = None,
        task_id: str | None = None,
        reason: str | None = None,
    ) -> int:
        """Remove at most `limit` memories that have expired, in every namespace, and their past; return how many.

        Reads do not see them anyway. Writers purge a few beside their changes; this verb is for a store that nobody
        writes to, or to purge now. The changes of these memories stay in the feed, and so does each purge.

        Raises:
            InvalidQueryError: `limit` is no number above 0.
            UnsupportedError: the backend has no expiry.
        """
        ask(self.backend, Expires)
        most = asked_number("limit", limit)
        return expiry.purge(self.backend, most, self._author(module, task_id, reason), self._change)

    # --- dates -----------------------------------------------------------------------------------

    def mend_dates(self, *, module: str | None = None, task_id: str | None = None, reason: str | None = None) -> int:
        """Give new dates to memories that are dated ahead of the clock, in every namespace; return how many.

        Call it for a store that was written to while the clock of its machine was ahead. SET THE CLOCK RIGHT BEFORE.
        Each such memory is updated: it gets a new version, which the feed tells, and a date between those of the
        changes before and after it. Past states and the feed get new dates, too. Cursors stay valid and every past
        state is kept, but questions as of an earlier moment are not answered any more. All or nothing; no-op if all
        dates have passed.

        Raises:
            TransactionError: a transaction is open in this thread.
            UnsupportedError: the backend cannot.

        >>> import tempfile
        >>> from datetime import UTC, datetime, timedelta
        >>> from jarvis.persistent_memory import MemoryModule
        >>> directory, ahead = tempfile.mkdtemp(), datetime.now(UTC) + timedelta(days=4000)
        >>> memory = MemoryModule(storage_dir=directory, clock=lambda: ahead)
        >>> memory_id = memory.set_user_preference("theme", {"mode": "dark"})
        >>> memory = MemoryModule(storage_dir=directory)
        >>> memory.store.mend_dates()
        1
        >>> memory.get_memory(memory_id).timestamp <= datetime.now(UTC)
        True
        """
        store = ask(self.backend, MendsDates)
        gate = self._gates.here
        gate.check(self.backend)
        self._now()
        author = self._author(module, task_id, "its date lay ahead of the clock" if reason is None else reason)
        return gate.during(self.backend, lambda: store.mend_dates(author.signature("update")))

    # --- namespaces ------------------------------------------------------------------------------

    def list_namespaces(
        self, *, prefix: str | None = None, limit: int | None = None, after: str | None = None
    ) -> list[str]:
        """Return the names of the namespaces that hold a memory, in the order of code points.

        Args:
            prefix: return only those that begin with this text; no sign is a wildcard.
            limit: return at most this many.
            after: return only those after this one: pass the last one of a page to get the next page.

        Raises:
            InvalidQueryError: an argument is invalid; the message says what it takes.
            UnsupportedError: the backend has no namespaces.
        """
        page = Page(prefix=prefix, limit=limit, after=after)
        return list(page.of(dict.fromkeys(ask(self.backend, Namespaced).list_namespaces(), 0)))

    def erase_namespace(
        self, namespace: str, *, module: str | None = None, task_id: str | None = None, reason: str | None = None
    ) -> ErasureReceipt:
        """ERASE EVERY MEMORY OF `namespace`, its past and its name, as `MemoryModule.erase_memory` does.

        Raises:
            UnsupportedError: the backend has no namespaces, or no erasure.
        """
        check_namespace(namespace)
        author = self._author(module, task_id, reason)
        ask(self.backend, Namespaced)
        doomed = self.backend.for_namespace(namespace)
        return erasure.erase(doomed, None, author, self._change_apart)


def _names(namespaces: Collection[str] | None) -> list[str] | None:
    """Return the names of namespaces that a caller gives, sorted; None for all."""
    if namespaces is None:
        return None
    names = ids_of(namespaces)
    for name in names:
        check_namespace(name)
    return sorted({*names})
