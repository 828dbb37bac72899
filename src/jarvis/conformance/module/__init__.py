"""Promises of `MemoryModule` on any backend; those of the backend itself stand one folder above."""
