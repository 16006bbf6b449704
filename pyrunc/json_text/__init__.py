"""PURE: JSON, read and written."""
