"""The JSON Schema of config.json, the validator generated from it, and the explanations."""
