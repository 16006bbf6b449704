"""docs/ATTACKS.md is what its parts say, and what it names is there."""

from __future__ import annotations

import os
import re

import support
from security import fuzz, page


def test_the_page_is_current() -> None:
    """./dev fuzz --page writes it."""
    with open(page.PAGE, encoding="utf-8") as stream:
        assert stream.read() == page.text(fuzz.fuzzers())


def test_every_test_exists() -> None:
    """A test that is renamed is renamed in attacks.toml; each says what it does."""
    missing = [test.name for attack in page.attacks() for test in attack.tests if test.docstring() is None]
    assert missing == []


def test_every_number_that_tests_name() -> None:
    """A CVE that a test's words speak of has a row."""
    rows = {name for attack in page.attacks() for name in attack.names}
    named: set[str] = set()
    for directory, _, names in os.walk(os.path.join(support.PROJECT, "tests")):
        for name in names:
            if name.startswith("test_") and name.endswith(".py"):
                with open(os.path.join(directory, name), encoding="utf-8") as stream:
                    named |= set(re.findall(r"CVE-\d+-\d+", stream.read()))
    assert named - rows == set()


def test_security_policy() -> None:
    """SECURITY.md and the README lead to each other and to the page."""
    for name, link in (
        ("README.md", "](SECURITY.md)"),
        ("README.md", "](docs/ATTACKS.md)"),
        ("SECURITY.md", "](docs/ATTACKS.md)"),
    ):
        with open(os.path.join(support.PROJECT, name), encoding="utf-8") as stream:
            assert link in stream.read(), (name, link)
