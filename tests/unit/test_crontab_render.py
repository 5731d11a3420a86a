"""The crontab's text: it wakes the node for every fire, and holds nothing that a user typed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cronkeeper.domain.calendars import Closures, OnExcluded
from cronkeeper.domain.cronfields import CronFields, parse_fields
from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import from_ms, parse_rfc3339, to_ms
from cronkeeper.domain.schedule import Dst, Fold, Gap, Kind, Schedule, clock_changes, parse_schedule
from cronkeeper_worker.crontab_file import SecondReader, SystemCrontab
from cronkeeper_worker.crontab_form import HEADER, MAX_LINES, NO_TASKS, check
from cronkeeper_worker.crontab_pattern import EVERY_MINUTE, pattern_for
from cronkeeper_worker.crontab_render import CronTask, Draft, number_of, render, ticks

FIRE = "/var/lib/cronkeeper/bin/cronkeeper-fire"
NOW = to_ms(datetime(2026, 3, 20, 12, 34, 56, tzinfo=UTC))
SOON = "@at 2026-03-20T12:40:00Z"
DAY = 86_400_000
ZONES = [
    "UTC",
    "Etc/UTC",
    "Europe/Berlin",
    "Europe/Paris",
    "Europe/London",
    "Africa/Casablanca",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
]


def task(number: int, text: str = "5 * * * *", timezone: str = "UTC") -> CronTask:
    return TaskId(number, 0), parse_schedule(text, timezone)


def rendered(tasks: list[CronTask], *, node: str = "UTC", user: str | None = "root") -> tuple[str, ...]:
    return render(tasks, fire=FIRE, node_timezone=node, now_ms=NOW, user=user)


# ---------------------------------------------------------------------------------------------------------- the text


def test_one_entry_for_each_distinct_pattern() -> None:
    (text,) = rendered([task(3), task(1, "0 9 * * mon-fri"), task(2), task(4, "0  9 * * 1-5")])
    entries = (
        f"# tasks 1/0 4/0\n0 9 * * 1-5 root {FIRE} {number_of('0 9 * * 1-5')}\n"
        f"# tasks 2/0 3/0\n5 * * * * root {FIRE} {number_of('5 * * * *')}\n"
    )
    assert text == f"{HEADER}{NO_TASKS}* * * * * root {FIRE} {number_of(NO_TASKS + entries)}\n{entries}"


def test_tasks_of_every_minute_share_their_entry_with_the_tick() -> None:
    (text,) = rendered([task(1, "* * * * *"), task(2, "* * * * *")])
    comment = "# tasks 1/0 2/0\n"
    assert text == f"{HEADER}{comment}* * * * * root {FIRE} {number_of(comment)}\n"


def test_every_file_has_one_tick_with_the_number_of_its_text() -> None:
    patterns = itertools.product(range(60), range(24), range(1, 3))
    files = rendered([task(n + 1, f"{m} {h} {d} * *") for n, (m, h, d) in enumerate(patterns)] + [task(1, "* * * * *")])
    assert len(files) == 2
    assert [text.count(EVERY_MINUTE) for text in files] == [1, 1]
    assert [f" {number}\n" in text for number, text in zip(ticks(files), files, strict=True)] == [True, True]
    assert len(set(ticks(files))) == 2


@pytest.mark.parametrize(
    "after",
    [[task(1)], [task(1), task(3)], [task(1), task(2, "8 * * * *")], [task(1), task(2, "* * * * *")]],
    ids=["a group goes", "a task joins", "a pattern changes", "every minute"],
)
def test_any_other_text_has_another_tick(after: list[CronTask]) -> None:
    before = rendered([task(1), task(2, "7 * * * *")])
    assert ticks(before) == ticks(rendered([task(2, "7 * * * *"), task(1)]))
    assert ticks(before) != ticks(rendered(after))


def test_a_users_own_crontab_has_no_account_column() -> None:
    (text,) = rendered([task(1)], user=None)
    assert f"\n5 * * * * {FIRE} " in text


def test_no_task_is_no_file() -> None:
    assert rendered([]) == ()


def test_a_large_group_names_forty_and_counts_the_rest() -> None:
    (text,) = rendered([task(number) for number in range(1, 1001)])
    comment = text.splitlines()[3]
    assert comment.startswith("# tasks 1/0 2/0 ") and comment.endswith(" 40/0 and 960 more")
    assert len(text.splitlines()) == 5


def test_the_order_of_tasks_does_not_matter() -> None:
    tasks = [task(n, f"{n % 7} {n % 5} * * *") for n in range(1, 50)]
    assert rendered(tasks) == rendered(tasks[::-1])


def test_a_new_group_leaves_the_other_lines_alone() -> None:
    (before,) = rendered([task(1), task(2, "7 * * * *")])
    (after,) = rendered([task(1), task(2, "7 * * * *"), task(3, "6 * * * *")])
    assert {line for line in before.splitlines() if EVERY_MINUTE not in line} < set(after.splitlines())


def test_many_patterns_become_several_files_that_cron_accepts() -> None:
    patterns = itertools.product(range(60), range(24), range(1, 5))
    files = rendered([task(n + 1, f"{m} {h} {d} * *") for n, (m, h, d) in enumerate(patterns)])
    assert len(files) == 3
    for text in files:
        check(text)
        assert len(text.splitlines()) <= MAX_LINES
    assert sum(text.count(FIRE) for text in files) == 60 * 24 * 4 + 3


# ----------------------------------------------------------------------------------------------- what an edit costs


def many() -> list[CronTask]:
    """10,000 tasks, 3,000 patterns."""
    return [task(n + 1, f"{n % 60} {n // 60 % 10} {1 + n // 600 % 5} * *") for n in range(10_000)]


def install(draft: Draft, target: SystemCrontab, tasks: list[CronTask]) -> None:
    target.install(draft.render(tasks, NOW))


def test_an_edit_of_one_of_10000_tasks_costs_its_own_lines_alone(tmp_path: Path) -> None:
    draft, reader = Draft(fire=FIRE, node_timezone="UTC", user="root"), SecondReader(has_user_column=True)
    target = SystemCrontab(tmp_path, reader)
    tasks = many()
    install(draft, target, tasks)
    assert (draft.looked_at, draft.written, reader.entries_read) == (3000, 3000, 3000 + 2)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert len(before) == 2
    install(draft, target, tasks)
    assert (draft.looked_at, draft.written, reader.entries_read) == (0, 0, 3002)
    # A pattern that nobody has yet: the old group, the new one, and the ticks of the files that they are in.
    tasks[4711] = task(4712, "7 7 7 7 *")
    install(draft, target, tasks)
    assert (draft.looked_at, draft.written) == (1, 2)
    read = reader.entries_read
    assert read <= 3002 + 2 + 2
    # Only a comment changes, and the number of one tick: the other file is not even written.
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    install(draft, target, tasks[:-1])
    assert (draft.looked_at, draft.written, reader.entries_read) == (0, 1, read + 1)
    assert sum(before[path.name] != path.stat().st_ino for path in tmp_path.iterdir()) == 1
    assert target.read() == rendered(tasks[:-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.integers(1, 6),
                st.sampled_from(
                    ["* * * * *", "5 * * * *", "5 * * * *; 7 7 * * *", "@every 90s", SOON,
                     f"{SOON}; 9 9 * * *", "0 2 * * sun"]
                ),
            ),
            st.integers(0, 40 * 3_600_000),
        ),
        max_size=8,
    ),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)  # fmt: skip
@example(
    [({1: "@at 2026-03-20T12:40:00Z", 2: "5 * * * *"}, 0)] * 2 + [({1: "@at 2026-03-20T12:40:00Z"}, 600_000)], "UTC"
)
@example(
    [({1: "@at 2026-03-20T12:40:00Z; 9 9 * * *"}, 0), ({1: "@at 2026-03-20T12:40:00Z; 9 9 * * *"}, 600_000)], "UTC"
)
def test_what_was_rendered_before_makes_no_difference(history: list[tuple[dict[int, str], int]], zone: str) -> None:
    draft = Draft(fire=FIRE, node_timezone="UTC", user="root")
    now_ms = NOW
    for schedules, passes_ms in history:
        now_ms += passes_ms
        tasks = [task(number, text, zone) for number, text in schedules.items()]
        fresh = render(tasks, fire=FIRE, node_timezone="UTC", now_ms=now_ms, user="root")
        assert draft.render(tasks, now_ms) == fresh


def test_patterns_are_made_anew_when_another_day_comes() -> None:
    """Mexico set its clocks for the last time on 30 October 2022: until then a superset of both offsets is needed."""
    tasks = [task(1, "5 4 * * *", "America/Mexico_City")]
    draft = Draft(fire=FIRE, node_timezone="UTC", user="root")
    (before,), (after,) = (draft.render(tasks, parse_rfc3339(f"2022-{day}T12:00:00Z")) for day in ("10-20", "11-20"))
    assert "\n5 9-10 * * * root" in before
    assert "\n5 10 * * * root" in after


def test_a_draft_that_was_refused_begins_afresh() -> None:
    draft = Draft(fire="relative", node_timezone="UTC", user="root")
    for _ in range(2):
        with pytest.raises(ValueError, match="not a line of ours"):
            draft.render([task(1)], NOW)
    assert draft.render([], NOW) == ()


def test_a_new_pattern_moves_no_other_to_another_file() -> None:
    tasks = [task(n + 1, f"{n % 60} {n // 60 % 24} {1 + n // 1440} * *") for n in range(10_000)]
    before, after = rendered(tasks), rendered([*tasks, task(10_001, "0 0 29 2 *")])
    assert len(before) == len(after) == 5
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    assert all(len(text.splitlines()) <= MAX_LINES for text in after)


def test_the_second_reader_reads_a_line_once_for_each_file() -> None:
    reader = SecondReader(has_user_column=True)
    (text,) = rendered([task(1), task(2, "0 0 * * 7")])
    reader.verify("a", text)
    reader.verify("a", text)
    assert reader.entries_read == 3
    reader.verify("b", text)
    assert reader.entries_read == 6


@pytest.mark.parametrize(
    "more",
    ["5 * * * * root rm\n", "# tasks x\n", f"5 * * * * root {FIRE} 1", f"61 * * * * root {FIRE} 1\n"],
    ids=["a command", "a comment", "no end", "no minute"],
)
def test_what_is_wrong_is_refused_however_much_is_known(more: str) -> None:
    reader = SecondReader(has_user_column=True)
    (text,) = rendered([task(1)])
    reader.verify("a", text)
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011 - three kinds of reasons
            reader.verify("a", text + more)
    assert reader.entries_read in (2, 4)


@pytest.mark.parametrize("fire", ["/a b/fire", "/a%b", "relative", "/a\nb", "/a;b", "/ä", "/a$b", ""])
def test_a_path_that_cron_would_read_otherwise_is_refused(fire: str) -> None:
    with pytest.raises(ValueError, match="not a line of ours"):
        render([task(1)], fire=fire, node_timezone="UTC", now_ms=NOW, user="root")


@pytest.mark.parametrize(
    "line",
    [
        "* * * * * root /bin/fire 1",
        "* * * * * root /bin/fire 1\n\n",
        "* * * * * root /bin/fire 1\n* * * * * root /bin/evil\n",
        "* * * * * nobody /bin/fire 1\n",
        "@reboot root /bin/fire 1\n",
        "PATH=/evil\n",
        "# tasks 1/0 \r* * * * * root /bin/evil 1\n",
        "# anything\n",
        "* * * * * root /bin/fire 1 %\n",
        "1" * 900 + " * * * * root /bin/fire 1\n",
        "mon * * * * root /bin/fire 1\n",
        "* * * * * root /bin/fire 1\n\x00",
        "",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"refused|not a line of ours"):
        check(line)


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_that_a_user_typed_gets_into_a_file(text: str, zone: str) -> None:
    try:
        schedule = parse_schedule(text, zone)
    except ValueError:
        return
    for file in render([(TaskId(1, 0), schedule)], fire=FIRE, node_timezone="UTC", now_ms=NOW, user="root"):
        check(file)


# ------------------------------------------------------------------------------------------------------- the patterns


@pytest.mark.parametrize(
    ("text", "zone", "node", "expected"),
    [
        ("*/5 0-6 1,15 jan sun", "UTC", "UTC", "*/5 0-6 1,15 1 0"),
        ("@daily", "UTC", "Etc/UTC", "0 0 * * *"),
        ("30 2 * * 1-5", "Europe/Berlin", "Europe/Berlin", "30 2 * * 1-5"),
        ("30 2 * * 1-5", "Europe/Berlin", "Europe/Paris", "30 2 * * 1-5"),
        ("0 9 * * 1-5", "Asia/Kolkata", "UTC", "30 3 * * *"),
        ("0 9 * * 1-5", "America/New_York", "UTC", "0 13-14 * * *"),
        ("0 12 * * *", "Europe/Berlin", "UTC", "0 10-11 * * *"),
        ("30 2 * * *", "Europe/Berlin", "UTC", "0,30 0-1 * * *"),
        ("0 9 * * *", "UTC", "Europe/Berlin", "0 * * * *"),
        ("* * * * *", "Asia/Tokyo", "UTC", "* * * * *"),
        ("0 0 12 * * *", "UTC", "UTC", "0 12 * * *"),
        ("15 0 12 * * *", "UTC", "UTC", "0-1 12 * * *"),
        ("@every 30s", "UTC", "UTC", "* * * * *"),
        ("@every 90s", "UTC", "UTC", "* * * * *"),
        ("@every 7m", "UTC", "UTC", "* * * * *"),
        ("@every 15m", "UTC", "UTC", "*/15 * * * *"),
        ("@every 2h", "UTC", "UTC", "0 */2 * * *"),
        ("@every 5h", "UTC", "UTC", "0 * * * *"),
        ("@every 3d", "UTC", "UTC", "0 0 * * *"),
        ("@every 2h", "UTC", "Asia/Kolkata", "30 1,3,5,7,9,11,13,15,17,19,21,23 * * *"),
        ("@at 2026-04-01T10:30:00Z", "UTC", "UTC", "30 10 1 4 *"),
        ("@at 2026-04-01T10:30:00Z", "UTC", "Asia/Tokyo", "30 19 1 4 *"),
        ("@at 2026-03-31T23:59:30Z", "UTC", "UTC", "0,59 0,23 1,31 3,4 *"),
    ],
)
def test_patterns(text: str, zone: str, node: str, expected: str) -> None:
    assert pattern_for(parse_schedule(text, zone), node, NOW) == expected


def test_an_instant_that_has_passed_has_no_entry() -> None:
    schedule = parse_schedule("@at 2026-03-20T12:30:00Z")
    assert pattern_for(schedule, "UTC", NOW) is None
    assert pattern_for(schedule, "UTC", schedule.at_ms + 59_000) is not None


def test_a_rule_for_clock_changes_needs_the_superset_only_where_clocks_change() -> None:
    rule = Dst(gap=Gap.SKIP, fold=Fold.BOTH)
    assert pattern_for(parse_schedule("30 2 * * 1", "Asia/Tokyo", rule), "Asia/Tokyo", NOW) == "30 2 * * 1"
    assert pattern_for(parse_schedule("30 2 * * 1", "Europe/Berlin", rule), "Europe/Berlin", NOW) == "0,30 * * * *"


def test_a_fire_that_may_move_is_woken_for_on_every_day() -> None:
    moving = Closures(weekdays=frozenset({0}), on_excluded=OnExcluded.NEXT)
    assert pattern_for(parse_schedule("30 2 1 * *", closures=moving), "UTC", NOW) == "30 2 * * *"
    assert pattern_for(parse_schedule("30 2 1 * *", closures=replace(moving, on_excluded=OnExcluded.SKIP)), "UTC", NOW)


@pytest.mark.parametrize("text", ["30 2 L * *", "30 2 15W * *", "30 2 * * 1#2", "30 2 * * 5L"])
def test_days_that_cron_does_not_know_become_every_day(text: str) -> None:
    assert pattern_for(parse_schedule(text), "UTC", NOW) == "30 2 * * *"


def test_a_task_with_several_schedules_stands_under_each_pattern_once() -> None:
    (text,) = rendered([task(1, "30 2 * * 1; 0 12 * * 6; @at 2001-01-01T00:00:00Z; 0 12 * * 6")])
    entries = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.split(" root ")[0] for line in entries] == ["* * * * *", "0 12 * * 6", "30 2 * * 1"]
    assert text.count("# tasks 1/0\n") == 2


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.just("*"),
        number.map(str),
        span.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.lists(number, min_size=1, max_size=4).map(lambda values: ",".join(map(str, values))),
        st.integers(2, (high - low) // 2).map(lambda step: f"*/{step}"),
    )


def schedules() -> st.SearchStrategy[Schedule]:
    days = st.sampled_from(["* * *", "* * 1-5", "*/2 * *", "1,15 * 0", "* 3,10,11 *", "L 3,10 *", "15W,31W * 6#1"])
    plain = st.tuples(numbers(0, 59), numbers(0, 23), days).map(" ".join)
    often = st.tuples(numbers(0, 59), numbers(0, 5)).map(lambda pair: f"{pair[0]} {pair[1]} * * *")
    seconds = st.tuples(numbers(0, 59), often).map(" ".join)
    every = st.integers(60, 200_000).map(lambda count: f"@every {count}s")
    at = st.integers(NOW, NOW + 390 * DAY).map(
        lambda ms: from_ms(ms).strftime("@at %Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"
    )
    text = st.one_of(plain, often, seconds, every, at)
    rule = st.builds(Dst, st.sampled_from([None, *Gap]), st.sampled_from([None, *Fold]))

    shut = Closures(frozenset({NOW // DAY, NOW // DAY + 1}), frozenset({0, 6}))
    closures = st.sampled_from([None, shut, replace(shut, on_excluded=OnExcluded.NEXT)])

    def build(values: tuple[str, str, Dst, Closures | None]) -> Schedule | None:
        try:
            return parse_schedule(*values[:3], closures=values[3])
        except ValueError:
            return None

    found = st.tuples(text, st.sampled_from(ZONES), rule, closures).map(build)
    return found.filter(lambda schedule: schedule is not None)  # type: ignore[return-value]


def wakes(pattern: CronFields, instant_ms: int, zone: ZoneInfo) -> bool:
    """Say whether Debian's cron runs an entry in the minute of this instant."""
    local = from_ms(instant_ms).astimezone(zone)
    wildcard = pattern.minute.star or pattern.hour.star
    if local.fold and not wildcard:
        return False  # the hour that comes twice: what has fixed hours ran in the first of the two
    in_month = local.day in pattern.day.values
    in_week = local.isoweekday() % 7 in pattern.weekday.values
    either = not (pattern.day.star or pattern.weekday.star)
    return (
        local.minute in pattern.minute.values
        and local.hour in pattern.hour.values
        and local.month in pattern.month.values
        and ((in_month or in_week) if either else (in_month and in_week))
    )


