"""Conversations as memories: executions, exchanges, and what they are as text; no statements, no verbs."""
