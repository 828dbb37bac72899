"""The keys of a store, changed: the ways to its key, and the key itself, by which the store is written anew.

A change of the key is said in the file of keys before anything else, and there both keys stay until all is done. The
store is moved into a file under the new key beside writers, see `jarvis._sqlite.replace.move`; what a file begins
with says which key it has. So whoever is killed leaves a store that opens, and the verb goes on when called again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import apsw
import msgspec

from jarvis._disk import files
from jarvis._sqlite import cipher, driver, first_life
from jarvis._sqlite.replace import move, rebuilt
from jarvis.errors import (
    InvalidSettingError,
    KeyUnavailableError,
    NotEncryptedError,
    StoreAccessError,
    StoreBusyError,
    WrongKeyError,
)
from jarvis.model.key_slot import SlotInfo

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
    """The key that the store was to have is not in its file of keys any more."""


# --- the ways to the key -------------------------------------------------------------------------


def slots(database: Database) -> list[SlotInfo]:
    """Return the ways to the store's key, none if it is plain; an encrypted one need not be opened for that."""
    found = database.vault.envelope()
    if found is None and os.path.exists(database.path):
        database.read(lambda _: None)  # what is encrypted, and has lost its keys, is not plain
    return [] if found is None else [SlotInfo(slot.id, slot.source, slot.hint) for slot in found.slots]


def add_slot(database: Database, source: KeySource) -> int:
    """Let `source` open the store, from now on; return the number of its slot.

    Raises:
        KeyUnavailableError: the source has no secret to give.
        NotEncryptedError: the store is plain.
    """
    from jarvis.encryption import envelope

    database.check_may_rewrite()
    opener = database.vault.opener
    changed = _change(database, lambda found: envelope.with_slot(opener, found, source))
    return changed.slots[-1].id


def remove_slot(database: Database, slot_id: int) -> None:
    """Let a slot open the store no longer.

    Raises:
        InvalidSettingError: there is no such slot, or it is the last one.
        NotEncryptedError: the store is plain.
    """
    from jarvis.encryption import envelope

    database.check_may_rewrite()
    path = database.vault.path
    _change(database, lambda found: envelope.without_slot(path, found, slot_id))
    database.vault.opener.forget()


def _change(database: Database, change: Callable[[Envelope], Envelope]) -> Envelope:
    """Replace the envelope by what `change` makes of it, outside of the lock: a passphrase takes its time."""
    vault = database.vault
    database.read(lambda _: None)  # the key that it is opened with is at hand, or that is an error
    for _ in range(_MANY_TRIES):
        found = vault.envelope()
        if found is None:
            raise NotEncryptedError(vault.store, "is plain, so it has no keys; call store.encrypt()")
        changed = change(found)
        with database.locked():
            if vault.envelope() == found:
                vault.keep(changed)
                vault.suggest_recovery(changed)
                return changed
    raise StoreBusyError(vault.path, "others keep changing it; retry")


# --- the key -------------------------------------------------------------------------------------


def encrypt(
    database: Database, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
) -> Rewritten | None:
    """Encrypt a plain store; return what was done, None if that was only to end or to call off another change.

    Raises:
        InvalidSettingError: it is encrypted.
        KeyUnavailableError: a source has no secret to give, or there is none.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    vault = database.vault
    was_changing = _begin(database)
    found, number = _now(database)
    if number is not None:
        if found is not None and found.change == "decrypt":
            _call_off(database, found, number)
        elif not was_changing:
            raise InvalidSettingError(
                f"{database.path} is encrypted already; its keys are changed with store.add_key_slot() and "
                "store.rotate_key()"
            )
        return None
    if found is not None and not all(_opens(vault, found, source) for source in sources):
        _call_off(database, found, None)  # or the store would end up with keys that nobody has in mind any more
        found = None
    before = vault.sources
    vault.add_sources(sources)
    if found is None:
        try:
            found = vault.new_envelope("encrypt")
        except BaseException:
            vault.take_sources(before)  # or the one that gave none would spoil the next call, too
            raise
        with database.locked():
            vault.keep(found, keep_existing=True)
        vault.suggest_recovery(found)
    found = _there(database)
    return _move(database, vault.opener.open(found, found.newest), progress)


def rotate(
    database: Database, sources: Sequence[KeySource], progress: Callable[[RewriteProgress], None] | None
) -> Rewritten:
    """Give an encrypted store a new key; return what was done.

    Raises:
        NotEncryptedError: it is plain.
        WrongKeyError, KeyUnavailableError: the source of a slot is not at hand.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    from jarvis.encryption import envelope

    vault = database.vault
    _begin(database)
    found, number = _now(database)
    if found is None or number is None:
        raise NotEncryptedError(database.path, "is plain, so it has no key; call store.encrypt()")
    if found.change == "decrypt":
        _call_off(database, found, number)
    opener = vault.opener.besides(sources)
    changed = _change(database, lambda held: held if held.change == "rotate" else envelope.with_next_key(opener, held))
    key = opener.open(changed, changed.newest)
    vault.opener.remember(changed, key)
    return _move(database, key, progress)


