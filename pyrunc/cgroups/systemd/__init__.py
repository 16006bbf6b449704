"""Control groups that systemd makes, as units."""
