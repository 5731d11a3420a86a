"""Texts that are nearly schedules, and what must hold of whatever becomes of them."""

from __future__ import annotations

import itertools
import time

from hypothesis import strategies as st

from cronkeeper.domain.cronfields import CronFields, ScheduleError, parse_fields
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.schedule import Kind, Schedule, parse_schedule

#: For any one text, on the slowest machine: a search without an end would be far beyond it.
MOST_CPU_S = 5.0
NOW_MS = parse_rfc3339("2026-11-21T00:00:30Z")

#: Terms that a field may hold: second, minute, hour, day, month, weekday.
_SOUND_TERMS = (
    ("*", "0", "59", "*/15", "10-50/20", "H", "7"),
    ("*", "0", "5", "59", "007", "*/5", "*/59", "0-59", "3-40/9", "30-30", "H", "H/15", "H(0-29)"),
    ("*", "0", "23", "2", "*/6", "9-17", "0-23/3", "22-23", "H", "H(9-16)"),
    ("*", "*", "1", "13", "29", "31", "*/2", "1-7", "10-20/5", "L", "L-3", "LW", "15W", "31W", "H"),
    ("*", "*", "1", "2", "12", "jan", "FEB", "6-8", "*/3", "jun-aug", "1-12/5", "H"),
    ("*", "*", "0", "7", "mon-fri", "SUN", "1-5/2", "*/3", "5-7", "1#2", "fri#5", "5L", "monL", "H"),
)
_BAD_TERMS = (
    *("", "?", "60", "99", "-1", "1e3", "4294967297", "5-1", "1/20", "*/0", "*/99", "*-5", "mon-sun", "5#6", "32W"),
    *("h(", "H(5-1)", "H()", "L-31", "W", "#", "1-", "-", "/", "*/", "**", "foo", "1.5", "*/5/2", "5-10-20"),
)


def _field(sound: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Mostly one sound term, at times a bad one, at times a list of either."""
    term = st.sampled_from(sound * (4 * len(_BAD_TERMS) // len(sound) + 1) + _BAD_TERMS)
    return st.one_of(term, term, term, st.lists(term, min_size=2, max_size=4).map(",".join))


_FIELDS = [_field(sound) for sound in _SOUND_TERMS]
_TERMS = st.sampled_from([*itertools.chain(*_SOUND_TERMS), *_BAD_TERMS])
_NAMED = st.one_of(
    st.sampled_from(["@hourly", "@daily", "@Weekly", "@reboot", "@every 90s", "@every 1h30m", "@every", "@at", "@"]),
    st.sampled_from(["@at 2027-01-01T00:00:00Z", "@at 2027-02-30T00:00:00Z", "@every 1d0s", "@every 99999999s"]),
)
_CRON = st.one_of(
    st.tuples(*_FIELDS[1:]).map(" ".join),
    st.tuples(*_FIELDS[1:]).map(" ".join),
    st.tuples(*_FIELDS).map("  ".join),
    st.tuples(*_FIELDS[2:]).map("\t".join),
)
_KNOWN = st.sampled_from(
    [
        *(
            "* * * * *",
            "*/5 9-17 * * mon-fri",
            "0 0 29 2 *",
            "0 0 L * *",
            "H H * * *",
            "0 12 15W * *",
            "30 0 1 1 * 5#2",
        ),
        *("0 0 31 2 *", "0 0 30 feb *", "0 0 31 4,6 *", "0 0 30-31 2 */2", "0 0 31W 2 *"),
    ]
)
_WHOLE = st.one_of(_CRON, _NAMED, _KNOWN)
_SEVERAL = st.one_of(_WHOLE, _WHOLE, st.lists(_WHOLE, min_size=2, max_size=20).map("; ".join))
_BYTES = st.binary(min_size=1, max_size=3).map(lambda noise: noise.decode("latin-1"))


@st.composite
def _noisy(draw: st.DrawFn) -> str:
    """A text of the grammar with some characters replaced, added or lost."""
    text: str = draw(_SEVERAL)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        lost = draw(st.integers(0, 2))
        text = text[:at] + draw(st.one_of(_BYTES, st.just(""), st.characters(codec="utf-8"))) + text[at + lost :]
    return text


#: From sound schedules to plain noise, and some of absurd length.
TEXTS = st.one_of(
    _SEVERAL,
    _noisy(),
    _noisy(),
    st.binary(max_size=60).map(lambda noise: noise.decode("latin-1")),
    st.tuples(_TERMS, st.integers(1, 3000)).map(lambda pair: ",".join([pair[0]] * pair[1]) + " * * * *"),
)


def check(text: str) -> bool:
    """Read one text; return whether it was accepted. Raises AssertionError for a broken promise, or what the parser
    raised beyond its own error."""
    started_s = time.process_time()
    accepted = _read(text)
    spent_s = time.process_time() - started_s
    assert spent_s < MOST_CPU_S, f"{text[:300]!r} took {spent_s:.1f} s"
    return accepted


def _read(text: str) -> bool:
    try:
        schedule = parse_schedule(text, seed="backup-1")
    except ScheduleError as exc:
        refusal = exc
    else:
        _hold_to_it(text, schedule)
        return True
    assert refusal.message, text
    # What is missing would begin one space behind the end.
    assert 0 <= refusal.position <= len(text) + 1, (text, refusal.position)
    return False


def _hold_to_it(text: str, schedule: Schedule) -> None:
    assert parse_schedule(text, seed="backup-1") == schedule
    assert schedule.words()
    first = schedule.next_fire(NOW_MS)
    if first is None:
        moments = (Kind.AT, Kind.REBOOT)
        assert any(part.kind in moments for part in schedule.single), f"{text!r} never fires, and was accepted"
    else:
        assert first > NOW_MS
    fires = schedule.fire_times(NOW_MS, NOW_MS + 10 * 86_400_000, limit=50)
    assert all(before < after for before, after in itertools.pairwise(fires)), text
    for part in schedule.single:
        if part.fields is not None:
            # What we say that we read, read again, is the same.
            again = parse_fields(part.fields.text)
            assert _meaning(again) == _meaning(part.fields), text


def _meaning(fields: CronFields) -> list[object]:
    every = (fields.second, fields.minute, fields.hour, fields.day, fields.month, fields.weekday)
    return [field and (field.values, field.star, field.rules) for field in every]
