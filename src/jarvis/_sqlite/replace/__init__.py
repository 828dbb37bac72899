"""Another file takes the place of a store that is in use: moved into it beside its writers, and swapped for it."""
