"""One module for each operation on containers."""
