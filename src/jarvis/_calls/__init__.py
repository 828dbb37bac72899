"""Tells callers apart, reads their arguments and runs their calls in threads; knows nothing of memories or files."""
