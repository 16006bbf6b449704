"""`python3 -m pyrunc`: the command line."""

from pyrunc.cli.main import main

raise SystemExit(main())
