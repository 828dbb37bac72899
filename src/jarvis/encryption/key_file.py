"""The file ``memory.keys`` beside an encrypted store, which holds its `Envelope`."""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec

from jarvis._disk import files
from jarvis.codec.nesting import stack_error
from jarvis.encryption.data_key import SALT_BYTES
from jarvis.encryption.envelope import FORMAT, Envelope
from jarvis.errors import CorruptStoreError, InvalidSettingError, StackFullError, StoreTooNewError

_ABOUT = "the keys of the store beside this file, each wrapped; without it the store cannot be read: back it up too"
_MOST_BYTES = 1_000_000
_MOST_SLOTS = 64
_MOST_COST = (1_048_576, 16, 16)
_LEAST_MEMORY_A_LANE = 8
_MOST_WORK = _MOST_COST[0] * _MOST_COST[1]
"""Memory times passes of all passphrases together: each may be tried in each slot. It takes half a minute."""


class _File(msgspec.Struct):
    about: str
    format: int
    envelope: msgspec.Raw
    checksum: str


_encode = msgspec.json.Encoder().encode
_decode_file = msgspec.json.Decoder(_File).decode
_decode = msgspec.json.Decoder(Envelope).decode


def read(path: str) -> Envelope | None:
    """Return the envelope in the file, or None if there is no file.

    Raises:
        CorruptStoreError: it is damaged.
        StoreTooNewError: a newer jarvis wrote it.
        StoreError: it cannot be read.
    """
    with files.explaining(path, "read the keys"):
        try:
            data = files.read_regular(os.path.realpath(path), _MOST_BYTES + 2)
        except FileNotFoundError:
            return None
    return envelope_in(data, path)


def envelope_in(data: bytes, path: str) -> Envelope:
    """Return the envelope in the content of a file of keys; raise as `read` does."""
    try:
        file_ = _decode_file(data)
        if file_.format > FORMAT:
            raise StoreTooNewError(path, f"has format {file_.format}, from a newer jarvis; update the package")
        if not hmac.compare_digest(_checksum(file_.envelope), file_.checksum):
            raise ValueError("the checksum does not fit")
        envelope = _decode(file_.envelope)
        _check(envelope)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        if type(error) is RecursionError and isinstance(stack_error(data), StackFullError):
            raise StackFullError from None
        raise CorruptStoreError(
            path, "is damaged, so the store beside it cannot be opened; put a copy of it from a backup in its place"
        ) from None
    return envelope


def write(path: str, envelope: Envelope, *, store: str | None = None, keep_existing: bool = False) -> None:
    """Write the file durably; at any moment the old or the new one is there whole. Needs the writers' lock.

    Raises:
        InvalidSettingError: as for `content_of`.
        StoreError: it cannot be written; the old file is untouched.
    """
    content = content_of(envelope, path)
    files.write_whole(path, (content, b"\n"), beside=store, keep_existing=keep_existing, strict=True)


def content_of(envelope: Envelope, path: str) -> bytes:
    """Return the content of a file of keys.

    Raises:
        InvalidSettingError: it could not be read again, such as with a hint that is no text.
    """
    try:
        encoded = _encode(envelope)
        if _decode(encoded) != envelope:
            raise ValueError("a hint is no text")
        _check(envelope)
        whole = {
            "about": _ABOUT,
            "format": FORMAT,
            "envelope": msgspec.Raw(msgspec.json.format(encoded, indent=2)),
            "checksum": _checksum(encoded),
        }
        content = msgspec.json.format(msgspec.json.encode(whole), indent=2)
        if len(content) > _MOST_BYTES:
            raise ValueError("it is too long")
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        why = error if type(error) is ValueError else "a source has a kind or a hint that is no text"
        raise InvalidSettingError(f"{path} cannot hold that: {why}; nothing was written") from None
    return content


def _checksum(envelope: bytes | msgspec.Raw) -> str:
    plain = msgspec.json.format(bytes(envelope), indent=-1)
    return f"blake2b:{hashlib.blake2b(plain, digest_size=16).hexdigest()}"


def _check(envelope: Envelope) -> None:
    numbers = set(envelope.keys)
    if not numbers or not envelope.slots or len({slot.id for slot in envelope.slots}) != len(envelope.slots):
        raise ValueError("it has no key, no slot, or one twice")
    if len(envelope.slots) > _MOST_SLOTS:
        raise ValueError(f"it has more than {_MOST_SLOTS} slots")
    work = 0
    for slot in envelope.slots:
        if set(slot.wrapped) != numbers or slot.id >= envelope.next_slot:
            raise ValueError("a slot does not hold the keys")
        if slot.derivation.name == "argon2id":
            cost = slot.derivation.cost
            if cost is None or not all(1 <= one <= most for one, most in zip(cost, _MOST_COST, strict=True)):
                raise ValueError("the cost of a passphrase is out of range")
            memory, passes, lanes = cost
            work += memory * passes
            if memory < _LEAST_MEMORY_A_LANE * lanes:
                raise ValueError("a passphrase has less memory than Argon2id takes")
    if work > _MOST_WORK:
        raise ValueError("the cost of the passphrases is out of range")
    salts = [key.salt for key in envelope.keys.values()] + [slot.derivation.salt for slot in envelope.slots]
    if any(len(salt) != SALT_BYTES for salt in salts):
        raise ValueError("a salt has another length")
