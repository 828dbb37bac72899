"""Ranking: memories that share words with a question are scored and ordered; no statements, no verbs."""
