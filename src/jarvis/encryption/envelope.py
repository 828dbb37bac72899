"""The content of ``memory.keys``: the key of an encrypted store, wrapped once for each source that may open it.

The store's key is random. Each *slot* holds it, encrypted (AES-256-GCM) with a key that is derived from one source's
secret, so a source is added or removed without touching the store. Without one of the sources the file is of no use.
Without the file the store cannot be read: it belongs into every backup.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from jarvis.encryption.data_key import NONCE_BYTES, SALT_BYTES, DataKey, cipher, missing, stretched
from jarvis.errors import InvalidSettingError, KeyUnavailableError, NoRecoveryWarning, WrongKeyError
from jarvis.keys import KEY_BYTES, EnvironmentKey, KeySource, SecretUnavailableError, source_at

FORMAT = 1
_PASSPHRASE_COST = (65_536, 3, 4)
"""KiB of memory, passes and lanes of Argon2id: the second recommendation of RFC 9106."""

Change = Literal["create", "encrypt", "rotate", "decrypt"]


class Derivation(msgspec.Struct, frozen=True, array_like=True):
    """How the wrapping key is derived from a source's secret."""

    name: Literal["hkdf-sha256", "argon2id"]
    salt: bytes
    cost: tuple[int, int, int] | None = None


class Slot(msgspec.Struct, frozen=True):
    """One way to the store's key.

    Attributes:
        id: its number; never given twice.
        source: the kind of source.
        hint: the way to find the source again.
        derivation: of the wrapping key.
        wrapped: the store's keys by their numbers, each as nonce and ciphertext.
    """

    id: int
    source: str
    hint: str | None
    derivation: Derivation
    wrapped: dict[int, bytes]

    def __str__(self) -> str:
        return f"slot {self.id} ({self.source}{'' if self.hint is None else ' ' + self.hint})"


class KnownKey(msgspec.Struct, frozen=True):
    """Public facts about a key of the store, which identify it.

    Attributes:
        salt: the beginning of each file that it encrypts.
        check: derived from the key, only to be compared.
    """

    salt: bytes
    check: bytes


class Envelope(msgspec.Struct, frozen=True):
    """The content of ``memory.keys``.

    Attributes:
        store: a random name of the store, which binds the slots to it.
        keys: the store's keys by their numbers: one, or both while the store moves from one to another.
        slots: the ways to them.
        change: of the store's key, in progress; the beginning of the store's file tells how far it is.
        next_slot: the number of the next slot.
    """

    store: str
    keys: dict[int, KnownKey]
    slots: list[Slot]
    change: Change | None = None
    next_slot: int = 1

    @property
    def newest(self) -> int:
        """The number of the key that the store has, or will have."""
        return max(self.keys)

    def key_with(self, salt: bytes) -> int | None:
        """Return the number of the key that encrypts a file which begins with `salt`."""
        return next((number for number, key in self.keys.items() if key.salt == salt), None)

    def has(self, key: DataKey) -> bool:
        """Tell whether this is one of the store's keys."""
        number = self.key_with(key.salt)
        return number is not None and hmac.compare_digest(self.keys[number].check, key.check)


_encode = msgspec.json.Encoder().encode


# --- opening -------------------------------------------------------------------------------------


