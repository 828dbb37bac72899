"""The doors: what a memory can be asked to do (`operations`), and how people and agents ask it."""
