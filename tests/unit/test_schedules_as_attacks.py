"""Schedules that somebody writes to keep us busy: each is answered in bounded time, and what never fires is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cronkeeper.ports import Role
from tests.harness.api import JOB, World, fields_of

ALL_DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
NEVER: dict[str, dict[str, Any]] = {
    "a thirtieth of February": {"schedule": "0 0 30 2 *"},
    "a thirty-first of short months": {"schedule": "0 0 31 2,4,6,9,11 *"},
    "sixteen that never fire": {"schedule": "; ".join(["0 0 30 2 *", "0 0 31 4 *"] * 8)},
    "every day excluded": {"calendar": {"exclude_weekdays": ALL_DAYS}},
    "every day excluded, and moved": {"calendar": {"exclude_weekdays": ALL_DAYS, "on_excluded": "next"}},
    "an end before the first fire": {"schedule": "0 0 29 2 *", "ends_at": "2027-01-01T00:00:00Z"},
}
RARE: dict[str, dict[str, Any]] = {
    "a blackout of a thousand years": {"blackouts": [{"from": "2026-01-01T00:00:00Z", "to": "3026-01-01T00:00:00Z"}]},
    "a leap day": {"schedule": "0 0 29 2 *"},
    "sixteen leap days": {"schedule": "; ".join(f"{minute} 0 29 2 *" for minute in range(16))},
    "seconds of a leap day": {"schedule": "59 59 23 29 2 *"},
    "a leap day in a zone with many changes": {"schedule": "30 2 29 2 *", "timezone": "Africa/Casablanca"},
    "a start in seven thousand years": {"starts_at": "8999-01-01T00:00:00Z"},
    "every second": {"schedule": "* * * * * *"},
    "every second, on excluded days": {"schedule": "* * * * * *", "calendar": {"exclude_weekdays": ALL_DAYS[1:]}},
    "a hundred blackouts": {
        "blackouts": [
            {"from": f"2026-{month:02}-{day:02}T00:00:00Z", "to": f"2026-{month:02}-{day:02}T23:59:59Z"}
            for month in range(4, 9)
            for day in range(1, 21)
        ]
    },
    "the longest interval": {"schedule": "@every 366d"},
    "lists as long as they may be": {
        "schedule": f"{','.join(map(str, range(60)))} * {','.join(map(str, range(1, 32)))} * *"
    },
}
#: Of processor time. What walked minute by minute would take a hundred times as long.
LIMIT_S = 3.0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


@pytest.mark.parametrize("fields", NEVER.values(), ids=list(NEVER))
def test_what_can_never_fire_is_refused_and_soon(fields: dict[str, Any], world: World) -> None:
    for method, path in (("POST", "/jobs"), ("POST", "/preview")):
        begun = time.process_time()
        answer = world.call(method, path, json={**JOB, **fields})
        assert time.process_time() - begun < LIMIT_S
        assert answer.status_code == 422, answer.get_data(as_text=True)
        assert {name.partition(".")[0].partition("[")[0] for name in fields_of(answer)} <= {"schedule", *fields}


@pytest.mark.parametrize("fields", RARE.values(), ids=list(RARE))
def test_what_fires_rarely_or_always_is_answered_soon(fields: dict[str, Any], world: World) -> None:
    asks = [("POST", "/jobs", ""), ("POST", "/preview", "?count=1000"), ("POST", "/preview", "?count=0")]
    for method, path, query in asks:
        begun = time.process_time()
        answer = world.call(method, path + query, json={**JOB, **fields})
        assert time.process_time() - begun < LIMIT_S, path + query
        assert answer.status_code in (200, 201, 422), answer.get_data(as_text=True)


def test_a_forecast_of_every_second_for_long_is_bounded(world: World) -> None:
    for _ in range(20):
        world.post_job(schedule="* * * * * *", shards=100)
    begun = time.process_time()
    answer = world.call("GET", "/forecast?hours=1000000", role=Role.VIEWER)
    assert time.process_time() - begun < LIMIT_S
    assert answer.status_code in (200, 422)
