"""Who calls, what they give, and in which thread their call is made; nothing that knows of memories or files."""
