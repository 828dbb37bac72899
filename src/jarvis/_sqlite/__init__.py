"""What `jarvis.sqlite_backend` stands on: the driver, connections, the schema and its migrations."""
