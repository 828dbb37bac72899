"""Writes and reads a file of exported memories: JSON Lines, UTF-8.

    {"jarvis_export":1,"history":true,"known_since":"2026-03-01T12:00:00+00:00"}
    {"namespace":"default","id":"…","entry":{…},"past":[…],"crc":"1b2c3d4e"}
    …
    {"memories":2,"checksum":"blake2b:…"}

The first line says what the file is. Each further one is a `jarvis.model.portable.WholeMemory`; its ``crc`` is the
CRC-32 of the bytes before ``,"crc"``, which a line lacks that somebody changed on purpose. The last line counts the
memories and has the BLAKE2b digest of all bytes before it. Nothing depends on the moment of the export.
"""

from __future__ import annotations

import binascii
import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from jarvis._disk import files
from jarvis._disk.locks import held_for_once
from jarvis.errors import CorruptExportError, StoreAccessError, StoreTooNewError
from jarvis.model.entry import check_namespace
from jarvis.model.portable import WholeMemory, decode_whole, moment_at
from jarvis.model.revision import REMOVALS
from jarvis.model.transfers import DamagedLine

FORMAT = 1
_AT_ONCE = 1 << 18  # bytes that are written at once
_CRC = b',"crc":"'
_CRC_BYTES = len(_CRC) + len('12345678"}')
_PATIENCE_SECONDS = 30.0
_WAY_OUT = "export again, or import what is there with incomplete=True"
_BEGIN, _END = b'{"jarvis_export":', b'{"memories":'
_encode = msgspec.json.Encoder().encode


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """The first line.

    Attributes:
        jarvis_export: the version of the format.
        history: whether the file has the past of its memories.
        known_since: since when that past is known, ISO 8601 in UTC; None if it is not kept.
    """

    jarvis_export: int
    history: bool = False
    known_since: str | None = None

    @property
    def since(self) -> datetime | None:
        """The moment of `known_since`; raise ValueError if it is none."""
        return None if self.known_since is None else moment_at(self.known_since)


class End(msgspec.Struct, forbid_unknown_fields=True):
    """The last line."""

    memories: int
    checksum: str


class _Versioned(msgspec.Struct):
    jarvis_export: int


class Written(NamedTuple):
    """How many memories and bytes were written, and the digest of them."""

    memories: int
    bytes: int
    checksum: str


def write(path: Path, header: Header, memories: Iterable[WholeMemory], *, overwrite: bool) -> Written:
    """Write a file, whole or not at all.

    Raises:
        StoreAccessError: something is there already, and `overwrite` is False, or it is no export.
        StoreBusyError: another process wrote there for longer than 30 s.
        StoreError: it cannot be written, such as to a full disk; nothing is left of it.
    """
    _check_free(path, overwrite=overwrite)
    files.ensure_directory(path.parent)
    count = size = 0
    digest = hashlib.blake2b(digest_size=32)

    def parts() -> Iterator[bytes]:
        nonlocal count, size
        waiting = bytearray(_encode(header) + b"\n")
        for count, whole in enumerate(memories, 1):  # noqa: B007  counted for the last line
            waiting += line_of(whole)
            if len(waiting) >= _AT_ONCE:
                digest.update(waiting)
                size += len(waiting)
                yield bytes(waiting)
                waiting.clear()
        digest.update(waiting)
        waiting += _encode(End(count, f"blake2b:{digest.hexdigest()}")) + b"\n"
        size += len(waiting)
        yield bytes(waiting)

    lock = str(path.with_name(f".{path.name}.saving.lock"))
    with files.explaining(path, "write"), held_for_once(lock, str(path), _PATIENCE_SECONDS):
        _check_free(path, overwrite=overwrite)  # another process may have written one meanwhile
        files.remove_leftovers(str(path))  # of killed ones: they are plain text
        files.write_whole(str(path), parts(), private=True, keep_existing=not overwrite)
    return Written(count, size, f"blake2b:{digest.hexdigest()}")


def _check_free(path: Path, *, overwrite: bool) -> None:
    if files.is_there(path):
        if not overwrite:
            raise StoreAccessError(path, "is there already; give another path, or overwrite=True")
        if next((line for _, line in _lines(path)), _BEGIN)[: len(_BEGIN)] != _BEGIN:
            raise StoreAccessError(path, "is no export, and overwrite=True replaces nothing else; give another path")


def line_of(whole: WholeMemory) -> bytes:
    """Return the line of a memory, with its line break."""
    text = _encode(whole)[:-1]
    return b'%b,"crc":"%08x"}\n' % (text, binascii.crc32(text))


