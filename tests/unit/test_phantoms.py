"""Rows that no worker can have written, and rows changed past the API: told, and removed where that is safe."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import Job, JobState
from cronkeeper.domain.placement import Assignment, Lease, MoveReason
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.domain.scope import EVERYWHERE
from cronkeeper.ports import Cordon, Fate, Fire, Role, SignedRow, Token, token_facts
from cronkeeper.wire.trail import Actor, Entry, text_of
from cronkeeper_manager.phantoms import may_drop, phantom_words
from cronkeeper_manager.service.denials import digest_of
from cronkeeper_manager.signed_rows import alteration
from cronkeeper_manager.telling import FRESH_LEASE_MS, HALF_SEEN_AFTER_S, half_seen
from cronkeeper_manager.vouching import cordon_fault, identity_fault, token_fault
from tests.unit.manager_town import NOON_MS, Town

TASK = TaskId(1, 0)
GIVEN = {TASK: Assignment(TASK, "w1", 1, 70, MoveReason.NEW, NOON_MS)}
KNOWN = frozenset({"w1", "w2"})
ADMIN = Actor("1", "admin", "admin")


def fate(worker: str = "w1", fence: int = 70, state: RunState = RunState.SUCCEEDED) -> Fate:
    return Fate(Fire(TASK, NOON_MS), 1, state, Trigger.TIMER, worker, 1, None, NOON_MS, fence, "nonce")


# ------------------------------------------------------------------------------------------------------------ phantoms


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (fate(), ""),
        (fate("w2", 69), ""),
        (fate("w9"), "no worker here is called w9"),
        (fate("w2"), "by its epoch the task is w1's"),
        (fate("w1", 71), "never given to anybody by it"),
        (fate("", 0), "names no worker"),
        (fate("", 0, RunState.PENDING), ""),
        (fate("", 0, RunState.CANCELLED), ""),
    ],
)
def test_row_is_a_phantom_unless_a_worker_that_had_the_task_can_have_written_it(row: Fate, words: str) -> None:
    found = phantom_words(row, KNOWN, GIVEN)

    assert words in found
    assert bool(found) == bool(words)


def test_row_of_a_task_that_nobody_has_any_more_is_judged_by_its_worker_alone() -> None:
    assert phantom_words(fate(fence=99), KNOWN, {}) == ""
    assert phantom_words(fate("w2", 70), KNOWN, {TASK: replace(GIVEN[TASK], worker="")}) == ""


def test_row_far_ahead_stays_where_its_workers_clock_is_wrong() -> None:
    right, wrong = Lease("w1", "e", 100, False, 40), Lease("w1", "e", 100, False, 3_600_000)

    assert may_drop(fate(), KNOWN, {"w1": right})
    assert not may_drop(fate(), KNOWN, {"w1": wrong})
    assert not may_drop(fate(), KNOWN, {})
    assert may_drop(fate("w9"), KNOWN, {})


def written(town: Town, job: Job, fire_ms: int, worker: str = "w1", state: RunState = RunState.SUCCEEDED) -> RunKey:
    key = RunKey(TaskId(job.id, 0), fire_ms, 1)
    town.store.runs.record([Run(key, Trigger.TIMER, state, worker, nonce=f"n{key}", claimed_ms=fire_ms)])
    return key


def live(town: Town, seconds: int) -> None:
    for _ in range(seconds // 5):
        town.clock.advance_ms(5_000)
        town.step()


def test_rows_of_fires_to_come_are_removed_and_told_so_that_the_fires_run() -> None:
    town = Town("w1")
    job = town.create("* * * * *")
    live(town, 10)
    ahead = [written(town, job, NOON_MS + minute * 60_000, "w1" if minute % 2 else "nobody") for minute in (5, 6, 7)]
    live(town, 30)

    assert [key for key in ahead if key in {run.key for run in town.store.runs.history(job.id, limit=10)}] == []
    assert town.events("run.phantom") == [f"{job.id}/0"] * 3


def test_row_ahead_of_a_worker_whose_clock_is_wrong_is_told_and_stays() -> None:
    town = Town("w1")
    town.nodes["w1"].clock_offset_ms = 300_000
    job = town.create("* * * * *")
    live(town, 10)
    written(town, job, NOON_MS + 300_000)
    live(town, 30)

    assert len(town.store.runs.history(job.id, limit=10)) == 1
    assert town.events("run.phantom") == [f"{job.id}/0"]


@pytest.mark.parametrize("state", [RunState.CLAIMED, RunState.RUNNING])
def test_run_in_progress_of_a_worker_of_no_name_is_told_and_given_up_so_that_the_next_may_start(
    state: RunState,
) -> None:
    town = Town("w1")
    job = town.create("* * * * *", grace_s=60)
    live(town, 70)
    theirs = written(town, job, NOON_MS + 60_000, "nobody", state)
    live(town, 60)
    ours = written(town, job, NOON_MS + 120_000, "w1", state)
    live(town, 120)

    assert town.events("run.phantom") == [f"{job.id}/0"]
    assert town.store.runs.get(theirs).state is RunState.LOST
    assert town.store.runs.get(ours).state is state
    assert theirs not in {run.key for run in town.store.runs.open_runs([theirs.task])}


def test_row_of_a_worker_of_no_name_is_told_once_its_fire_is_over() -> None:
    town = Town("w1")
    job = town.create("* * * * *", grace_s=60)
    live(town, 70)
    written(town, job, NOON_MS + 60_000, "nobody")
    live(town, 180)

    assert town.events("run.phantom") == [f"{job.id}/0"]


# -------------------------------------------------------------------------------------------------------- altered rows


def signed(town: Town, job: Job) -> SignedRow:
    return town.store.audit.signed([job.id])[0]


def test_row_that_agrees_with_its_signed_task_is_in_order() -> None:
    town = Town("w1")

    assert alteration(signed(town, town.create("0 4 * * *", selector="zone=eu", labels={"a": "b"}))) == ""


def other_spec(row: SignedRow) -> str:
    return json.dumps(json.loads(row.spec) | {"executable": "evil"})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"generation": 7}, "generation"),
        ({"state": JobState.PAUSED}, "state"),
        ({"effective_from_ms": NOON_MS + 10**9}, "effective_from"),
        ({"spec": None}, "spec"),
        ({"schedule": "0 0 1 1 *"}, "schedule"),
        ({"timezone": "Europe/Berlin"}, "timezone"),
        ({"selector": "zone=mars"}, "selector"),
        ({"shards": 5}, "shards"),
        ({"job_id": 99}, "job_id"),
    ],
)
def test_each_column_that_was_changed_alone_shows(change: dict[str, Any], name: str) -> None:
    town = Town("w1")
    row = signed(town, town.create("0 4 * * *"))
    altered = replace(row, **(change if change.get("spec", "") is not None else {"spec": other_spec(row)}))

    assert name in alteration(altered)


def test_row_with_a_task_that_cannot_be_read_shows() -> None:
    town = Town("w1")
    row = signed(town, town.create("0 4 * * *"))

    assert all(
        alteration(replace(row, envelope=raw)) for raw in (b"", b"\xff", b"[]", b'{"v":1,"body":7}', b"[" * 9999)
    )


def test_leader_may_finish_or_withdraw_a_job_without_a_key() -> None:
    town = Town("w1")
    row = signed(town, town.create("0 4 * * *"))

    assert alteration(replace(row, state=JobState.FINISHED)) == ""
    assert alteration(replace(row, state=JobState.PAUSED, withdrawn=True)) == ""


def flip(town: Town, job: Job, state: JobState) -> None:
    memory = town.store.jobs._memory  # type: ignore[attr-defined]
    memory.jobs[job.id] = replace(memory.jobs[job.id], state=state, updated_ms=town.clock.now_ms())


@pytest.mark.parametrize(("before", "after"), [("active", "finished"), ("active", "paused"), ("finished", "active")])
def test_job_whose_state_was_changed_past_the_api_is_told(before: str, after: str) -> None:
    town = Town("w1")
    job = town.create("0 4 * * *")
    if before != "active":
        town.store.jobs.save_many([], [], [job.id])
    live(town, 90)
    flip(town, job, JobState(after))
    live(town, 90)

    assert str(job.id) in town.events("job.altered")


def test_each_job_whose_row_was_removed_past_the_api_is_told() -> None:
    town = Town("w1")
    jobs = [town.create("0 4 * * *") for _ in range(3)]
    live(town, 90)
    for job in jobs[:2]:
        town.store.jobs.delete(job.id)
    live(town, 90)
    town.store.jobs.delete(jobs[2].id)
    live(town, 90)

    assert sorted(town.events("job.altered")) == [str(job.id) for job in jobs]


def asked(action: str, kind: str, object_id: str, at_ms: int, new: dict[str, Any] | None = None) -> Entry:
    return Entry(f"{at_ms:032x}", at_ms, ADMIN, action, kind, object_id, new=text_of(new))


def test_jobs_that_somebody_or_the_leader_ended_are_not_told() -> None:
    town = Town("w1")
    asked_for, gone, once = town.create("0 4 * * *"), town.create("0 4 * * *"), town.create("@at 2026-03-01T12:01:00Z")
    live(town, 30)
    key = RunKey(TaskId(once.id, 0), NOON_MS + 60_000, 1)
    town.store.runs.record([Run(key, Trigger.TIMER, RunState.SUCCEEDED, "w1", nonce="n")])
    note = asked("job.finished", "job", str(asked_for.id), town.clock.now_ms())
    town.store.jobs.save_many([], [], [asked_for.id], trail=[note])
    town.store.jobs.delete(gone.id, trail=[asked("job.purged", "job", str(gone.id), town.clock.now_ms() + 1)])
    live(town, 180)

    assert town.store.jobs.get(once.id).state is JobState.FINISHED
    assert town.events("job.altered") == []


# --------------------------------------------------------------------------------------------------- tokens and cordons

TOKEN = Token(7, "ci", Role.OPERATOR, "d" * 64, NOON_MS, scope=EVERYWHERE)
MADE = asked("token.created", "token", "7", NOON_MS, token_facts(TOKEN))
REVOKED = asked("token.revoked", "token", "7", NOON_MS + 1)


def test_token_of_which_the_trail_tells_is_in_order() -> None:
    assert token_fault(TOKEN, [MADE]) == ""
    assert token_fault(replace(TOKEN, revoked_ms=NOON_MS), [MADE, REVOKED]) == ""


@pytest.mark.parametrize(
    ("token", "entries", "words"),
    [
        (TOKEN, [], "who made token 7"),
        (replace(TOKEN, role=Role.ADMIN), [MADE], "role admin"),
        (replace(TOKEN, digest="e" * 64), [MADE], "another secret"),
        (TOKEN, [MADE, REVOKED], "was revoked, and is not any more"),
    ],
)
def test_token_that_was_made_or_changed_past_the_api_shows(token: Token, entries: list[Entry], words: str) -> None:
    assert words in token_fault(token, entries)


def test_cordon_of_which_the_trail_tells_is_in_order_and_any_other_shows() -> None:
    cordon = Cordon("w1", cordoned=True, draining=False, changed_ms=NOON_MS)
    told = asked("worker.cordoned", "worker", "w1", NOON_MS, {"cordoned": True, "draining": False})

    assert cordon_fault(cordon, [told]) == ""
    assert "who asked" in cordon_fault(cordon, [])
    assert "who asked" in cordon_fault(replace(cordon, draining=True), [told])
    assert "who asked" in cordon_fault(replace(cordon, cordoned=False), [told])


def test_token_and_cordon_that_were_written_into_the_database_are_told_once() -> None:
    town = Town("w1")
    live(town, 20)
    made = town.store.tokens.add(name="evil", role=Role.ADMIN, digest="f" * 64, created_ms=1, expires_ms=None)
    town.store.cordons.save(Cordon("w1", cordoned=True, draining=False, changed_ms=1))
    live(town, 60)

    assert town.events("token.unknown") == [str(made.id)]
    assert town.events("cordon.unknown") == ["w1"]


# ----------------------------------------------------------------------------------------------------------- witnesses


def test_worker_is_half_seen_when_one_witness_alone_is_silent() -> None:
    fresh, stale = Lease("w1", "e", 100, False, 0), Lease("w1", "e", FRESH_LEASE_MS, False, 0)

    assert half_seen(True, fresh) == half_seen(False, stale) == half_seen(False, None) == ""
    assert "MySQL hears nothing" in half_seen(True, stale)
    assert "MySQL hears nothing" in half_seen(True, None)
    assert "ZooKeeper has no session" in half_seen(False, fresh)


def test_worker_that_only_zookeeper_has_heard_of_is_told_and_is_given_nothing() -> None:
    town = Town("w1")
    ghost = town.join("ghost")
    ghost.alive = True
    town.store.leases._memory.leases.pop("ghost")  # type: ignore[attr-defined]
    ghost.beat = lambda: None  # type: ignore[method-assign]
    jobs = [town.create("0 4 * * *") for _ in range(6)]
    live(town, int(HALF_SEEN_AFTER_S) + 30)

    assert set(town.homes().values()) == {"w1"}
    assert len(town.homes()) == len(jobs)
    assert town.events("worker.half_seen") == ["ghost"]


ANNA = Token(7, "https://issuer#anna", Role.VIEWER, digest_of("https://issuer", "anna"), 1, 1, NOON_MS)


def _identity(action: str) -> Entry:
    return replace(MADE, action=action, kind="identity", object_id=ANNA.name, new="")


@pytest.mark.parametrize(
    ("token", "actions", "words"),
    [
        (ANNA, ["identity.denied"], ""),
        (ANNA, ["identity.denied", "identity.allowed", "identity.denied"], ""),
        (replace(ANNA, revoked_ms=None), ["identity.denied", "identity.allowed"], ""),
        (replace(ANNA, revoked_ms=None), [], ""),
        (ANNA, [], "does not tell who asked for it"),
        (ANNA, ["identity.denied", "identity.allowed"], "does not tell who asked for it"),
        (replace(ANNA, revoked_ms=None), ["identity.denied"], "was denied, and is not any more"),
        (replace(ANNA, digest=digest_of("https://issuer", "ben")), ["identity.denied"], "is altered"),
        (replace(ANNA, name="https://issuer#ben"), ["identity.denied"], "is altered"),
    ],
)
def test_a_denial_that_nobody_asked_for_or_lifted_is_told(token: Token, actions: list[str], words: str) -> None:
    found = identity_fault(token, [_identity(action) for action in actions])
    assert words in found
    assert bool(words) is bool(found)
