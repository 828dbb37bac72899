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
        members: stands before a parameter in parentheses, a JSON list of texts, and selects its members.
        pages: the statement that returns about how many pages the store has.
    """

    def __init__(self, *, here: str, unindexed: str, join_in_order: str, members: str, pages: str) -> None:
        self._words = {
            "{here}": here,
            "{unindexed}": unindexed,
            "{join_in_order}": join_in_order,
            "{members}": members,
            "{pages}": pages,
        }
        self.say = functools.cache(self._said)

    def _said(self, text: str) -> str:
        for mark, word in self._words.items():
            text = text.replace(mark, word)
        return text
