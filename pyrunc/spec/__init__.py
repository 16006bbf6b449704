"""PURE: terms of the OCI specification and their values."""
