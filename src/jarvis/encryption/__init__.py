"""The key of an encrypted store, keys derived from it, and the file of keys; no pages, no entries."""
