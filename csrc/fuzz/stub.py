"""Join objects into one whose calls of the world outside go to csrc/fuzz/kernel.c: open becomes fuzz_open.

    stub.py NM LD OBJCOPY OUTPUT OBJECT...

What only computes keeps its name, and what a sanitizer put in. Variables move to sections of their own, so that the
fuzzer can put them back between two runs. A call that kernel.c does not have shows as "undefined reference to
fuzz_...": it is added there.
"""

from __future__ import annotations

import re
import subprocess
import sys

# Functions that compute, whatever they are given.
PURE = frozenset(
    re.findall(
        r"\w+",
        """
        memchr memcmp memcpy memmem memmove memset memrchr bcmp stpcpy strcat strchr strchrnul
        strcmp strcpy strcspn strlen strncat strncmp strncpy strnlen strpbrk strrchr
        strsep strspn strstr strtok_r strtol strtoll strtoul strtoull strcasecmp strncasecmp
        snprintf sprintf vsnprintf sscanf __isoc99_sscanf __ctype_b_loc __ctype_tolower_loc
        __ctype_toupper_loc tolower toupper isalnum isdigit isspace qsort bsearch abort sigemptyset
        sigfillset sigaddset sigdelset sigismember __errno_location strerror strerrordesc_np sysconf
        gnu_dev_major gnu_dev_makedev gnu_dev_minor localtime_r gmtime_r strftime getpagesize
        __stack_chk_fail _GLOBAL_OFFSET_TABLE_
        """,
    )
)
SANITIZER = re.compile(r"__(asan|ubsan|sanitizer|sancov|start|stop|lsan)_")


def undefined(nm: str, path: str) -> set[str]:
    """The symbols that an object wants from elsewhere."""
    listing = subprocess.run([nm, "-u", path], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in listing.splitlines() if line.strip()}


def main(nm: str, ld: str, objcopy: str, output: str, *objects: str) -> None:
    """Write the object OUTPUT."""
    joined, names = f"{output}.joined", f"{output}.names"
    subprocess.run([ld, "-r", "-o", joined, *objects], check=True)
    outside = sorted(
        name for name in undefined(nm, joined) if name not in PURE and not SANITIZER.match(name)
    )
    with open(names, "w", encoding="ascii") as stream:
        # open64 is open: glibc has a second name for offsets of 64 bits
        stream.writelines(f"{name} fuzz_{name.removesuffix('64')}\n" for name in outside)
    sections = [
        f"--rename-section={old}={new},alloc,load,data,contents"
        for old, new in ((".bss", "fuzzed_bss"), (".data", "fuzzed_data"))
    ]
    subprocess.run([objcopy, f"--redefine-syms={names}", *sections, joined, output], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
