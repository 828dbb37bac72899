"""The table of vectors on a PostgreSQL server: see `jarvis._sqlite.vector_tables`."""

from __future__ import annotations

CREATE = """
CREATE TABLE {schema}.vectors (
    namespace bigint NOT NULL, row bigint NOT NULL, number bigint NOT NULL, model text COLLATE "C" NOT NULL,
    signs bytea NOT NULL, codes bytea NOT NULL, PRIMARY KEY (namespace, row));
CREATE UNIQUE INDEX vectors_by_number ON {schema}.vectors (namespace, number) INCLUDE (model, row, signs);
"""