class Opener:
    """Opens slots with the sources of one process, and keeps the keys in memory: a passphrase takes its time.

    Args:
        path: of the file of keys.
        sources: that may open it; if there are none, those that its slots name.
    """

    def __init__(self, path: str, sources: Sequence[KeySource]) -> None:
        self.path = path
        self.sources = tuple(sources)
        self._others: tuple[KeySource, ...] = ()
        self._wrapping: dict[tuple[str, int, bytes], bytes] = {}  # the keys that opened slots, by store, slot and salt
        self._opened: dict[tuple[str, bytes], DataKey] = {}  # by store and salt: another key may get the same number

    def besides(self, others: Sequence[KeySource]) -> Opener:
        """Return an opener that asks these sources first, and has the keys that this one has."""
        more = Opener(self.path, self.sources)
        more._others = tuple(others)
        more._wrapping, more._opened = dict(self._wrapping), dict(self._opened)
        return more

    def open(self, envelope: Envelope, number: int) -> DataKey:
        """Return the key with this number.

        Raises:
            WrongKeyError: no source opens a slot, and at least one gave a secret.
            KeyUnavailableError: no source gave a secret.
        """
        opened = self._opened.get((envelope.store, envelope.keys[number].salt))
        if opened is not None:
            return opened
        for slot in envelope.slots:
            wrapping = self._wrapping.get(_place(envelope, slot))
            key = self._unwrap(envelope, slot, number, wrapping) if wrapping is not None else None
            if key is not None:
                self.remember(envelope, key)
                return key
        return self._ask(envelope, number)

    def _ask(self, envelope: Envelope, number: int) -> DataKey:
        wrong, unavailable = [], []
        for source, slots in self._pairs(envelope):
            if not slots:
                unavailable.append(f"{source}: it has no slot")
            for slot in slots:
                try:
                    wrapping = self.wrapping(slot, source)
                except SecretUnavailableError as error:
                    unavailable.append(f"{source}: {error}")
                    break
                key = self._unwrap(envelope, slot, number, wrapping)
                if key is not None:
                    self.remember_slot(envelope, slot, wrapping)
                    self.remember(envelope, key)
                    return key
                wrong.append(f"{source} does not open {slot}")
        tried = "; ".join(dict.fromkeys([*wrong, *unavailable]))
        if wrong:
            raise WrongKeyError(self.path, f"the key is wrong: {tried}; nothing was written. Give the key it has")
        ways = ", ".join(map(str, envelope.slots))
        raise KeyUnavailableError(
            self.path, f"no key is available: {tried or 'no source was given'}; the store opens with {ways}"
        )

    def every_wrapping(self, envelope: Envelope) -> dict[int, bytes]:
        """Return the wrapping key of each slot.

        Raises:
            WrongKeyError, KeyUnavailableError: the source of a slot is not at hand.
        """
        newest = envelope.newest
        self.open(envelope, newest)
        wrappings: dict[int, bytes] = {}
        refused = []
        for slot in envelope.slots:
            opened = self._wrapping.get(_place(envelope, slot))
            if opened is not None and self._unwrap(envelope, slot, newest, opened) is not None:
                wrappings[slot.id] = opened
                continue
            for source, slots in self._pairs(envelope):
                if slot not in slots:
                    continue
                try:
                    wrapping = self.wrapping(slot, source)
                except SecretUnavailableError as error:
                    refused.append(f"{source}: {error}")
                    continue
                if self._unwrap(envelope, slot, newest, wrapping) is not None:
                    wrappings[slot.id] = wrapping
                    break
            else:
                refused.append(f"nothing given opens {slot}")
        if len(wrappings) < len(envelope.slots):
            raise KeyUnavailableError(
                self.path,
                f"a new key is put into every slot, and that needs the source of each: "
                f"{'; '.join(dict.fromkeys(refused))}. Give them as keys=, or remove the slots with "
                "store.remove_key_slot()",
            )
        return wrappings

    def wrapping(self, slot: Slot, source: KeySource) -> bytes:
        """Return the wrapping key of a slot; raise `SecretUnavailableError` if the source has no secret to give."""
        secret: object = source.secret()  # it may be anybody's class
        if not isinstance(secret, bytes | bytearray) or not (
            secret if source.is_passphrase else len(secret) == KEY_BYTES
        ):
            raise SecretUnavailableError("it gave something else than 32 bytes, or the words of a passphrase")
        return _derived(slot.derivation, bytes(secret), slot.id)

    def remember(self, envelope: Envelope, key: DataKey) -> None:
        """Keep a key that was opened or just made."""
        self._opened[envelope.store, key.salt] = key

    def remember_slot(self, envelope: Envelope, slot: Slot, wrapping: bytes) -> None:
        """Keep the wrapping key of a slot that was opened or just made."""
        self._wrapping[_place(envelope, slot)] = wrapping

    def forget(self) -> None:
        """Forget all keys: the next call asks the sources again."""
        self._wrapping.clear()
        self._opened.clear()

    def _pairs(self, envelope: Envelope) -> Iterator[tuple[KeySource, list[Slot]]]:
        """Yield each source with the slots that it may open: those of its kind, first those with its hint."""
        sources: Iterable[KeySource] = self.sources or dict.fromkeys(
            source for slot in envelope.slots if (source := source_at(slot.source, slot.hint)) is not None
        )
        for source in (*self._others, *sources):
            slots = [slot for slot in envelope.slots if slot.source == source.kind]
            yield source, sorted(slots, key=lambda slot: slot.hint != source.hint)

    def _unwrap(self, envelope: Envelope, slot: Slot, number: int, wrapping: bytes) -> DataKey | None:
        from cryptography.exceptions import InvalidTag

        facts, wrapped = envelope.keys[number], slot.wrapped[number]
        try:
            secret = cipher(wrapping).decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(envelope.store, slot, number)
            )
        except (InvalidTag, ValueError):
            return None
        key = DataKey(bytes(secret), facts.salt)
        return key if hmac.compare_digest(key.check, facts.check) else None


def _place(envelope: Envelope, slot: Slot) -> tuple[str, int, bytes]:
    return envelope.store, slot.id, slot.derivation.salt


def _derived(derivation: Derivation, secret: bytes, slot: int) -> bytes:
    if derivation.name == "hkdf-sha256":
        return stretched(secret, derivation.salt, f"jarvis slot {slot}")
    memory, passes, lanes = derivation.cost or _PASSPHRASE_COST
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        raise missing() from None
    argon = Argon2id(salt=derivation.salt, length=KEY_BYTES, iterations=passes, lanes=lanes, memory_cost=memory)
    try:
        return argon.derive(secret)
    except MemoryError:  # the file of keys is forged, or comes from a larger machine
        raise SecretUnavailableError(f"its slot takes {memory:,} KiB of memory, more than is free") from None


