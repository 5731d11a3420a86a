"""What crosses a process boundary: signed where a store must not be trusted, bounded and versioned everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronkeeper.domain.calendars import Blackout, Calendar, OnExcluded, Weekday
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Artifact, JobSpec, JobState, JobType, Limits, spec_from_dict, spec_to_dict
from cronkeeper.domain.placement import Assignment, MoveReason, NodeInfo, Ownership, WorkerInfo
from cronkeeper.domain.retry import Retry
from cronkeeper.domain.run import RunState
from cronkeeper.domain.schedule import Dst, Fold, Gap
from cronkeeper.errors import SignatureError, WireFormatError
from cronkeeper.wire import znodes
from cronkeeper.wire.codec import MAX_BYTES, dumps, loads
from cronkeeper.wire.spec_text import spec_text
from cronkeeper.wire.task import Signer, Task, Verifier

SIGNER = Signer.from_seed(bytes(range(32)))
VERIFIER = Verifier([SIGNER.public_bytes])
SPEC = JobSpec(
    executable="s3://jobs/artifacts/aa/backup.sh",
    schedule="*/5 * * * *",
    type=JobType.SCRIPT,
    name="backup",
    args=("--all", "ü"),
    env={"A": "1"},
    retry=Retry(2, 5, 60),
    dst=Dst(Gap.SKIP, Fold.BOTH),
    starts_at_ms=1_795_000_000_000,
    selector="zone=eu",
    limits=Limits(10, 64, 5),
    labels={"team": "core"},
    filename="backup.sh",
    artifact=Artifact("artifacts/aa/backup.sh", "s3://jobs/artifacts/aa/backup.sh", "a" * 64, 12, "backup.sh"),
    calendar=Calendar(
        ("DE-BY",), (date(2026, 12, 24),), (Weekday.SAT, Weekday.SUN), (date(2026, 12, 26),), OnExcluded.NEXT
    ),
    blackouts=(Blackout(1_795_000_000_000, 1_795_000_060_500),),
    holiday_dates={"DE-BY": (date(2026, 12, 25), date(2027, 1, 1))},
    spread="17",
)
TASK = Task(17, 3, JobState.ACTIVE, 1_795_000_000_123, SPEC)
ENVELOPE = SIGNER.seal(TASK)


def test_a_spec_survives_its_json_shape() -> None:
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(SPEC)))) == SPEC


def test_a_spec_of_before_calendars_is_read() -> None:
    data = spec_to_dict(SPEC)
    for field in ("calendar", "blackouts", "holiday_dates", "spread"):
        del data[field]
    assert spec_from_dict(data) == SPEC.evolve(calendar=None, blackouts=(), holiday_dates={}, spread="")


def test_a_signed_task_opens() -> None:
    assert VERIFIER.open(ENVELOPE, job_id=17) == TASK


def test_sealing_twice_gives_equal_bytes() -> None:
    assert SIGNER.seal(TASK) == ENVELOPE


def test_what_is_signed_is_canonical_json() -> None:
    body = json.loads(SIGNER.seal(TASK))["body"]
    assert body.encode() == dumps(json.loads(body))
    assert json.loads(body)["spec"] == spec_to_dict(SPEC)
    assert dumps(json.loads(ENVELOPE)) == ENVELOPE


def test_a_spec_that_differs_has_a_text_of_its_own() -> None:
    for number in range(2000):
        spec = SPEC.evolve(description=f"number {number}")
        assert spec_text(spec) == dumps(spec_to_dict(spec)).decode() == spec_text(spec)
    assert spec_text(SPEC) == dumps(spec_to_dict(SPEC)).decode()


def test_the_text_that_a_spec_keeps_makes_no_difference() -> None:
    one, other = (SPEC.evolve(owner="me") for _ in range(2))
    spec_text(one)
    assert (one, repr(one)) == (other, repr(other))
    assert replace(one, owner="you").text is None


def test_an_envelope_of_another_job_is_refused() -> None:
    with pytest.raises(SignatureError, match="belongs to job 17"):
        VERIFIER.open(ENVELOPE, job_id=18)


def test_an_unknown_signer_is_refused() -> None:
    stranger = Signer.from_seed(b"x" * 32)
    with pytest.raises(SignatureError, match="unknown key"):
        VERIFIER.open(stranger.seal(TASK), job_id=17)


def test_a_key_id_does_not_vouch_for_a_signature() -> None:
    forged = json.loads(Signer.from_seed(b"x" * 32).seal(TASK))
    forged["key"] = SIGNER.key_id
    with pytest.raises(SignatureError, match="signature is wrong"):
        VERIFIER.open(dumps(forged), job_id=17)


def test_only_the_very_bytes_that_were_verified_are_not_verified_again() -> None:
    verifier, raw = Verifier([SIGNER.public_bytes]), SIGNER.seal(TASK)
    verifier.open(raw, job_id=TASK.job_id)
    verifier._keys.clear()
    assert verifier.open(raw, job_id=TASK.job_id) == TASK
    with pytest.raises(SignatureError, match="belongs to"):
        verifier.open(raw, job_id=TASK.job_id + 1)
    for other in (raw + b" ", SIGNER.seal(replace(TASK, generation=TASK.generation + 1))):
        with pytest.raises(SignatureError, match="unknown key"):
            verifier.open(other, job_id=TASK.job_id)


def test_what_was_refused_is_refused_again() -> None:
    verifier, forged = Verifier([SIGNER.public_bytes]), Signer.from_seed(b"x" * 32).seal(TASK)
    for _ in range(2):
        with pytest.raises(SignatureError):
            verifier.open(forged, job_id=TASK.job_id)


def test_keys_rotate_without_a_gap() -> None:
    newer = Signer.from_seed(b"n" * 32)
    both = Verifier([SIGNER.public_bytes, newer.public_bytes])
    assert both.open(ENVELOPE, job_id=17) == both.open(newer.seal(TASK), job_id=17) == TASK


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(index: int, flip: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[index] ^= flip
    try:
        task = VERIFIER.open(bytes(changed), job_id=17)
    except (SignatureError, WireFormatError):
        return
    # Only a change that JSON does not see (none of the signed text) may still open, and then to the very same task.
    assert task == TASK


@given(st.binary(max_size=300))
def test_noise_is_refused_in_our_own_words(raw: bytes) -> None:
    with pytest.raises((SignatureError, WireFormatError)):
        VERIFIER.open(raw, job_id=17)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"v":0}',
        b'{"v":2}',
        b'{"v":"1"}',
        b'{"v":1',
        b"\xff",
        b'{"v":1}' + b" " * MAX_BYTES,
        b"[" * 100_000,
    ],
    ids=["empty", "list", "no version", "version 0", "newer", "text version", "torn", "not utf-8", "too large", "deep"],
)
def test_bad_payloads_are_refused(raw: bytes) -> None:
    with pytest.raises(WireFormatError):
        loads(raw, version=1, what="test")


def test_every_znode_payload_survives_the_trip() -> None:
    task, worker = TaskId(17, 2), WorkerInfo("w1", "host", {"zone": "eu"}, 5, "0.1.0", "ab", 7, 1_795_000_000_000)
    assignment = Assignment(task, "w1", 3, 99, MoveReason.DRAIN, 1, 2)
    ownership = Ownership(task, "w1", 3, "ab")
    key = RunKey(task, 1_795_000_000_000, 1)
    assert znodes.decode_worker(znodes.encode_worker(worker)) == worker
    for node in (NodeInfo("w1", True, False, worker), NodeInfo("w1")):
        assert znodes.decode_node(znodes.encode_node(node)) == node
    assert znodes.decode_assignment(znodes.encode_assignment(assignment), task, "w1") == assignment
    assert znodes.decode_ownership(znodes.encode_ownership(ownership), task, "w1") == ownership
    for state in RunState:
        note = znodes.ClaimNote("n", "w1", state)
        assert znodes.decode_claim(znodes.encode_claim(note)) == note
    queued = znodes.QueuedRun(key, "alice")
    assert znodes.decode_queued(znodes.encode_queued(queued)) == queued
    leader = znodes.LeaderNote("m1", "host", 4, reaches_mysql=True)
    assert znodes.decode_leader(znodes.encode_leader(leader)) == leader


def test_a_manager_of_an_older_version_does_not_say_that_it_reaches_mysql() -> None:
    note = znodes.decode_leader(dumps({"v": 1, "id": "m1", "address": "", "epoch": 0}))
    assert not note.reaches_mysql


@pytest.mark.parametrize("field", ["generation", "epoch", "reason", "assigned_ms", "since_ms"])
def test_a_payload_with_a_missing_field_is_refused(field: str) -> None:
    task = TaskId(1, 0)
    data = json.loads(znodes.encode_assignment(Assignment(task, "w", 1, 1, MoveReason.NEW, 1)))
    del data[field]
    with pytest.raises(WireFormatError, match="assignment"):
        znodes.decode_assignment(dumps(data), task, "w")


def test_a_paused_job_is_another_signed_task() -> None:
    paused = replace(TASK, state=JobState.PAUSED, generation=4)
    assert VERIFIER.open(SIGNER.seal(paused), job_id=17).state is JobState.PAUSED
