"""What the host has and offers."""
