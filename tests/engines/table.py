"""The rows that `./dev test --engines` left in build/engines, as the table RESULTS.md: ./dev engines.

Ends with status 1 when a row shows a difference that nobody has explained.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
ROWS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build/engines")
DOCUMENT = os.path.join(HERE, "RESULTS.md")
PROGRAMS = ("containerd", "podman", "buildah", "dockerd", "conmon", "runc", "crun")
WIDTH = 160
HEAD = """# What a user of an engine sees with runc and with pyrunc

Written by `./dev engines`, which runs the tests of `tests/engines` under each engine with either runtime. A row is a
scenario; what was compared (exit codes, output, messages, state) is shown shortened, and of a row with differences only
these, of longer texts the lines. Ids, paths and times are replaced by words. A difference must be explained in its
test, or the test fails.
"""

Cell = dict[str, object]


def versions() -> str:
    """The first line of what each program calls its version."""
    found: list[str] = []
    for name in PROGRAMS:
        if path := shutil.which(name):
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, check=False, timeout=60
            )
            found.append((done.stdout.splitlines() or [name])[0].strip())
    return "; ".join(found)


def cell(values: Cell, other: Cell) -> str:
    """Names and values in one table cell; of a text of several lines, those that `other` does not have."""
    parts: list[str] = []
    for name, value in values.items():
        compared = other.get(name)
        if isinstance(value, str) and isinstance(compared, str) and value != compared:
            theirs = compared.splitlines()
            value = "\n".join(line for line in value.splitlines() if line not in theirs)  # noqa: PLW2901
        parts.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    text = ", ".join(parts)
    text = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    return "`" + text.replace("`", "'").replace("|", "¦") + "`" if text else ""


def improvements(rows: list[dict[str, object]]) -> dict[str, str]:
    """The number of each reason in `rows`, by the reason."""
    found = [reason for row in rows for reason in reasons(row)]
    return {reason: str(number) for number, reason in enumerate(dict.fromkeys(found), 1)}


def reasons(row: dict[str, object]) -> list[str]:
    """Why what differs in this row is better."""
    found = row["improvements"]
    assert isinstance(found, list)
    return [str(reason) for reason in found]


def overview(engines: dict[str, dict[str, dict[str, object]]], words: dict[str, str]) -> list[str]:
    """How many scenarios of each engine are the same, and what the improvements are."""
    lines = ["| engine | scenarios | the same | improved |", "|---|---|---|---|"]
    for engine, found in engines.items():
        same = sum(row["verdict"] == "same" for row in found.values())
        lines.append(f"| {engine} | {len(found)} | {same} | {len(found) - same} |")
    rows = [row for found in engines.values() for row in found.values()]
    same = sum(row["verdict"] == "same" for row in rows)
    lines += [f"| all | {len(rows)} | {same} | {len(rows) - same} |", ""]
    lines += ["| improvement | what is better | scenarios |", "|---|---|---|"]
    for reason, word in words.items():
        lines.append(f"| {word} | {reason} | {sum(reason in reasons(row) for row in rows)} |")
    return lines


def render(engines: dict[str, dict[str, dict[str, object]]]) -> str:
    """The document."""
    words = improvements([row for found in engines.values() for row in found.values()])
    lines = [HEAD, f"Versions: {versions()}.", "", *overview(engines, words)]
    for engine, found in engines.items():
        lines += ["", f"## {engine}", "", "| scenario | runc | pyrunc | verdict |", "|---|---|---|---|"]
        for row in found.values():
            base, ours, verdict = row["runc"], row["pyrunc"], str(row["verdict"])
            assert isinstance(base, dict) and isinstance(ours, dict)
            second = "the same" if base == ours else cell(ours, base)
            if verdict == "improved":
                verdict = f"improvement {', '.join(words[reason] for reason in reasons(row))}"
            lines.append(f"| {row['title']} | {cell(base, ours)} | {second} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Read, write; the exit status."""
    engines: dict[str, dict[str, dict[str, object]]] = {}
    for name in sorted(os.listdir(ROWS)):
        if name.endswith(".json"):
            with open(os.path.join(ROWS, name), encoding="utf-8") as stream:
                engines[name.removesuffix(".json")] = json.load(stream)
    with open(DOCUMENT, "w", encoding="utf-8") as stream:
        stream.write(render(engines))
    bad = [
        f"{row['title']}"
        for found in engines.values()
        for row in found.values()
        if row["verdict"] == "not explained"
    ]
    for title in bad:
        print(f"engines: not what the user sees with runc: {title}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
