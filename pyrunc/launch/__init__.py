"""Starting init and talking with it."""
