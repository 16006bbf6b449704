"""Start init and exchange messages with it."""
