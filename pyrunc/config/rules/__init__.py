"""PURE: the rules between the fields of config.json."""
