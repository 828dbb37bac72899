"""The server of the Model Context Protocol: sets of tools, and what carries them; no rule of memories."""
