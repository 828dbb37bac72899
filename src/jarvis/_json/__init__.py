"""What `jarvis.json_backend` stands on: the file's format, and the store that reads and rewrites it."""
