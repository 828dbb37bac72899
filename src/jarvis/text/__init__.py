"""Text as words: the analyser, the words of a memory, and questions; no store, no ranking."""
