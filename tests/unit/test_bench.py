"""The arithmetic of bench: pairs, spreads, targets, and what counts as busy."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

import chart
import command
import figures
import report
import surroundings

KEY = ("v1", "minimal", "hot", "create")


def two(ours: list[float], theirs: list[float]) -> figures.Figures:
    """Figures of pyrunc and crun for one command."""
    made = figures.Figures()
    made.versions = {"pyrunc": "pyrunc 0", "crun": "crun 1"}
    made.machine = {"processor": "one", "kernel": "6.0", "date": "2026-01-01"}
    for name, values in (("pyrunc", ours), ("crun", theirs)):
        for value in values:
            made.row(*KEY, name).add(ms=value)
    return made


def test_ratios_are_taken_pair_by_pair() -> None:
    """A machine that became ten times slower for a round changes no ratio; the ratio of medians would."""
    assert figures.ratios([1, 10, 3], [2, 20, 6]) == [0.5, 0.5, 0.5]
    assert figures.ratios([1, 1, 30], [2, 20, 3]) == [0.5, 0.05, 10]
    assert figures.ratios([], [1]) == []
    with pytest.raises(ValueError, match="shorter"):
        figures.ratios([1, 2], [1])


def test_spread() -> None:
    """The 10th and the 90th percentile; of one value it is that."""
    assert figures.spread(list(range(101))) == (10, 90)
    assert figures.spread([3]) == (3, 3)
    assert all(math.isnan(value) for value in figures.spread([]))


def test_a_target_is_the_median_of_pairs() -> None:
    """At most the limit holds."""
    table = {"view": "v1", "bundle": "minimal", "regime": "hot", "command": "create", "against": "crun"}
    target = figures.Target({**table, "limit": 0.5, "text": ""})
    assert target.value(two([1, 2, 3], [2, 4, 3])) == 0.5
    assert math.isnan(target.value(two([], [])))
    assert figures.Target({**table, "against": "", "limit": 1, "text": ""}).value(two([1, 5, 9], [])) == 5


def test_every_target_names_something_that_is_measured() -> None:
    """A word that is wrong would be "not measured" for ever."""
    for target in figures.targets():
        view, bundle, regime, name = target.key
        assert view in ("v1", "v2")
        assert bundle == "minimal"
        assert regime in ("hot", "cold", "python", "alive-500")
        assert name in (*command.COMMANDS, "life", "waiting init", "short life")
        assert target.against in ("", "crun", "runc", "alive-5")
        assert target.limit > 0


def test_figures_of_other_runtimes_are_not_mixed() -> None:
    """Joined pieces are of the same programs, or no pieces of one thing."""
    made = two([1], [2])
    made.join(two([3], [4]).document())
    assert made.values(KEY, "pyrunc") == [1, 3]
    other = two([1], [2])
    other.versions["crun"] = "crun 2"
    with pytest.raises(ValueError, match="other runtimes"):
        made.join(other.document())


def test_a_chart_says_what_the_table_says() -> None:
    """Well-formed, a bar for each runtime, labelled with the median."""
    made = two([1, 2, 4], [10, 10, 10])
    root = ElementTree.fromstring(chart.draw(made))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"2.0", "10.0", "create", "cgroup v1", "pyrunc 0", "crun 1"} <= set(texts)
    bars = [
        element
        for element in root.iter("{http://www.w3.org/2000/svg}rect")
        if element.get("class") != "page"
    ]
    ours, theirs = (float(str(bar.get("width"))) for bar in bars[2:])
    assert theirs / ours == pytest.approx(5, rel=0.01)
    assert "| `create` | 2.00 | 10.0 | 0.20 |" in report.summary(made)
    with pytest.raises(ValueError, match="to draw"):
        chart.draw(figures.Figures())


def test_numbers() -> None:
    """Three figures."""
    assert [report.number(value) for value in (0, 0.123, 1.234, 12.34, 123.4, 1234, math.nan)] == [
        *("0", "0.12", "1.23", "12.3", "123", "1234", "-")
    ]


def test_who_else_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processor time but our own and our children's, as a share of what there was."""
    times = {"busy": (100.0, 1000.0), "own": 10.0}
    monkeypatch.setattr(surroundings, "_busy", lambda: times["busy"])
    monkeypatch.setattr(surroundings, "_own", lambda: times["own"])
    watch = surroundings.Watch()
    times.update(busy=(104.0, 1010.0), own=11.0)
    assert watch.others() == pytest.approx(0.3)
    times.update(busy=(101.0, 1010.0), own=11.5)
    assert watch.others() == 0


def test_a_busy_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless somebody wants figures anyway; both is said."""
    monkeypatch.setattr(surroundings.Watch, "others", lambda _: 0.4)
    with pytest.raises(SystemExit, match="too busy"):
        surroundings.check_quiet(anyway=False, seconds=0)
    assert surroundings.check_quiet(anyway=True, seconds=0) == 0.4
    assert "40% of the processors" in capsys.readouterr().err


def test_the_page_has_room_for_the_table(tmp_path: object) -> None:
    """Between its marks, and nowhere else."""
    path = f"{tmp_path}/performance.md"
    report.write(path, f"before\n{report.MARK[0]}\nold\n{report.MARK[1]}\nafter\n")
    report.update_page(two([1], [2]), path)
    with open(path, encoding="utf-8") as stream:
        content = stream.read()
    assert content.startswith("before\n")
    assert content.endswith(f"{report.MARK[1]}\nafter\n")
    assert "old" not in content
    assert "| `create` | 1.00 | 2.00 | 0.50 |" in content
