"""The file of exported memories: its lines, first and last ones included; no store, and no rule of what is imported."""
