"""What a memory does, on any backend, as plain functions, and the whole store, `Store`; no statements."""
