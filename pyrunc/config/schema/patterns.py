"""The schema's patterns as plain string checks: the generated validator must not load `re`.

generate.py copies these functions into check.py; a test holds each equal to its regular expression.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def digits(text: str) -> bool:
    """One or more of 0-9; str.isdigit() alone also takes other scripts' digits."""
    return text.isascii() and text.isdigit()


def cpu_list(text: str) -> bool:
    """Numbers and ranges separated by commas, blanks around them; or nothing."""
    if not text.strip(" "):
        return True
    for part in text.split(","):
        first, dash, last = part.strip(" ").partition("-")
        if not digits(first) or (dash and not digits(last)):
            return False
    return True


def words(text: str, numbers_are_plain: bool) -> bool:
    """SemVer's dot-separated words behind - or +: letters, digits, hyphens, in a pre-release no number like 01."""
    for word in text.split("."):
        if not word or not word.isascii() or not word.replace("-", "a").isalnum():
            return False
        if numbers_are_plain and word[0] == "0" and len(word) > 1 and digits(word):
            return False
    return True


def semver(text: str) -> bool:
    """A version as SemVer 2.0.0 has it."""
    text, plus, build = text.partition("+")
    core, dash, prerelease = text.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or (dash and not words(prerelease, True)) or (plus and not words(build, False)):
        return False
    return all(digits(number) and (number[0] != "0" or number == "0") for number in numbers)


def page_size(text: str) -> bool:
    """A positive number and KB, MB or GB."""
    return text[-2:] in ("KB", "MB", "GB") and digits(text[:-2]) and text[0] != "0"


def mem_bw_schema(text: str) -> bool:
    """One line that starts with MB:."""
    return text.startswith("MB:") and "\n" not in text


def access(text: str) -> bool:
    """Nothing but the letters r, w and m."""
    return not text.strip("rwm")


PATTERNS: dict[str, Callable[[str], bool]] = {
    r"^ *([0-9]+(-[0-9]+)? *(, *[0-9]+(-[0-9]+)? *)*)?$": cpu_list,
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$": semver,
    r"^[1-9][0-9]*[KMG]B$": page_size,
    r"^MB:[^\n]*$": mem_bw_schema,
    r"^[rwm]*$": access,
}
