"""Where the `pyrunc` command (csrc/command/) enters Python: `python3 -I -S .../pyrunc/boot.py [WORD VALUE]... -- ARGV`.

Python compiles a file that it runs anew each time, so the work is in startup/entry.py.
"""

import sys

# After the standard library, where site would put it.
sys.path.append(__file__.rsplit("/", 2)[0])

from pyrunc.startup.entry import main

main()
