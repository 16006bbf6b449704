"""Where the `pyrunc` command (csrc/command/) enters Python: `python3 -I -S .../pyrunc/boot.py [WORD VALUE]... -- ARGV`.

Run as a file, imported by nobody. Python compiles such a file anew each time, so that the work is in startup/entry.py.
"""

import sys

# Behind the standard library, where site would put it.
sys.path.append(__file__.rsplit("/", 2)[0])

from pyrunc.startup.entry import main

main()
