"""What SQL backends share: a `MemoryQuery` as a statement."""
