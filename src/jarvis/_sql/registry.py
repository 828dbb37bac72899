"""Declares every table of a store once, and the side tables of its entries.

A new table is declared here. Each database has its own statements that create it, such as `jarvis._sqlite.schema`.
"""

from __future__ import annotations

from jarvis._sql.side_tables import SideTable
from jarvis._sql.stale_words import Words
from jarvis._sql.tables import FIRST_WITH_PAST, Table
from jarvis._sql.tagging import Tags
from jarvis._sql.vectors import Vectors

SIDE_TABLES: tuple[SideTable, ...] = (Tags(), Words(), Vectors())
"""The side tables, in the order in which they are written."""

_OF_A_STATE = ("namespace", "category", "entity_type")
_TABLES = (
    Table("names"),
    Table("clock"),
    Table("entries", _OF_A_STATE, "entries"),
    Table("revisions", _OF_A_STATE, "past states", FIRST_WITH_PAST),
    Table("gaps", _OF_A_STATE, "gaps", FIRST_WITH_PAST),
    Table("events", ("namespace", "category"), "changes", FIRST_WITH_PAST),
    Table("commits", since=FIRST_WITH_PAST),
)


def own_tables() -> tuple[Table, ...]:
    """Return the tables that belong to no side table."""
    return _TABLES


def tables() -> tuple[Table, ...]:
    """Return all tables of a store."""
    return (*_TABLES, *(table for side in SIDE_TABLES for table in side.tables))
