"""`Dialect`: the few parts of statements that differ between SQL databases."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

_VALUE = re.compile(r"\{value (\w+) (\d+)\}")


class Dialect:
    """The words of one database that replace marks in braces, such as ``{here}``, in a statement.

    1. Statements use only SQL that SQLite, from 3.35 on, and PostgreSQL both understand. Parameters are written ``?``
       or ``:name``; a driver whose database writes them otherwise translates each text once.
    2. A statement names an entry, a past state or a change by its namespace and its number. A statement about all
       namespaces, or about names, the clock or commits, has the mark ``{here}``: in a database where each namespace
       has numbers of its own, it restricts the statement to one namespace.

    Args:
        here: the condition for a row to be in the namespaces of the session.
        unindexed: stands before a column in a condition, and keeps the planner from an index that begins with it.
        join_in_order: joins tables so that the first one is the outer loop: its order is that of the rows.
        clock: the row of the clock that the session sees; with ``{here}``, and NULL columns before the first change.
        column_here, value_here: stand before other columns and values of an INSERT: the namespace of the session, where
            a table needs it.
        members, numbers: stands before a parameter in parentheses, a JSON list of texts or of numbers, and selects its
            members as ``value``.
        pages: the statement that returns about how many pages the store has.
        values: by kind, the conditions on a value that `jarvis._sql.preselection` makes; the names of their bindings
            end with ``_#``, in place of the number of the condition. None: Python alone judges values.
    """

    def __init__(
        self,
        *,
        here: str,
        unindexed: str,
        join_in_order: str,
        clock: str,
        column_here: str,
        value_here: str,
        members: str,
        numbers: str,
        pages: str,
        values: Mapping[str, str] | None = None,
    ) -> None:
        self._words = {
            "{here}": here,
            "{unindexed}": unindexed,
            "{join_in_order}": join_in_order,
            "{clock}": clock,
            "{column_here}": column_here,
            "{value_here}": value_here,
            "{members}": members,
            "{numbers}": numbers,
            "{pages}": pages,
        }
        self._values = values or {}
        self.reads_values = bool(values)
        self.say = functools.cache(self._said)

    def _said(self, text: str) -> str:
        text = _VALUE.sub(lambda mark: self._values[mark[1]].replace("_#", f"_{mark[2]}"), text)
        for mark, word in self._words.items():
            text = text.replace(mark, word)
        return text
