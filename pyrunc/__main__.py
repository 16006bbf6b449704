"""`python3 -m pyrunc`: the command line."""

from pyrunc.cli import main

raise SystemExit(main())
