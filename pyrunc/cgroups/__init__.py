"""Control groups: which ones a container has, and their files."""
