"""config.json: reading and checking it."""
