"""Changes the keys of a store: the slots of its data key, and the data key itself, which rewrites the store.

A change of the data key is first noted in the file of keys, where both keys stay until the change is complete. The
store is moved into a file under the new key beside writers, see `jarvis._sqlite.replace.move`; the first bytes of a
file show which key it has. So a killed process leaves a store that opens, and the next call of the verb resumes.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import msgspec

from jarvis._disk import files
from jarvis._sqlite import cipher, engine, first_life
from jarvis._sqlite.replace import move, rebuilt
from jarvis.errors import (
    InvalidSettingError,
    KeyUnavailableError,
    NotEncryptedError,
    StoreAccessError,
    StoreBusyError,
    WrongKeyError,
)
from jarvis.model.key_place import SlotInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jarvis._sqlite.database import Database
    from jarvis._sqlite.vault import Vault
    from jarvis.encryption.data_key import DataKey
    from jarvis.encryption.envelope import Envelope
    from jarvis.keys import KeySource
    from jarvis.model.rewriting import RewriteProgress, Rewritten

_MANY_TRIES = 20


class _CalledOffError(Exception):
    """The file of keys no longer has the key to which the store was to change."""


# --- slots ---------------------------------------------------------------------------------------


def slots(database: Database) -> list[SlotInfo]:
    """Return the slots of the store's key, none if it is plain; this does not open an encrypted store."""
    envelope = database.vault.envelope()
    if envelope is None and os.path.exists(database.path):
        database.read(lambda _: None)  # an encrypted store without its file of keys is not plain
    return [] if envelope is None else [SlotInfo(slot.id, slot.source, slot.hint) for slot in envelope.slots]


def add_slot(database: Database, source: KeySource) -> int:
    """Add a slot so that `source` opens the store from now on; return the number of the slot.

    Raises:
        KeyUnavailableError: the source has no secret to give.
        NotEncryptedError: the store is plain.
    """
    from jarvis.encryption import envelope

    database.check_may_rewrite()
    opener = database.vault.opener
    changed = _change(database, lambda old: envelope.with_slot(opener, old, source))
    return changed.slots[-1].id


def remove_slot(database: Database, slot_id: int) -> None:
    """Remove a slot, so that its source no longer opens the store.

    Raises:
        InvalidSettingError: there is no such slot, or it is the last one.
        NotEncryptedError: the store is plain.
    """
    from jarvis.encryption import envelope

    database.check_may_rewrite()
    path = database.vault.path
    _change(database, lambda old: envelope.without_slot(path, old, slot_id))
    database.vault.opener.forget()


def _change(database: Database, change: Callable[[Envelope], Envelope]) -> Envelope:
    """Replace the envelope by the result of `change`, which is called without the lock: a passphrase takes time."""
    vault = database.vault
    database.read(lambda _: None)  # raises if no source opens the store
    for _ in range(_MANY_TRIES):
        old = vault.envelope()
        if old is None:
            raise NotEncryptedError(vault.store, "is plain, so it has no keys; call store.encrypt()")
        changed = change(old)
        with database.locked():
            if vault.envelope() == old:
                vault.keep(changed)
                vault.suggest_recovery(changed)
                return changed
    raise StoreBusyError(vault.path, "others keep changing it; retry")


# --- the data key --------------------------------------------------------------------------------