def is_caught_up(pattern: CronFields, instant_ms: int, zone: ZoneInfo) -> bool:
    """Say whether cron runs the entry here because the clock has just jumped over its time."""
    before = from_ms(instant_ms - 60_000).astimezone(zone).replace(tzinfo=None)
    after = from_ms(instant_ms).astimezone(zone).replace(tzinfo=None)
    skipped = int((after - before) / timedelta(minutes=1)) - 1
    if pattern.minute.star or pattern.hour.star:
        return False
    return any(
        moment.minute in pattern.minute.values and moment.hour in pattern.hour.values
        for moment in (before + timedelta(minutes=minute) for minute in range(1, skipped + 1))
    )


def spans(schedule: Schedule, node: str) -> list[tuple[int, int]]:
    """The next days, and the days around the next clock changes of either zone."""
    found = [(NOW, NOW + 3 * DAY)]
    for zone in {schedule.timezone, node}:
        found += [(change - DAY, change + DAY) for change, _, _ in _changes(zone)]
    if schedule.kind is Kind.AT:
        found.append((schedule.at_ms - 1, schedule.at_ms))
    return found


@lru_cache(maxsize=64)
def _changes(zone: str) -> list[tuple[int, int, int]]:
    return clock_changes(zone, NOW, days=398)[:2]


@settings(max_examples=60, deadline=None)
@given(schedules(), st.sampled_from(ZONES))
@example(parse_schedule("30 2 * * *", "Europe/Berlin"), "America/New_York")
@example(parse_schedule("30 6 * * *", "UTC"), "America/New_York")
@example(parse_schedule("45 1 * * *", "Australia/Lord_Howe"), "Europe/Berlin")
@example(parse_schedule("59 59 23 * * *", "Pacific/Chatham"), "America/St_Johns")
def test_every_fire_has_its_wake_up(schedule: Schedule, node: str) -> None:
    text = pattern_for(schedule, node, NOW)
    assert text is not None
    pattern = parse_fields(text)
    assert pattern.text == text
    zone = ZoneInfo(node)
    for after_ms, until_ms in spans(schedule, node):
        for fire_ms in schedule.fire_times(after_ms, until_ms, limit=100):
            assert wakes(pattern, fire_ms, zone) or is_caught_up(pattern, fire_ms, zone), from_ms(fire_ms)
            if fire_ms % 60_000 and schedule.kind is not Kind.EVERY:
                assert wakes(pattern, fire_ms + 60_000, zone), from_ms(fire_ms)
