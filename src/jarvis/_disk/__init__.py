"""Whole files, where they may lie, and the lock between their writers; nothing that knows their content."""
