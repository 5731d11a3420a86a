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

_NUMBERS = st.one_of(st.integers(0, 60).map(str), st.sampled_from(["007", "99", "31", "4294967297", "-1", "1e3"]))
_NAMES = st.sampled_from(
    ["sun", "MON", "Tue", "jan", "FEB", "dec", "L", "W", "H", "LW", "15W", "5L", "1#2", "5#6", "?"]
)
_ATOMS = st.one_of(_NUMBERS, _NAMES, st.sampled_from(["*", "H(0-29)", "L-3", "mon-fri", "5-1", ""]))
_RANGES = st.one_of(_ATOMS, st.tuples(_ATOMS, _ATOMS).map("-".join))
_TERMS = st.one_of(_RANGES, st.tuples(_RANGES, _NUMBERS).map("/".join))
_FIELDS = st.lists(_TERMS, min_size=1, max_size=4).map(",".join)
_SPACES = st.sampled_from([" ", " ", " ", "  ", "\t"])
_NAMED = st.one_of(
    st.sampled_from(["@hourly", "@daily", "@Weekly", "@reboot", "@every 90s", "@every 1h30m", "@every", "@at", "@"]),
    st.sampled_from(["@at 2027-01-01T00:00:00Z", "@at 2027-02-30T00:00:00Z", "@every 1d0s", "@every 99999999s"]),
)
_CRON = st.builds(lambda sep, fields: sep.join(fields), _SPACES, st.lists(_FIELDS, min_size=4, max_size=7))
_SOUND = st.sampled_from(
    ["* * * * *", "*/5 9-17 * * mon-fri", "0 0 29 2 *", "0 0 L * *", "H H * * *", "0 12 15W * *", "30 0 1 1 * 5#2"]
)
_WHOLE = st.one_of(_CRON, _NAMED, _SOUND)
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
        assert any(part.kind is Kind.AT for part in schedule.single), f"{text!r} never fires, and was accepted"
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
