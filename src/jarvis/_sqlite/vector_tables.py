"""The table of vectors in a SQLite file."""

from __future__ import annotations

CREATE = """
CREATE TABLE vectors (
    namespace INTEGER NOT NULL,
    row INTEGER NOT NULL,             -- of the entry
    number INTEGER NOT NULL,          -- in the order in which they were stored
    model TEXT NOT NULL,
    signs BLOB NOT NULL,              -- see `jarvis.model.vectors.StoredVector`
    codes BLOB NOT NULL,
    PRIMARY KEY (namespace, row)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX vectors_by_number ON vectors (namespace, number, model, signs);
"""
"""The index holds all that a search in many vectors reads."""

BEFORE = """
CREATE TEMP VIEW vectors AS
SELECT 0 AS namespace, 0 AS row, 0 AS number, '' AS model, x'' AS signs, x'' AS codes WHERE FALSE;
"""
"""Makes a store of an earlier version one without vectors, for a reader."""
