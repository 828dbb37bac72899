"""Seals a plain store in its place, makes a sealed one plain, or gives it another data key.

The store is rewritten in one transaction, with its keys: see `jarvis.model.key_place.Rewritable`. After that this
process opens it again. A handle that was opened before is refused, in every process, because it would look for the
former names and find nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.encryption.envelope import make, suggest_recovery, usual_sources, with_next_key, with_only
from jarvis.encryption.key_file import content_of, envelope_in
from jarvis.errors import InvalidSettingError, NotEncryptedError, UnsupportedError
from jarvis.model.rewriting import RewriteProgress
from jarvis.sealing.open_store import OpenStore, place_of_keys
from jarvis.sealing.rewording import resealed
from jarvis.sealing.seal import Seal

if TYPE_CHECKING:
    from jarvis.encryption.data_key import DataKey
    from jarvis.encryption.envelope import Envelope
    from jarvis.model.key_place import Rewritable
    from jarvis.model.options import Compression, KeySource
    from jarvis.model.rewriting import Rewritten
    from jarvis.sealing.keys import Keys

OnProgress = Callable[[RewriteProgress], None]


def encrypt(
    store: OpenStore, sources: Sequence[KeySource], compression: Compression, progress: OnProgress | None
) -> Rewritten | None:
    """Seal a plain store; return a report, None if this only ended an interrupted call.

    Raises:
        InvalidSettingError: it is sealed.
        KeyUnavailableError: there is no source, or one has no secret to give.
        StoreError: see `Rewritable`.
    """
    place, content = _begin(store)
    keys = store.opening[1]
    if content is not None:
        envelope = envelope_in(content, keys.path)
        if envelope.change != "encrypt":
            raise InvalidSettingError(
                f"{keys.path} is encrypted already; its keys are changed with store.add_key_slot() and "
                "store.rotate_key()"
            )
        _finish(store)
        return None
    opener = keys.opener.besides(())
    envelope, key = make(opener, (*sources, *keys.sources) or usual_sources(), "encrypt")
    suggest_recovery(keys.path, envelope)
    done = place.rewrite(
        None, content_of(envelope, keys.path), resealed(None, Seal(key), keys.path, compression), progress
    )
    _remember(store, envelope, key)
    store.open_again(*sources)
    _finish(store)
    return done


def decrypt(store: OpenStore, compression: Compression, progress: OnProgress | None) -> Rewritten:
    """Make a sealed store plain; return a report.

    Raises:
        InvalidSettingError: this handle requires encryption.
        NotEncryptedError: it is plain.
        StoreError: see `Rewritable`.
    """
    keys = store.opening[1]
    if keys.encryption == "required":
        raise InvalidSettingError(
            f"{keys.path} is opened with encryption='required'; open it with 'off' to make it plain"
        )
    place, content = _begin(store)
    if content is None:
        raise NotEncryptedError(keys.path, "is plain already")
    old = Seal(_key(keys, envelope_in(content, keys.path)))
    done = place.rewrite(content, None, resealed(old, None, keys.path, compression), progress)
    store.open_again()
    _scrub(store)
    return done


def rotate(
    store: OpenStore, sources: Sequence[KeySource], compression: Compression, progress: OnProgress | None
) -> Rewritten:
    """Give a sealed store a new data key; return a report.

    Raises:
        NotEncryptedError: it is plain.
        WrongKeyError, KeyUnavailableError: the source of a slot is missing.
        StoreError: see `Rewritable`.
    """
    place, content = _begin(store)
    keys = store.opening[1]
    if content is None:
        raise NotEncryptedError(keys.path, "is plain, so it has no key; call store.encrypt()")
    envelope, opener = envelope_in(content, keys.path), keys.opener.besides(sources)
    old = Seal(opener.open(envelope, envelope.newest))
    both = with_next_key(opener, envelope)
    key = opener.open(both, both.newest)
    changed = with_only(both, both.newest)
    done = place.rewrite(
        content, content_of(changed, keys.path), resealed(old, Seal(key), keys.path, compression), progress
    )
    _remember(store, changed, key)
    store.open_again()
    _scrub(store)
    return done


def _begin(store: OpenStore) -> tuple[Rewritable, bytes | None]:
    """Open the store; return where its keys are, and what they are.

    Raises:
        UnsupportedError: the backend cannot rewrite it.
        WrongKeyError, KeyUnavailableError: no source opens it.
    """
    base, keys = store.opening
    given: Any = place_of_keys(base)
    place: Rewritable = given
    if not hasattr(place, "rewrite"):
        raise UnsupportedError(
            f"the backend {base.name!r} cannot rewrite a store in its place; copy the memories into another one with "
            "jarvis.moving.migrate()"
        )
    keys.opened(place)
    return place, place.read()


def _key(keys: Keys, envelope: Envelope) -> DataKey:
    return keys.opener.open(envelope, envelope.newest)


def _remember(store: OpenStore, envelope: Envelope, key: DataKey) -> None:
    """Spare the sources the question for a key that was just made."""
    store.opening[1].opener.remember(envelope, key)


def _finish(store: OpenStore) -> None:
    """Remove the plain bytes of a store that is sealed by now; then its keys need not tell of that any more."""
    _scrub(store)
    base, keys = store.opening
    keys.change(place_of_keys(base), lambda envelope: msgspec.structs.replace(envelope, change=None))


def _scrub(store: OpenStore) -> None:
    place, _ = _begin(store)
    place.scrub()