def decrypt(database: Database, progress: Callable[[RewriteProgress], None] | None) -> Rewritten | None:
    """Make an encrypted store plain; return what was done, None if that was only to end or to call off another change.

    Raises:
        InvalidSettingError: encryption is required by whoever asks.
        NotEncryptedError: it is plain.
        StoreError: see `jarvis._sqlite.replace.move.move`; the store is as it was.
    """
    vault = database.vault
    if vault.encryption == "required":
        raise InvalidSettingError(
            f"{database.path} is opened with encryption='required'; open it with 'off' to make it plain"
        )
    was_changing = _begin(database)
    found, number = _now(database)
    if number is None:
        if found is not None:
            _call_off(database, found, None)
        elif not was_changing:
            raise NotEncryptedError(database.path, "is plain already")
        return None
    if found is not None and found.change == "rotate":
        _call_off(database, found, number)
    _change(database, lambda held: msgspec.structs.replace(held, change="decrypt"))
    return _move(database, None, progress)


def _begin(database: Database) -> bool:
    """Open the store, and end what was begun and only has to be ended; return whether there was anything."""
    database.check_may_rewrite()
    was_changing = database.vault.is_changing()
    database.read(rebuilt.found)  # before anything is begun that could not be ended
    if was_changing:
        _finish(database)
        if not database.vault.is_changing():
            move.abandon(database)  # of which nothing is left but its lock
    return was_changing


def _now(database: Database) -> tuple[Envelope | None, int | None]:
    """Return the file of keys, and which of them the store has, None if it is plain."""
    found, key = database.vault.envelope(), database.file.key()
    return found, None if found is None or key is None else found.key_with(key.salt)


def _opens(vault: Vault, found: Envelope, source: KeySource) -> bool:
    """Tell whether one source by itself opens a slot."""
    from jarvis.encryption.envelope import Opener

    try:
        Opener(vault.path, [source]).open(found, found.newest)
    except (WrongKeyError, KeyUnavailableError):
        return False
    return True


def _there(database: Database) -> Envelope:
    found = database.vault.envelope()
    if found is None:
        raise StoreBusyError(database.vault.path, "was removed meanwhile; call the verb again")
    return found


def _call_off(database: Database, found: Envelope, number: int | None) -> None:
    """Give up a change that has not come to the swap: the store goes on with the key it has, or plain.

    Raises:
        StoreBusyError: somebody else has ended it meanwhile, or is at it; nothing was given up.
    """
    from jarvis.encryption.envelope import with_only

    vault = database.vault
    move.abandon(database)
    with database.locked():
        held, (beginning, *copies) = vault.envelope(), database.file.beginnings()
        if (
            held is None
            or (held.store, held.change) != (found.store, found.change)
            or (beginning == cipher.PLAIN) != (number is None)
            or held.key_with(beginning) != number
            or any(held.key_with(each) not in {None, number} for each in copies)
        ):  # the keys that were to go may be those that the store has by now
            raise StoreBusyError(vault.path, "somebody else has just changed the keys; call the verb again")
        if number is not None:
            vault.keep(with_only(held, number))
        else:
            vault.remove()


def _move(database: Database, key: DataKey | None, progress: Callable[[RewriteProgress], None] | None) -> Rewritten:
    def make(path: str) -> apsw.Connection:
        return move.plain(path) if key is None else driver.opened(path, key)

    def check(path: str) -> None:
        if driver.beginning_of(path) != (cipher.PLAIN if key is None else key.salt):
            raise StoreAccessError(path, "was not written as it was to be; the store is as it was")
        held = database.vault.envelope()  # somebody may have called the change off before the move began
        if (held is not None and held.change != "decrypt") if key is None else (held is None or not held.has(key)):
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
    """Let the kept copies follow the store if it has come over, and end the change."""
    vault = database.vault
    found = vault.envelope()
    if found is None or found.change is None:
        return
    target = cipher.PLAIN if found.change == "decrypt" else found.keys[found.newest].salt
    beginning, *others = database.file.beginnings()
    if beginning == target and set(others) - {target}:
        key = None if found.change == "decrypt" else vault.opener.open(found, found.newest)
        for path in first_life.kept_copies(database.path):
            _rewrite(database, path, key)
    with database.locked():
        database.file.settle_keys()


def _rewrite(database: Database, path: str, key: DataKey | None) -> None:
    """Write a copy of the first life's file, which nobody has open, anew under another key."""
    beginning = driver.beginning_of(path)
    if beginning == (cipher.PLAIN if key is None else key.salt):
        return
    old = database.vault.key_of_copy(beginning)
    temporary = files.temporary_path(database.path)
    failure = None
    with files.explaining(path, "rewrite the kept copy of the old store"):
        os.close(files.create(temporary, path))
        try:
            # If VACUUM cannot open the file it tells SQLite's log the address, and so the key: here it fails before.
            apsw.Connection(temporary, flags=apsw.SQLITE_OPEN_READWRITE, vfs=driver.cipher_vfs).close()
            connection = apsw.Connection(
                f"file:{quote(path)}", flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI, vfs=driver.cipher_vfs
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
            if driver.beginning_of(temporary) != (cipher.PLAIN if key is None else key.salt):
                raise StoreAccessError(path, "was not rewritten as it was to be; it is as it was")
            files.sync_file(temporary)
            files.put_in_place(temporary, path, keep_existing=False, strict=True)
        except apsw.Error as error:
            failure = driver.translated(path, error, "rewrite the kept copy")
        finally:
            with contextlib.suppress(OSError):
                files.system.unlink(temporary)
    if failure is not None:  # and not in the handler: the driver's error may name the key, and would be its context
        raise failure