class Checked(NamedTuple):
    """What a file is found to be.

    Attributes:
        header: its first line.
        memories: the number of its sound lines.
        damaged: the lines that cannot be used.
    """

    header: Header
    memories: int
    damaged: list[DamagedLine]


def check(path: Path, *, incomplete: bool) -> Checked:
    """Read a file to its end, and check each line and the whole.

    Args:
        incomplete: take one that was cut short, or lacks lines, as well.

    Raises:
        CorruptExportError: it is no such file, or not whole.
        StoreTooNewError: a newer version wrote it.
        StoreError: it cannot be read.
    """
    header, end, sound, edited = Header(FORMAT), None, 0, 0
    damaged: list[DamagedLine] = []
    digest, checksum = hashlib.blake2b(digest_size=32), ""
    for number, line in _lines(path):
        if number == 1:
            header = _header(path, line, incomplete=incomplete)
        elif end is not None:
            damaged.append(DamagedLine(number, "stands behind the end"))
        elif (last := _end(line)) is not None:
            end, checksum = last, f"blake2b:{digest.hexdigest()}"
        else:
            try:
                edited += _is_edited(line)
                sound += 1
            except ValueError as error:
                damaged.append(DamagedLine(number, str(error)))
        digest.update(line)
    if incomplete:
        return Checked(header, sound, damaged)
    if end is None:
        raise CorruptExportError(path, f"was cut short, or its last line is damaged; {_WAY_OUT}")
    if end.memories != sound + len(damaged):
        raise CorruptExportError(
            path, f"has {sound + len(damaged):,} memories, and {end.memories:,} according to its last line; {_WAY_OUT}"
        )
    if checksum != end.checksum and not (damaged or edited):
        raise CorruptExportError(path, f"has other lines than were written, or in another order; {_WAY_OUT}")
    return Checked(header, sound, damaged)


def memories(path: Path, damaged: dict[int, str]) -> Iterator[tuple[int, WholeMemory]]:
    """Yield the memories of a checked file, each with the number of its line, without the damaged lines.

    If a line turns out to be no memory, its number and problem are added to `damaged`.
    """
    for number, line in _lines(path):
        if number == 1 or number in damaged or line.startswith(_END):
            continue
        try:
            whole = _decoded(_split(line)[0])
        except ValueError as error:
            damaged[number] = str(error)
        else:
            yield number, whole


def _split(line: bytes) -> tuple[bytes, bytes | None]:
    """Return the JSON of a line without its checksum, and that checksum, None if there is none."""
    text = line.rstrip(b"\n")
    if text[-_CRC_BYTES : -_CRC_BYTES + len(_CRC)] != _CRC:
        return text, None
    return text[:-_CRC_BYTES] + b"}", text[-10:-2]


def _is_edited(line: bytes) -> bool:
    """Tell whether a line has no checksum; raise ValueError if it is damaged."""
    text, checksum = _split(line)
    if checksum is None:
        whole = _decoded(text)
        if whole.entry is None and whole.past and whole.past[-1].ended.operation not in REMOVALS:
            raise ValueError('has no "entry", although its last change is no removal')
        return True
    if checksum != b"%08x" % binascii.crc32(text[:-1]):
        raise ValueError('does not match its "crc"; if you changed it on purpose, remove that member')
    return False


def _decoded(text: bytes) -> WholeMemory:
    try:
        whole = decode_whole(text)
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8") from None
    check_namespace(whole.namespace)
    return whole


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with (
        files.explaining(path, "read"),
        open(files.open_regular(os.path.realpath(path), os.O_RDONLY), "rb") as file,
    ):
        for number, line in enumerate(file, 1):
            yield number, (line[:-2] + b"\n" if line.endswith(b"\r\n") else line)  # an editor may have saved it so


def _header(path: Path, line: bytes, *, incomplete: bool) -> Header:
    try:
        version = msgspec.json.decode(line, type=_Versioned).jarvis_export
        if version > FORMAT:
            raise StoreTooNewError(
                path,
                f"is an export of format {version}, this jarvis knows up to {FORMAT}: pip install -U jarvis-memory",
            )
        header = msgspec.json.decode(line, type=Header)
        header.since  # noqa: B018  raises if it is malformed
        return header
    except (ValueError, RecursionError):
        if incomplete:
            return Header(FORMAT)
        raise CorruptExportError(path, f"is no export of jarvis, or its first line is damaged; {_WAY_OUT}") from None


def _end(line: bytes) -> End | None:
    if not line.startswith(_END):
        return None
    try:
        return msgspec.json.decode(line, type=End)
    except ValueError:
        return None
