"""The key of an encrypted store, what is derived from it, and the file of keys; no pages, no entries."""
