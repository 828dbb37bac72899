"""Connections to a PostgreSQL server, its tables and its errors. No rule of memories; nothing that databases share."""
