"""Describes errors in one or two lines for people, and as exit codes for scripts."""

from __future__ import annotations

import re

from jarvis import errors
from jarvis.interfaces.readable import safe_lines

DONE, NOT_FOUND, USAGE, REFUSED, DAMAGED, BUSY, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES = {
    DONE: "done",
    NOT_FOUND: "what was asked for is not there",
    USAGE: "the command, an argument or a setting is wrong",
    REFUSED: "refused: not confirmed, a conflict, no right, no key, no room, or not supported; nothing was changed",
    DAMAGED: "the store, a backup or an export is damaged; `verify` and `doctor` found something wrong",
    BUSY: "another program kept the store busy; try again",
    INTERRUPTED: "interrupted by Ctrl-C",
}
"""The exit codes, with their meanings."""

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.StoreMissingError, NOT_FOUND),
    (errors.EntryNotFoundError, NOT_FOUND),
    (errors.RevisionNotFoundError, NOT_FOUND),
    (errors.HistoryUnavailableError, NOT_FOUND),
    (errors.CursorExpiredError, NOT_FOUND),
    (errors.AmbiguousError, NOT_FOUND),
    (errors.InvalidEntryError, USAGE),
    (errors.InvalidQueryError, USAGE),
    (errors.InvalidSettingError, USAGE),
    (errors.UnknownBackendError, USAGE),
    (errors.CorruptStoreError, DAMAGED),
    (errors.CorruptExportError, DAMAGED),
    (errors.StoreBusyError, BUSY),
    (errors.JarvisError, REFUSED),
)
"""The exit code of each error; the first one that fits counts."""

_WAYS_OUT: tuple[tuple[type[BaseException], str], ...] = (
    (
        errors.CorruptStoreError,
        "what is wrong: jarvis-memory doctor; save what is left: jarvis-memory repair DIRECTORY",
    ),
    (errors.StoreBusyError, "another program or thread writes to it; try again"),
    (errors.KeyUnavailableError, "name a source of its key: --unlock file:PATH, environment:NAME or passphrase"),
)

_IN_COMMANDS = (
    (r"; restore a backup, or take what is left into a new store: memory\.store\.repair\(.*?\)", ""),
    (r"(?:memory\.)?store\.rebuild_index\(.*?\)", "jarvis-memory index --rebuild"),
    (r"(?:memory\.)?store\.index_pending\(\)", "jarvis-memory index"),
    (r"store\.encrypt\(\)", "jarvis-memory encrypt"),
    (r"store\.add_key_slot\(\)", "jarvis-memory keys add"),
    (r"store\.remove_key_slot\(\)", "jarvis-memory keys remove"),
    (r"store\.rotate_key\(\)", "jarvis-memory keys rotate"),
    (r"store\.mend_dates\(\)", "jarvis-memory mend-dates"),
    (r"store\.erase_namespace\(\)", "--whole-namespace"),
    (r"jarvis\.moving\.migrate(\(\))?", "jarvis-memory migrate"),
    (r"(?:pass )?plain_text=True", "give --plain-text"),
    (r"is not there, and create=False; give the path.*create=True", "there is no store"),
    (r"; open it once with create=True", ""),
    (r"; open it once without read_only=True to create it", ""),
    (
        r"open it with encryption='on', and with keys= unless the store names its source.*SealedBackend that does",
        "give --unlock",
    ),
    (r"read_only=(True|False)", "read_only"),
    (r"incomplete=True", "--incomplete"),
    (r"overwrite=True", "--overwrite"),
    (r"on_conflict=\"skip\"", "--on-conflict skip"),
    (r"Give them as keys=", "Name them with --unlock"),
    (r"give one, such as keys=\[EnvironmentKey\('JARVIS_KEY'\)\]", "name one with --unlock"),
    (r"with keys= unless", "with --unlock unless"),
)
"""Advice in messages that is Python, and the same as a command."""


def code_of(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def told(error: BaseException) -> str:
    """Return what a person is told of an error: what is wrong, and in a second line the way out."""
    text = safe_lines(in_commands(str(error)))
    way_out = next((way for kind, way in _WAYS_OUT if isinstance(error, kind)), None)
    return text if way_out is None else f"{text}\n  {way_out}"


def in_commands(text: str) -> str:
    """Return a message with its advice as commands."""
    for python, command in _IN_COMMANDS:
        text = re.sub(python, command, text)
    return text
