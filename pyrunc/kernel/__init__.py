"""System calls: the only door to the C module."""
