"""What `bench/run` makes of what it has measured; measuring itself needs servers and minutes."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.kit.figures import Figure, Options, exponent, number, percentile, ratios
from bench.kit.main import PARTS, parse, taken
from bench.kit.race import Field, expression
from bench.kit.report import DOCUMENT, block, write
from bench.memory import is_runner
from cronkeeper.domain.schedule import parse_schedule

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([7.0], 0.5) == 7


@pytest.mark.parametrize(("power", "found"), [(0, 0.0), (1, 1.0), (2, 2.0)])
def test_the_exponent_of_a_power_is_that_power(power: int, found: float) -> None:
    sizes = (1_000, 10_000, 100_000)
    assert exponent(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(found)


def test_a_ratio_is_that_of_two_neighbours() -> None:
    assert ratios("x", [1.0, 8.0], [2.0, 4.0], 1.5).values == (0.5, 2.0)


def test_a_goal_is_compared_with_the_median() -> None:
    assert Figure("x", "s", (1.0, 2.0, 9.0), 2.0).verdict == "yes"
    assert Figure("x", "s", (1.0, 3.0, 9.0), 2.0).verdict == "no"
    assert Figure("x", "", (1.0, 3.0, 9.0), 2.0, at_least=True).verdict == "yes"
    assert Figure("x", "s", (1.0,)).verdict == ""


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (0.0123456, "0.0123"), (1.5, "1.50"), (42.25, "42.2"), (12345.6, "12,346")]
)
def test_numbers_are_shown_with_three_digits_that_say_something(value: float, shown: str) -> None:
    assert number(value) == shown


def test_every_part_is_a_module_with_its_definition_and_a_place_in_the_document() -> None:
    text = DOCUMENT.read_text()
    for part in PARTS:
        tree = ast.parse((BENCH / f"{part}.py").read_text())
        assert len(ast.get_docstring(tree) or "") > 200, part
        assert text.count(f"<!-- measured: {part} -->") == text.count(f"<!-- end of {part} -->") == 1


def test_a_part_replaces_its_own_section_and_no_other(tmp_path: Path) -> None:
    document = tmp_path / "measurements.md"
    document.write_text("a\n<!-- measured: lag -->\nold\n<!-- end of lag -->\nb\n")
    text = block("lag", "How late.", [Figure("late", "s", (1.0, 2.0))], Options(quick=True, rounds=2), (3.0, 4.0))
    write("lag", text, document)
    write("lag", text, document)
    written = document.read_text()
    assert written.startswith("a\n<!-- measured: lag -->\n### lag\n") and written.endswith("<!-- end of lag -->\nb\n")
    assert "| late | 1.00 / 1.50 / 2.00 s | 2 |" in written
    assert "load average of 3.0 before and 4.0 after" in written and "Quick" in written
    with pytest.raises(SystemExit, match="no marks for cost"):
        write("cost", text, document)


def test_what_was_measured_before_a_part_failed_is_kept_and_told(tmp_path: Path) -> None:
    def run() -> Iterator[Figure]:
        yield Figure("at 1,000", "MiB", (1.0,))
        yield Figure("at 10,000", "MiB", (2.0,))
        raise TimeoutError("at 100,000")

    figures, failure = taken(run())
    assert [figure.what for figure in figures] == ["at 1,000", "at 10,000"]
    assert isinstance(failure, TimeoutError)
    text = block("memory", "How large.", figures, Options(), (0.0, 0.0), failure=failure)
    assert "| at 10,000 | 2.00 / 2.00 / 2.00 MiB |" in text
    assert text.endswith('**It failed after "at 10,000": TimeoutError.**\n')
    assert taken(figures) == (figures, None)
    assert "failed" not in block("memory", "How large.", figures, Options(), (0.0, 0.0))


def test_the_shell_that_keeps_the_runner_is_not_the_runner() -> None:
    program = b"/opt/venv/bin/python3.11"
    assert is_runner([program, b"-ISs", b"/opt/cronkeeper_worker/runner_main.py", b"/var/lib/w1"])
    assert is_runner([program, b"-m", b"cronkeeper_worker.runner_main"])
    assert not is_runner([b"/bin/sh", b"-c", b"python3 -ISs runner_main.py"])
    assert not is_runner([program, b"-m", b"cronkeeper_worker"])
    assert not is_runner([b""])


def test_each_of_a_thousand_jobs_may_have_an_expression_of_its_own_that_fires_in_the_same_minutes() -> None:
    texts = [expression(Field(1_000, distinct=True), number) for number in range(1_000)]
    assert len(set(texts)) == 1_000
    one, another = (parse_schedule(text, "UTC", seed="x") for text in (texts[0], texts[999]))
    now_ms = time.time_ns() // 1_000_000
    assert one.next_fire(now_ms) == another.next_fire(now_ms)
    assert re.fullmatch(r"1-59/2 \* \* [0-9,]+ \*", texts[1])


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["lagg"])
    assert "there is no part lagg" in capsys.readouterr().err
    assert parse(["lag", "--sizes", "100,10"]).sizes == (10, 100)
