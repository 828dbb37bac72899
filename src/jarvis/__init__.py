"""The persistent memory of an AI assistant; start at `jarvis.persistent_memory.MemoryModule`."""
