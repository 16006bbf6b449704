"""How the `pyrunc` command enters Python."""