def _bound(store: str, slot: Slot, number: int) -> bytes:
    """Return the data that is authenticated with a wrapped key: all facts that belong to it."""
    return _encode(["jarvis slot", FORMAT, store, slot.id, number, slot.source, slot.hint, slot.derivation])


def usual_sources() -> tuple[KeySource, ...]:
    """Return the sources of a new key if none were given."""
    return (EnvironmentKey(),)


def suggest_recovery(path: str, envelope: Envelope) -> None:
    """Warn if only a keyring opens the store: a keyring is lost with its machine or account."""
    if {slot.source for slot in envelope.slots} == {"keyring"}:
        import warnings

        warnings.warn(
            f"{path}: only the keyring of this machine opens the store; "
            "add a way back: store.add_key_slot(Passphrase(...)), and keep the passphrase elsewhere",
            NoRecoveryWarning,
            stacklevel=2,
        )


# --- making and changing -------------------------------------------------------------------------


def make(opener: Opener, sources: Sequence[KeySource], change: Change | None) -> tuple[Envelope, DataKey]:
    """Return the envelope of a new random key, with a slot for each source.

    Raises:
        KeyUnavailableError: a source has no secret to give, or there is no source.
    """
    if not sources:
        raise KeyUnavailableError(
            opener.path, "no source of a key was given; give one, such as keys=[EnvironmentKey('JARVIS_KEY')]"
        )
    key = DataKey.new()
    envelope = Envelope(os.urandom(16).hex(), {1: KnownKey(key.salt, key.check)}, [], change)
    opener.remember(envelope, key)
    for source in sources:
        envelope = with_slot(opener, envelope, source)
    return envelope, key


def with_slot(opener: Opener, envelope: Envelope, source: KeySource) -> Envelope:
    """Return the envelope with one more slot, which the source opens.

    Raises:
        KeyUnavailableError: the source has no secret to give, or the store's key is not at hand.
        WrongKeyError: the store's key is not at hand.
    """
    keys = {number: opener.open(envelope, number) for number in envelope.keys}
    salt = os.urandom(SALT_BYTES)
    derivation = (
        Derivation("argon2id", salt, _PASSPHRASE_COST) if source.is_passphrase else Derivation("hkdf-sha256", salt)
    )
    slot = Slot(envelope.next_slot, source.kind, source.hint, derivation, {})
    try:
        wrapping = opener.wrapping(slot, source)
    except SecretUnavailableError as error:
        raise KeyUnavailableError(opener.path, f"{source} cannot become a slot: {error}") from None
    slot = _filled(envelope.store, slot, wrapping, keys)
    opener.remember_slot(envelope, slot, wrapping)
    return msgspec.structs.replace(envelope, slots=[*envelope.slots, slot], next_slot=slot.id + 1)


def without_slot(path: str, envelope: Envelope, slot_id: int) -> Envelope:
    """Return the envelope without a slot.

    Raises:
        InvalidSettingError: there is no such slot, or it is the last one.
    """
    others = [slot for slot in envelope.slots if slot.id != slot_id]
    if len(others) == len(envelope.slots):
        raise InvalidSettingError(f"{path} has no slot {slot_id!r}; it has {', '.join(map(str, envelope.slots))}")
    if not others:
        raise InvalidSettingError(f"{path}: {envelope.slots[0]} is the last one; add another before you remove it")
    return msgspec.structs.replace(envelope, slots=others)


def with_next_key(opener: Opener, envelope: Envelope) -> Envelope:
    """Return the envelope with a new random key besides those it has, in every slot.

    Raises:
        WrongKeyError, KeyUnavailableError: the source of a slot is not at hand.
    """
    wrappings = opener.every_wrapping(envelope)
    number, key = envelope.newest + 1, DataKey.new()
    keys = {**{each: opener.open(envelope, each) for each in envelope.keys}, number: key}
    facts = {**envelope.keys, number: KnownKey(key.salt, key.check)}
    opener.remember(envelope, key)
    slots = [_filled(envelope.store, slot, wrappings[slot.id], keys) for slot in envelope.slots]
    return msgspec.structs.replace(envelope, keys=facts, slots=slots, change="rotate")


def with_only(envelope: Envelope, number: int) -> Envelope:
    """Return the envelope with this key only, and without a change in progress."""
    slots = [msgspec.structs.replace(slot, wrapped={number: slot.wrapped[number]}) for slot in envelope.slots]
    return msgspec.structs.replace(envelope, keys={number: envelope.keys[number]}, slots=slots, change=None)


def _filled(store: str, slot: Slot, wrapping: bytes, keys: dict[int, DataKey]) -> Slot:
    wrapped = {}
    for number, key in keys.items():
        nonce = os.urandom(NONCE_BYTES)
        content = cipher(wrapping).encrypt(nonce, key.wrapped_content, _bound(store, slot, number))
        wrapped[number] = nonce + bytes(content)
    return msgspec.structs.replace(slot, wrapped=wrapped)
