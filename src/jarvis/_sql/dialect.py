"""`Dialect`: the few parts of statements that differ between SQL databases."""

from __future__ import annotations

import functools


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
        value_at: the function that returns what is at a path, such as ``$[0]."key"``, of a JSON text: a number, a text,
            true as 1, false as 0, an object as text that begins with ``{``; NULL for null, or if there is nothing. The
            database orders numbers before texts, and texts before bytes. Empty: Python alone judges values.
        kind_at: the function that returns NULL only if there is nothing at a path.
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
        value_at: str = "",
        kind_at: str = "",
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
            "{value_at}": value_at,
            "{kind_at}": kind_at,
        }
        self.reads_values = bool(value_at)
        self.say = functools.cache(self._said)

    def _said(self, text: str) -> str:
        for mark, word in self._words.items():
            text = text.replace(mark, word)
        return text
