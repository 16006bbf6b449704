"""Write the C source of the cffi module: `build.py HEADER... OUTPUT`.

The declarations come from the headers themselves, so that there is one place for each. API mode and Py_LIMITED_API
(cffi's default for an abi3 module) make one binary for all Python versions.
"""

from __future__ import annotations

import os
import sys

import cffi


def declarations(text: str) -> str:
    """The header without preprocessor lines (a continued one whole), as cffi's cdef wants it."""
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        directive = skipping or line.lstrip().startswith("#")
        skipping = directive and line.endswith("\\")
        if not directive:
            kept.append(line)
    return "\n".join(kept)


def main(headers: list[str], output: str) -> None:
    builder = cffi.FFI()
    for header in headers:
        with open(header, encoding="utf-8") as stream:
            builder.cdef(declarations(stream.read()))
    includes = "".join(f'#include "{os.path.basename(header)}"\n' for header in headers)
    builder.set_source("pyrunc._shim", includes, py_limited_api=True)
    builder.emit_c_code(output)


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
