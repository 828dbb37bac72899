"""``edit``: a memory in the editor of the person, with a check that nobody else changed it meanwhile."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import typer

from jarvis.errors import ConflictError, InvalidEntryError
from jarvis.interfaces.addresses import found
from jarvis.interfaces.cli import arguments
from jarvis.interfaces.cli.binding import argument, common_options, option, signed
from jarvis.interfaces.cli.failing import REFUSED, USAGE
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.cli.showing import is_terminal, say, show
from jarvis.interfaces.operations import OPERATIONS
from jarvis.model.entry import MemoryEntry
from jarvis.persistent_memory import MemoryModule


def _edit(**given: Any) -> None:
    session = Session.of(given)
    with session.memory() as memory:
        entry = found(memory, given["address"])
        before = _text(entry)
        directory = Path(tempfile.mkdtemp(prefix="jarvis-"))  # for its owner only
        draft = directory / f"{entry.key[:40].replace('/', '_') or 'memory'}.json"
        is_stored = False
        try:
            draft.write_text(before, encoding="utf-8")
            is_stored = _edited(session, memory, entry, draft, before, given["reason"])
        finally:
            if is_stored or not _has_new_text(draft, before):
                shutil.rmtree(directory, ignore_errors=True)  # also what an editor left beside the draft
            else:
                say(f"your text is in {draft}")


def _has_new_text(draft: Path, before: str) -> bool:
    try:
        return draft.read_bytes().strip() not in (b"", before.strip().encode())
    except OSError:
        return False


def _edited(
    session: Session, memory: MemoryModule, entry: MemoryEntry, draft: Path, before: str, reason: str | None
) -> bool:
    """Let the person edit until the text can be stored; return whether the draft is not needed any more."""
    while True:
        _open(draft)
        try:
            text = _read(draft)
            if text.strip() == before.strip():
                say("nothing was changed")
                return True
            value = arguments.value((), text, None)
            values = {"address": entry.id, "value": value, "if_version": entry.version, "reason": reason}
            show(OPERATIONS["update"].run(memory, values), session.look, changed_by="set")
            return True
        except (ValueError, InvalidEntryError) as error:
            say(f"it cannot be stored: {error}")
            if not is_terminal(sys.stdin) or not session.ask("Edit it again?"):
                raise typer.Exit(USAGE) from None
        except ConflictError as error:
            say(f"nothing was changed: {error}")
            raise typer.Exit(REFUSED) from None


def _read(draft: Path) -> str:
    try:
        return draft.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("the text is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"the text cannot be read: {error.strerror}") from None


def _text(entry: MemoryEntry) -> str:
    """Return the value as it is edited.

    Raises:
        InvalidEntryError: it holds types that JSON does not have, and would come back as others.
    """
    value = entry.model_dump(mode="json")["value"]
    if msgspec.json.decode(msgspec.json.encode(value)) != entry.value:
        raise InvalidEntryError(
            "value",
            "has types that JSON does not have, such as a date or a whole number beyond 64 bits; change it in Python",
        )
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _open(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        ended = subprocess.run([*shlex.split(editor), str(draft)], check=False).returncode  # noqa: S603  its own editor
    except (OSError, ValueError) as error:
        say(f"the editor {editor!r} cannot be started ({error}); set EDITOR")
        raise typer.Exit(USAGE) from None
    if ended:
        say(f"the editor ended with {ended}: nothing was changed")
        raise typer.Exit(REFUSED)


edit = signed(
    _edit,
    [
        argument("address", str, "the memory: its id, the beginning of one, or category/key", required=True),
        option("reason", str, "the reason of the change, for the history"),
        option("author", str, "who makes the change, for the history"),
        *common_options(),
    ],
    "edit",
    "Edit the value of a memory in $VISUAL or $EDITOR.",
)
