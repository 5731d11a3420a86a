"""Ids, instants, labels, retries and job values."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronkeeper.domain.ids import RunKey, TaskId, is_job_id, is_worker_id
from cronkeeper.domain.instants import MAX_MS, parse_rfc3339, rfc3339
from cronkeeper.domain.job import JobSpec, JobState, JobStatus, JobType, LastRun, next_fire, status_of
from cronkeeper.domain.labels import check_labels, parse_selector
from cronkeeper.domain.retry import (
    Retry,
    longest_waits_s,
    next_attempt_after_s,
    retry_from_dict,
    retry_to_dict,
)
from cronkeeper.domain.run import UNSUCCESSFUL, RunState


@given(st.integers(0, MAX_MS))
def test_instants_survive_their_text(ms: int) -> None:
    assert parse_rfc3339(rfc3339(ms)) == ms


@pytest.mark.parametrize(
    "text",
    [
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-13-01T00:00:00Z",
        "yesterday",
        "1969-12-31T23:59:59Z",
        "٢٠٢٧-01-01T00:00:00Z",
        "",
    ],
)
def test_other_instants_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|no such instant|out of range"):
        parse_rfc3339(text)


@given(st.integers(1, 10**17), st.integers(0, 9999), st.integers(0, MAX_MS), st.integers(1, 9999))
def test_ids_survive_their_text(job: int, shard: int, fire_ms: int, attempt: int) -> None:
    key = RunKey(TaskId(job, shard), fire_ms, attempt)
    assert RunKey.parse(str(key)) == key
    assert TaskId.parse(str(key.task)) == TaskId.parse(key.task.znode) == key.task


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "1e3", "１", "1 ", "../1", "9" * 30])
def test_other_job_ids_are_refused(text: str) -> None:
    assert not is_job_id(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "zoo keeper", "a\x00", "-a", "x" * 64])
def test_hostile_worker_ids_are_refused(text: str) -> None:
    assert not is_worker_id(text)


def test_buckets_are_even() -> None:
    counts = collections.Counter(TaskId(job, 0).bucket for job in range(1, 100_001))
    assert len(counts) == 256
    assert max(counts.values()) < 500


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("zone=eu", {"zone": "eu"}, True),
        ("zone=eu", {"zone": "us"}, False),
        ("zone!=eu", {}, True),
        ("zone in (eu, us),disk=ssd", {"zone": "us", "disk": "ssd"}, True),
        ("zone notin (eu)", {"zone": "eu"}, False),
        ("gpu", {"gpu": ""}, True),
        ("!gpu", {"gpu": "a100"}, False),
        ("zone==eu , !spot", {"zone": "eu"}, True),
    ],
)
def test_selectors_match(text: str, labels: dict[str, str], matches: bool) -> None:
    selector = parse_selector(text)
    assert selector.matches(labels) is matches
    assert parse_selector(str(selector)) == selector


@pytest.mark.parametrize(
    "text", ["", " ", ",", "a=b,", "a in b", "a in (b", "=b", "a=b c", "a b", "é=1", ",".join("abcdefghijklmnopq")]
)
def test_other_selectors_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_selector(text)


def test_labels_are_checked() -> None:
    assert check_labels({"team": "core", "x/y": ""}) == []
    assert len(check_labels({"": "a", "b": "c\n"})) == 2


@pytest.mark.parametrize(("attempt", "expected"), [(1, 10), (2, 20), (3, 30), (4, None)])
def test_retries_back_off_and_end(attempt: int, expected: int | None) -> None:
    assert next_attempt_after_s(Retry(3, 10, 30), RunKey(TaskId(1, 0), 60_000, attempt)) == expected


def test_the_jitter_of_a_retry_spreads_evenly_and_is_the_same_for_everybody() -> None:
    retry = Retry(3, 10, 30, jitter_s=9)
    failed = [RunKey(TaskId(job_id, 0), 60_000, 1) for job_id in range(1, 1001)]
    waits = [next_attempt_after_s(retry, key) for key in failed]
    counts = collections.Counter(waits)
    assert set(counts) == set(range(10, 20))
    assert max(counts.values()) < 1.6 * 100
    assert waits == [next_attempt_after_s(retry, key) for key in failed]
    again = [next_attempt_after_s(retry, RunKey(key.task, key.fire_ms, 2)) for key in failed]
    assert [wait - 10 for wait in again if wait is not None] != waits


def test_the_longest_waits_are_never_exceeded() -> None:
    retry = Retry(5, 10, 60, jitter_s=30)
    waits = [next_attempt_after_s(retry, RunKey(TaskId(1, 0), 60_000, attempt)) or 0 for attempt in range(1, 6)]
    assert sum(waits) <= longest_waits_s(retry) == 10 + 20 + 40 + 60 + 60 + 5 * 30


def test_a_retry_of_an_older_version_has_no_jitter() -> None:
    old = {"limit": 2, "backoff_s": 5, "max_backoff_s": 60}
    assert retry_from_dict(old) == Retry(2, 5, 60)
    assert retry_from_dict(retry_to_dict(Retry(2, 5, 60, 7, elsewhere=True))) == Retry(2, 5, 60, 7, elsewhere=True)


@pytest.mark.parametrize(
    ("state", "last", "expected"),
    [
        (JobState.ACTIVE, None, JobStatus.SCHEDULED),
        (JobState.ACTIVE, RunState.SUCCEEDED, JobStatus.SCHEDULED),
        (JobState.ACTIVE, RunState.FAILED, JobStatus.ERROR),
        (JobState.PAUSED, RunState.FAILED, JobStatus.PAUSED),
        (JobState.FINISHED, RunState.SUCCEEDED, JobStatus.FINISHED),
    ],
)
def test_status(state: JobState, last: RunState | None, expected: JobStatus) -> None:
    found = None if last is None else LastRun("1-0-0-1", 0, last, None)
    assert status_of(state, found, unsuccessful=UNSUCCESSFUL) is expected


def test_next_fire_respects_the_window() -> None:
    start = parse_rfc3339("2027-01-01T00:00:00Z")
    spec = JobSpec("true", "0 * * * *", JobType.COMMAND, starts_at_ms=start, ends_at_ms=start + 3_600_000)
    assert next_fire(spec, 0) == start
    assert next_fire(spec, start) is None


def test_jitter_is_the_same_everywhere_and_spreads() -> None:
    spec = JobSpec("true", "0 * * * *", JobType.COMMAND, jitter_s=60)
    delays = [spec.jitter_ms(TaskId(job, 0), 3_600_000) for job in range(1, 501)]
    assert delays == [spec.jitter_ms(TaskId(job, 0), 3_600_000) for job in range(1, 501)]
    assert max(delays) < 60_000
    assert len({delay // 6000 for delay in delays}) == 10
