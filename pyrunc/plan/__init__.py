"""PURE: configuration and host facts become a plan for init."""