def encrypt(
    database: Database, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
) -> Rewritten | None:
    """Encrypt a plain store; return a report, None if this only ended or called off another change.

    Raises:
        InvalidSettingError: the store is encrypted.
        KeyUnavailableError: there is no source, or one has no secret to give.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    vault = database.vault
    was_changing = _begin(database)
    envelope, number = _now(database)
    if number is not None:
        if envelope is not None and envelope.change == "decrypt":
            _call_off(database, envelope, number)
        elif not was_changing:
            raise InvalidSettingError(
                f"{database.path} is encrypted already; its keys are changed with store.add_key_slot() and "
                "store.rotate_key()"
            )
        return None
    if envelope is not None and not all(_opens(vault, envelope, source) for source in sources):
        _call_off(database, envelope, None)  # else the store would get keys that the caller did not ask for
        envelope = None
    before = vault.sources
    vault.add_sources(sources)
    if envelope is None:
        try:
            envelope = vault.new_envelope("encrypt")
        except BaseException:
            vault.take_sources(before)  # else the source without a secret would make the next call fail too
            raise
        with database.locked():
            vault.keep(envelope, keep_existing=True)
        vault.suggest_recovery(envelope)
    envelope = _existing(database)
    return _move(database, vault.opener.open(envelope, envelope.newest), progress)


def rotate(
    database: Database, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
) -> Rewritten:
    """Give an encrypted store a new data key; return a report.

    Raises:
        NotEncryptedError: the store is plain.
        WrongKeyError, KeyUnavailableError: the source of a slot is missing.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    from jarvis.encryption import envelope

    vault = database.vault
    _begin(database)
    current, number = _now(database)
    if current is None or number is None:
        raise NotEncryptedError(database.path, "is plain, so it has no key; call store.encrypt()")
    if current.change == "decrypt":
        _call_off(database, current, number)
    opener = vault.opener.besides(sources)
    changed = _change(database, lambda old: old if old.change == "rotate" else envelope.with_next_key(opener, old))
    key = opener.open(changed, changed.newest)
    vault.opener.remember(changed, key)
    return _move(database, key, progress)


