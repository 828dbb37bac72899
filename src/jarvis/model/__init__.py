"""Entries, queries, history, options and receipts as values, and the rules of all backends; no files."""
