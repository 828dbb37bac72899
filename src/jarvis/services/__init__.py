"""The work of a memory on any backend, as plain functions, and the whole store, `Store`; no statements."""
