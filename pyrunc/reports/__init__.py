"""Verbs that only print."""
