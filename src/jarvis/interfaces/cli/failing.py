"""What went wrong, in one or two lines, and the exit code that says it to scripts."""

from __future__ import annotations

from jarvis import errors
from jarvis.interfaces.readable import safe

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
        "see what is wrong: jarvis-memory doctor; save the rest: jarvis-memory repair DIRECTORY",
    ),
    (errors.StoreMissingError, "make one: jarvis-memory init; name another one: --store PATH"),
    (errors.StoreBusyError, "try again, or see who has it: jarvis-memory doctor"),
    (
        errors.KeyUnavailableError,
        "name a source of its key: --unlock file:PATH, environment:NAME, keyring:SERVICE or passphrase",
    ),
    (errors.ConflictError, "look at it: jarvis-memory get"),
)


def code_of(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def told(error: BaseException) -> str:
    """Return what a person is told of an error: what is wrong, and in a second line the way out."""
    text = safe(str(error))
    way_out = next((way for kind, way in _WAYS_OUT if isinstance(error, kind)), None)
    return text if way_out is None else f"{text}\n  {way_out}"
