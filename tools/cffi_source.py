"""Write the C source of the cffi module: `cffi_source.py HEADER... OUTPUT`.

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
    # By folder and name, as all includes of another folder.
    names = ("/".join(header.split(os.sep)[-2:]) for header in headers)
    includes = "".join(f'#include "{name}"\n' for name in names)
    builder.set_source("pyrunc._shim", includes, py_limited_api=True)
    builder.emit_c_code(output)


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
