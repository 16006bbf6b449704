"""PURE: a run as a page of Markdown (RESULTS.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expected import OURS, differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from expected import Expected
    from tap import Verdict

_HEAD = """# Results of the OCI runtime-tools suite

Written by `./dev conformance`, never by hand. The suite is {module} {version}, run in a
view of the host with nothing but cgroup v1 controllers: it knows no other. A program passes when it ends with status 0,
makes at least one assertion, and none fails; the numbers are its assertions. `pyrunc strict` is pyrunc with
`PYRUNC_STRICT=1`: the letter of the specification before the habits of engines (csrc/container/container.h says where).

"""

_OTHERS = """
## Any other binary

    ./dev conformance --runtime NAME=PATH
    ./dev conformance --runtime NAME=PATH kill state     # only some programs

It is called as runc is: `PATH --root DIRECTORY create --bundle DIRECTORY ID`, and so on. That table goes to standard
output and to `build/conformance/RESULTS.md`; what every program said lies beside it in `tap`.
"""


def _cell(verdict: Verdict) -> str:
    if verdict.passed:
        return str(verdict.made)
    return f"**fails** {verdict.held} of {verdict.made}" if verdict.made else "**fails**"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _programs(verdicts: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
    return list(next(iter(verdicts.values())))


def table(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """One row for each program, one column for each runtime, totals at the end."""
    columns = list(verdicts)
    text = _row(["test", *columns]) + _row(["---"] + ["---"] * len(columns))
    for program in _programs(verdicts):
        text += _row([program, *(_cell(verdicts[column][program]) for column in columns)])
    passed, held = ["**programs that pass**"], ["**assertions that hold**"]
    for column in columns:
        found = list(verdicts[column].values())
        passed.append(f"**{sum(one.passed for one in found)} of {len(found)}**")
        held.append(f"**{sum(one.held for one in found)} of {sum(one.made for one in found)}**")
    return text + _row(passed) + _row(held)


def _known(verdicts: Mapping[str, Mapping[str, Verdict]], expected: Expected) -> str:
    """Why programs fail in our columns, in the order of expected.toml."""
    text = ""
    for entry in expected.known:
        failing = [name for name in OURS if name in entry.runtimes and name in verdicts]
        failing = [name for name in failing if entry.program in verdicts[name]]
        failing = [name for name in failing if not verdicts[name][entry.program].passed]
        if not failing:
            continue
        where = "" if len(failing) == len(OURS) else f" ({failing[0]} only)"
        text += f"* `{entry.program}`{where}: {entry.reason} See {entry.see}.\n"
    return f"\n## What fails in pyrunc, and why\n\n{text}" if text else ""


def _differences(verdicts: Mapping[str, Mapping[str, Verdict]], expected: Expected) -> str:
    lines = [
        f"* {column}: `{program}` {words}\n" for column, program, words in differences(verdicts, expected)
    ]
    return f"\n## NOT EXPECTED\n\n{''.join(lines)}" if lines else ""


def _left(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """What stayed after `delete`, with the runtimes of which it did."""
    text = ""
    for program in _programs(verdicts):
        by_words: dict[str, list[str]] = {}
        for column, found in verdicts.items():
            if found[program].left:
                by_words.setdefault(", ".join(found[program].left), []).append(column)
        text += "".join(
            f"* `{program}` ({', '.join(names)}): {words}\n" for words, names in by_words.items()
        )
    if not text:
        return ""
    return f"\n## What stays on the host\n\nAfter every container was deleted; the suite does not look.\n\n{text}"


def whole(
    verdicts: Mapping[str, Mapping[str, Verdict]],
    versions: Mapping[str, str],
    expected: Expected,
    suite: tuple[str, str],
) -> str:
    """RESULTS.md. `suite`: module and version."""
    text = _HEAD.format(module=suite[0], version=suite[1])
    text += "".join(f"* {name}: {versions[name]}\n" for name in verdicts) + "\n"
    parts = [
        table(verdicts),
        _differences(verdicts, expected),
        _known(verdicts, expected),
        _left(verdicts),
        _OTHERS,
    ]
    return text + "".join(parts)
