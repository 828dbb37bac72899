"""Tells how many bytes a store takes on its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jarvis._sql import registry
from jarvis.model.analytics import Sizes

if TYPE_CHECKING:
    from jarvis._postgresql.lease import Lease

_INDEX = "|".join(
    table.name for side in registry.SIDE_TABLES for table in side.tables if table.name.startswith("text_")
)
_SIZES = f"""
SELECT CAST(sum(size) AS bigint),
    CAST(coalesce(sum(size) FILTER (WHERE relname ~ '^({_INDEX})(_[0-9]+)?$'), 0) AS bigint)
FROM (
    SELECT relname, pg_total_relation_size(oid) AS size FROM pg_catalog.pg_class
    WHERE relkind = 'r'
        AND relnamespace = (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = '{{schema}}.store'::regclass)
) AS own
"""
"""The tables of the schema and their partitions, each with its indexes."""


def sizes(session: Lease) -> Sizes:
    """Return how many bytes the tables of the store take."""
    ((store, index),) = session.rows(session.driver.in_schema(_SIZES))
    return Sizes(store_bytes=store, index_bytes=index)
