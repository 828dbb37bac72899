"""Conversations as memories: executions, exchanges, and the text of a context; no statements, no verbs."""
