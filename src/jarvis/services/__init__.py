"""What a memory does beyond its verbs, on any backend: retention, the past, watches, erasure, keys; no statements."""
