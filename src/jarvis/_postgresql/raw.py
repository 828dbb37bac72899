"""`Raw`: a connection of the driver. It waits for an answer only as long as the server, or the caller, is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import capabilities, waiting
from psycopg.abc import PQGen
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg.types.string import StrBinaryDumper, StrDumper

Result = TypeVar("Result")

SILENT_SECONDS = 50.0
"""After so long without a byte of an answer, it is asked whether the server answers at all."""

ANSWER_SECONDS = 10
"""How long a server may take to let another connection in, before it counts as gone."""

_LOOK_SECONDS = 0.1  # between two looks whether it is time for something else, such as an interrupt
_CANCEL_SECONDS = 0.5


class SilenceError(psycopg.OperationalError):
    """The server gave no answer, and the connection is closed."""


class Raw(psycopg.Connection[Any]):
    """A connection of the driver. One that nobody refers to any more, after an interrupt, is closed without a warning.

    Attributes:
        local: settings that follow the beginning of each write, where a proxy gives each transaction any connection of
            its own. Then nothing is prepared, either.
        warnings: the states of the server's warnings that a write may be kept in part only.
        is_there: tells whether the server still lets anybody in.
        ends: the time (of `time.monotonic`) until which answers are waited for; None: as long as the server is there.
    """

    local: tuple[str, ...] = ()
    warnings: list[str]
    is_there: Callable[[Raw], bool]
    ends: float | None = None
    _is_cancelled = False

    def __del__(self, *_: Any) -> None:
        """Leave it to libpq's own object to close the connection, which it does in its own process only."""

    def wait(self, gen: PQGen[Result], *given: Any, **named: Any) -> Result:
        """Do what `gen` does, waiting for the server; close the connection if an interrupt ends that.

        The driver's own `wait` asks the server to end the statement, and then waits for its word: that does not come
        if the network has gone silent.

        Raises:
            SilenceError: the server is not there any more, or it is too late.
        """
        if not given:
            named.setdefault("interval", _LOOK_SECONDS)
        try:
            return waiting.wait(self._listening(gen), self.pgconn.socket, *given, **named)
        except psycopg.Error:
            raise
        except BaseException:
            self._give_up()
            raise

    def _listening(self, gen: PQGen[Result]) -> PQGen[Result]:
        """Do what `gen` does, and see to it that the silence of a server ends."""
        silent_since = 0.0
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                silent_since = 0.0 if ready else self._heard_nothing(silent_since, time.monotonic())
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _heard_nothing(self, since: float, now: float) -> float:
        """Note that there was no answer at the time `now`; return since when the server has been silent."""
        if self.ends is not None and now >= self.ends:
            if self._is_cancelled:
                self._give_up()
                raise SilenceError("the server did not answer in time")
            self._is_cancelled, self.ends = True, now + _CANCEL_SECONDS
            self._cancel()  # the server may say yet why it took so long
        if not since:
            return now
        if now - since < SILENT_SECONDS:
            return since
        if not self.is_there(self):
            self.pgconn.finish()
            raise SilenceError(f"the server has been silent for {now - since:.0f} s, and answers nobody")
        return time.monotonic()

    def _give_up(self) -> None:
        """Have the server end what it does, if it listens, and close the connection: an answer may be under way."""
        try:
            self._cancel()
        finally:
            self.pgconn.finish()

    def _cancel(self) -> None:
        if not capabilities.has_cancel_safe():  # the other way to do it can be neither limited nor interrupted
            return
        try:
            self.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error:
            return


def configure(raw: psycopg.Connection[Any]) -> None:
    """Let a connection send each type of value in one way, so that a statement is prepared once."""
    for dumper in (Int8Dumper, Int8BinaryDumper):
        raw.adapters.register_dumper(int, dumper)
    for text_dumper in (StrDumper, StrBinaryDumper):
        raw.adapters.register_dumper(str, text_dumper)
    raw.prepare_threshold = None  # `Wire` prepares
