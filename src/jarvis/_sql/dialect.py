"""`Dialect`: how a database says the few things for which the statements of all of them have no common words."""

from __future__ import annotations

import functools


class Dialect:
    """The words that stand in a statement in place of marks in braces, such as ``{here}``.

    1. Statements are written in what SQLite, from 3.35 on, and PostgreSQL both understand. What is bound stands as
       ``?``, or as ``:name``; a driver whose database writes that otherwise translates each text once.
    2. An entry, a past state or a change is named by its namespace and its number. A statement that is about all
       namespaces, or about names, the clock or commits, has the mark ``{here}``: so a database in which each namespace
       has numbers of its own reaches no other one.

    Args:
        here: the condition for a row to be of the namespaces that the session is about.
        unindexed: stands before a column in a condition, and keeps the planner from an index that begins with it.
        join_in_order: joins tables so that the first one is the outer loop: its order is that of the rows.
        pages: the statement that tells how many pages the store has, about.
    """

    def __init__(self, *, here: str, unindexed: str, join_in_order: str, pages: str) -> None:
        self._words = {"{here}": here, "{unindexed}": unindexed, "{join_in_order}": join_in_order, "{pages}": pages}
        self.say = functools.cache(self._said)

    def _said(self, text: str) -> str:
        for mark, word in self._words.items():
            text = text.replace(mark, word)
        return text