def decrypt(database: Database, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
    """Make an encrypted store plain; return a report, None if this only ended or called off another change.

    Raises:
        InvalidSettingError: the caller requires encryption.
        NotEncryptedError: the store is plain.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    vault = database.vault
    if vault.encryption == "required":
        raise InvalidSettingError(
            f"{database.path} is opened with encryption='required'; open it with 'off' to make it plain"
        )
    was_changing = _begin(database)
    envelope, number = _now(database)
    if number is None:
        if envelope is not None:
            _call_off(database, envelope, None)
        elif not was_changing:
            raise NotEncryptedError(database.path, "is plain already")
        return None
    if envelope is not None and envelope.change == "rotate":
        _call_off(database, envelope, number)
    _change(database, lambda old: msgspec.structs.replace(old, change="decrypt"))
    return _move(database, None, progress)


def _begin(database: Database) -> bool:
    """Open the store, and end a change that has only to be ended; return whether a change was in progress."""
    database.check_may_rewrite()
    was_changing = database.vault.is_changing()
    database.read(rebuilt.needed)  # raises before anything is begun that could not be ended
    if was_changing:
        _finish(database)
        if not database.vault.is_changing():
            move.abandon(database)  # only its lock is left
    return was_changing


def _now(database: Database) -> tuple[Envelope | None, int | None]:
    """Return the file of keys, and the number of the store's key in it, None if the store is plain."""
    envelope, key = database.vault.envelope(), database.file.key()
    return envelope, None if envelope is None or key is None else envelope.key_with(key.salt)


def _opens(vault: Vault, envelope: Envelope, source: KeySource) -> bool:
    """Tell whether one source by itself opens a slot."""
    from jarvis.encryption.envelope import Opener

    try:
        Opener(vault.path, [source]).open(envelope, envelope.newest)
    except (WrongKeyError, KeyUnavailableError):
        return False
    return True


def _existing(database: Database) -> Envelope:
    envelope = database.vault.envelope()
    if envelope is None:
        raise StoreBusyError(database.vault.path, "was removed meanwhile; call the verb again")
    return envelope


def _call_off(database: Database, expected: Envelope, number: int | None) -> None:
    """Give up a change that has not reached the swap: the store keeps its present key, or stays plain.

    Raises:
        StoreBusyError: somebody else has ended the change meanwhile, or is making it; nothing was given up.
    """
    from jarvis.encryption.envelope import with_only

    vault = database.vault
    move.abandon(database)
    with database.locked():
        envelope, (beginning, *copies) = vault.envelope(), database.file.beginnings()
        if (
            envelope is None
            or (envelope.store, envelope.change) != (expected.store, expected.change)
            or (beginning == cipher.PLAIN) != (number is None)
            or envelope.key_with(beginning) != number
            or any(envelope.key_with(copy) not in {None, number} for copy in copies)
        ):  # the store may have the keys by now that were to be removed
            raise StoreBusyError(vault.path, "somebody else has just changed the keys; call the verb again")
        if number is not None:
            vault.keep(with_only(envelope, number))
        else:
            vault.remove()


def _move(database: Database, key: DataKey | None, progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
    def make(path: str) -> apsw.Connection:
        return move.plain(path) if key is None else engine.opened(path, key)

    def check(path: str) -> None:
        if engine.beginning_of(path) != (cipher.PLAIN if key is None else key.salt):
            raise StoreAccessError(path, "was not written as it was to be; the store is as it was")
        envelope = database.vault.envelope()  # somebody may have called the change off before the move began
        if (
            (envelope is not None and envelope.change != "decrypt")
            if key is None
            else (envelope is None or not envelope.has(key))
        ):
            raise _CalledOffError

    try:
        moved = move.move(database, make, progress=progress, before_swap=check)
    except _CalledOffError:
        move.abandon(database)
        raise StoreBusyError(
            database.vault.path, "was changed by somebody else meanwhile; the store is as it was, call the verb again"
        ) from None
    _finish(database)
    return moved


def _finish(database: Database) -> None:
    """Rewrite the kept copies if the store has its new key, and end the change."""
    vault = database.vault
    envelope = vault.envelope()
    if envelope is None or envelope.change is None:
        return
    target = cipher.PLAIN if envelope.change == "decrypt" else envelope.keys[envelope.newest].salt
    beginning, *copies = database.file.beginnings()
    if beginning == target and set(copies) - {target}:
        key = None if envelope.change == "decrypt" else vault.opener.open(envelope, envelope.newest)
        for path in first_life.kept_copies(database.path):
            _rewrite(database, path, key)
    with database.locked():
        database.file.settle_keys()


def _rewrite(database: Database, path: str, key: DataKey | None) -> None:
    """Write a kept copy of a first-life file, which nobody has open, again under another key."""
    beginning = engine.beginning_of(path)
    if beginning == (cipher.PLAIN if key is None else key.salt):
        return
    old = database.vault.key_of_copy(beginning)
    temporary = files.temporary_path(database.path)
    failure = None
    with files.explaining(path, "rewrite the kept copy of the old store"):
        os.close(files.create(temporary, path))
        try:
            # If VACUUM cannot open the file, SQLite logs its URI and so the key: fail here first.
            apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE, vfs=engine.cipher_vfs).close()
            connection = apsw.Connection(
                f"file:{quote(path)}", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI, vfs=engine.cipher_vfs
            )
            try:
                if old is not None:
                    cipher.unlock(connection, old, path)
                else:
                    connection.execute(f"PRAGMA page_size = {cipher.PAGE_BYTES}").fetchall()
                connection.execute("PRAGMA temp_store = MEMORY").fetchall()
                connection.execute("VACUUM INTO ?", (cipher.address(temporary, key),)).fetchall()
            finally:
                connection.close()
            if engine.beginning_of(temporary) != (cipher.PLAIN if key is None else key.salt):
                raise StoreAccessError(path, "was not rewritten as it was to be; it is as it was")
            files.sync_file(temporary)
            files.put_in_place(temporary, path, keep_existing=False, strict=True)
        except apsw.Error as error:
            failure = engine.translated(path, error, "rewrite the kept copy")
        finally:
            with contextlib.suppress(OSError):
                files.system.unlink(temporary)
    if failure is not None:  # not in the handler: the driver's error would be its context, and may name the key
        raise failure
