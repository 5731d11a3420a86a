"""What cron makes of fields, variables and commands; tests/integration/test_import_cron.py asks the real one."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronkeeper.domain.instants import to_ms
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper_cli import vixie


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("1#2 * * * *", "1 * * * *"),
        ("1.5 * * * *", "1 * * * *"),
        ("*foo * * * *", "* * * * *"),
        ("5-10-20 * * * *", "5-10 * * * *"),
        ("*/5/2 * * * *", "*/5 * * * *"),
        ("*/99 3 * * *", "0 3 * * *"),
        ("0 0 * * 1,7", "0 0 * * 0,1"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * jan,MAR mon-fri", "0 0 * 1,3 1-5"),
        ("@hourly", "0 * * * *"),
        ("0~59 * * * *", "0 * * * *"),
        ("4294967296 * * * *", "0 * * * *"),
        ("\t5\t\t4 * *  *", "5 4 * * *"),
    ],
)
def test_cron_drops_garbage_and_wraps_sunday(said: str, meant: str) -> None:
    assert vixie.read(said).text == meant


@pytest.mark.parametrize(
    ("line", "variable"),
    [
        ("A=b", ("A", "b")),
        (" A = b c \t\r", ("A", "b c")),
        ("A=' b c '  ", ("A", " b c")),
        ('"A b"="c"', ("A b", "c")),
        ('A=b "c"', ("A", 'b "c"')),
        ("A=b=c#d", ("A", "b=c#d")),
        ('A"B=c', ('A"B', "c")),
        ("A=''", ("A", "")),
        ("=b", ("", "b")),
        ("A=" + "x" * 1500, ("A", "x" * 996)),
        ("A=", None),
        ("A = \t", None),
        ('A="b" c', None),
        ('A="b', None),
        ('"x=y"=z', None),
        ("a b=c", None),
        ("0 5 * * * A=b c", None),
        ("@daily A=b c", None),
    ],
)
def test_a_variable_is_what_cron_makes_of_it(line: str, variable: tuple[str, str] | None) -> None:
    assert vixie.variable(line) == variable


@pytest.mark.parametrize(
    ("said", "command", "given"),
    [
        (r"a\%b", "a%b", ""),
        (r"grep '\\.txt$'", r"grep '\.txt$'", ""),
        (r"a\\%b", "a\\", "b\n"),
        (r"a\\\%b", r"a\%b", ""),
        ("a%", "a", ""),
        ("a%%", "a", "\n"),
        ("a %  b %c%", "a ", "  b \nc\n"),
        (r"a%b\\%c\d", "a", "b\\%c\\d\n"),
        ("a\\", "a\\", ""),
    ],
)
def test_backslashes_and_percent_signs_are_what_cron_makes_of_them(said: str, command: str, given: str) -> None:
    assert vixie.split_input(said) == (command, given)


@given(st.text(alphabet="\\\\%a ", max_size=12))
def test_a_command_survives_the_way_into_a_crontab_and_back(command: str) -> None:
    assert vixie.split_input(vixie.as_command(command)) == (command, "")


@pytest.mark.parametrize(
    "said", ["L * * * *", "? * * * *", "1/20 * * * *", "1,,2 * * * *", "0 24 * * *", "* * * *", "0\u00a00 * * *"]
)
def test_what_cron_refuses_is_refused(said: str) -> None:
    with pytest.raises(vixie.VixieError):
        vixie.read(said)


_ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "Asia/Kathmandu")


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    span = st.tuples(value, value).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.integers(2, (high - low) // 2).map(lambda number: f"*/{number}")
    return st.one_of(st.just("*"), value.map(str), st.lists(value, min_size=2, max_size=3).map(_comma), span, step)


def _comma(values: list[int]) -> str:
    return ",".join(map(str, values))


@given(
    fields=st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 6)),
    zone=st.sampled_from(_ZONES),
    start_s=st.integers(1_560_000_000, 1_860_000_000),
)
@settings(max_examples=60, deadline=None)
def test_our_fires_are_those_of_cron(fields: tuple[str, ...], zone: str, start_s: int) -> None:
    start = datetime.datetime.fromtimestamp(start_s, datetime.UTC)
    text = " ".join(fields)
    theirs = [to_ms(instant) for instant in vixie.read(text).fires(start, ZoneInfo(zone), 200)]
    ours = parse_schedule(text, zone).fire_times(to_ms(start), theirs[-1] if theirs else to_ms(start), limit=400)
    assert ours == theirs
