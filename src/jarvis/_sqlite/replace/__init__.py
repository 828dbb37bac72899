"""Replaces the file of a store in use: moves the store into another file beside its writers, and swaps the two."""
