"""What the checker reads, writes, prints and draws; and its matching."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.checker import check
from tests.faults.checker.__main__ import main
from tests.faults.checker.history import FaultKind, HistoryError, OpKind, read_history, write_history
from tests.faults.checker.matching import match
from tests.faults.checker.policy import EXCUSES
from tests.faults.checker.svg import draw
from tests.unit.checker_worlds import JobPlan, World, make_world, without


def world() -> World:
    return make_world([JobPlan("job", shards=2), JobPlan("other", change=OpKind.PAUSE)], FaultKind.NODE_KILLED, 3)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = world().history()
    write_history(history, tmp_path)
    assert read_history(tmp_path) == history


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("faults.jsonl", '{"kind": "earthquake"}', "faults.jsonl:1: without"),
        ("truth.jsonl", '{"edge": "middle"}', "truth.jsonl:1: 'middle' is neither"),
        ("clocks.jsonl", '{"node": "w1", "wall_s": "1", "boot_s": 1, "reference_s": 1}', "wall_s: '1' is not"),
        ("clocks.jsonl", '{"node": "w1", "wall_s": 1, "boot_s": 1, "reference_s": 1, "x": 1}', "unknown: x"),
        ("missed.jsonl", "{", "missed.jsonl:1"),
    ],
)
def test_what_does_not_belong_into_a_history_is_refused(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    write_history(world().history(), tmp_path)
    (tmp_path / file).write_text(line + "\n")
    with pytest.raises(HistoryError, match=complaint):
        read_history(tmp_path)


def test_only_the_events_may_be_missing(tmp_path: Path) -> None:
    write_history(world().history(), tmp_path)
    (tmp_path / "events.jsonl").unlink()
    read_history(tmp_path)
    (tmp_path / "missed.jsonl").unlink()
    with pytest.raises(HistoryError, match=r"missed\.jsonl"):
        read_history(tmp_path)


def test_rows_may_show_more_than_is_looked_at(tmp_path: Path) -> None:
    history = world().history()
    write_history(history, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps({**row, "output_tail": "x"}) + "\n" for row in rows))
    assert read_history(tmp_path) == history


def test_exit_status_and_witnesses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = world()
    write_history(made.history(), tmp_path)
    assert main([str(tmp_path)]) == 0
    assert "checker: seed 1: ok" in capsys.readouterr().out
    write_history(without(made.history(), made.clean[0], row=False), tmp_path)
    assert main([str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "VIOLATED phantom: 1 times" in text
    assert f"ledger Row(id='{made.clean[0].run}'" in text
    assert main([]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2


def test_figures_of_a_report() -> None:
    made = world()
    report = check(made.history())
    assert report.counts["on_time"] + report.counts["late"] == report.overall.count == len(made.starts)
    assert report.inside.count + report.outside.count == report.overall.count
    assert report.counts["late"] == len(made.hurt) == report.excused
    assert report.overall.max_s == report.inside.max_s > report.outside.max_s
    (recovery,) = report.recoveries
    # The fault is healed at 78 s; what w2 has is due at 90 s.
    assert recovery.first_on_time_s == 12.0


def test_the_picture_shows_each_task_run_and_fault() -> None:
    made = world()
    root = ElementTree.fromstring(draw(made.history()))
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(start.run in " ".join(titles) for start in made.starts) == len(made.starts)
    assert "node_killed w2" in titles
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["node_killed w2", "job/0", "job/1", "other/0"]


def test_every_kind_of_fault_has_an_entry_in_the_table() -> None:
    assert set(EXCUSES) == set(FaultKind)


spans = st.tuples(st.integers(0, 12), st.integers(0, 4)).map(lambda pair: (float(pair[0]), float(sum(pair))))


@given(st.lists(spans, max_size=5), st.lists(st.integers(0, 16).map(float), max_size=5))
def test_a_matching_is_a_greatest_one(windows: list[tuple[float, float]], points: list[float]) -> None:
    found = match(windows, points)
    assert len(set(found.values())) == len(found)
    assert all(windows[window][0] <= points[point] <= windows[window][1] for point, window in found.items())

    def greatest(point: int, taken: frozenset[int]) -> int:
        if point == len(points):
            return 0
        fitting = [i for i, (low, high) in enumerate(windows) if i not in taken and low <= points[point] <= high]
        return max(greatest(point + 1, taken), *(1 + greatest(point + 1, taken | {window}) for window in fitting), 0)

    assert len(found) == greatest(0, frozenset())
