"""Seccomp profiles and their filters."""
