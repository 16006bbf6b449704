"""Where the time of a command goes."""
