"""The settings of Sphinx, which ./dev docs runs over the whole repository: pages link to files outside of docs, too."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE = os.path.dirname(os.path.realpath(__file__))

with open(os.path.join(_HERE, "../pyrunc/__init__.py"), encoding="utf-8") as _stream:
    _VERSION = re.search(r'^__version__ = "(.*)"$', _stream.read(), re.MULTILINE)
assert _VERSION is not None

project = "pyrunc"
author = "the authors of pyrunc"
version = release = _VERSION[1]
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/index.rst", "bench/RESULTS.md"]
# A heading has the anchor that a code host gives it.
myst_heading_anchors = 3
# Files of the repository that are no pages are copied; everything else that a link names must be a page.
nitpicky = True
html_theme = "alabaster"
html_theme_options = {
    "description": "an OCI container runtime",
    "fixed_sidebar": True,
    "page_width": "1100px",
}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def _write_commands(_app: Sphinx) -> None:
    """Write the page of all commands, from the option tables."""
    sys.path.insert(0, os.path.join(_HERE, "../tools"))
    import manual

    with open(os.path.join(_HERE, "commands.md"), "w", encoding="utf-8") as stream:
        stream.write(manual.markdown())


def setup(app: Sphinx) -> None:
    """Sphinx calls this before it looks for pages."""
    app.connect("builder-inited", _write_commands)
