"""System calls: the only package that calls the C module."""
