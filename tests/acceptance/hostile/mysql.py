"""The attacks of whoever holds MySQL's password.

What they cannot be kept from, and what is told: ending, pausing and removing jobs, making tokens, cordoning workers.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import Any

from sqlalchemy import create_engine

from tests.acceptance.hostile.ground import Ground, Job, Sign, Table

attack = Table()
#: Grace is short there: what a row hides is looked at when the grace is over.
HASTY = {"grace_s": 5}


class Intruder:
    """MySQL, with all rights on the fleet's tables."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.engine = create_engine(ground.cluster.env["CRONKEEPER_DATABASE_URL"])

    def sql(self, text: str, *values: object) -> None:
        with self.engine.begin() as conn:
            conn.exec_driver_sql(text, values)

    def rows(self, text: str, *values: object) -> list[Any]:
        with self.engine.begin() as conn:
            return list(conn.exec_driver_sql(text, values))

    def close(self) -> None:
        self.engine.dispose()

    # -- what the attacks have in common

    def row(self, job: Job) -> Any:
        return self.rows("SELECT * FROM jobs WHERE id = %s", job["id"])[0]

    def write(self, job: Job, **columns: object) -> None:
        named = ", ".join(f"`{name}` = %s" for name in columns)
        touched = "updated_ms = FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000)"
        self.sql(f"UPDATE jobs SET {named}, {touched} WHERE id = %s", *columns.values(), job["id"])

    def change(self, job: Job, words: str, *, silences: bool = False, **columns: object) -> Sign:
        """Change columns of a job past the API; `words` are what the event must say."""
        before = self.row(job)._mapping
        kept = {name: before[name] for name in columns}
        self.write(job, **columns)
        return Sign(
            told=lambda: self.ground.event_says("job.altered", job["id"], words),
            silences=silences,
            mend=lambda: self.write(job, **kept),
        )

    def record(self, job: Job, fires: list[int], **fields: object) -> None:
        """Write rows into the ledger, as a worker would have claimed these fires."""
        row = {
            "job_id": job["id"], "shard": 0, "attempt": 1, "trigger": "timer", "state": "succeeded", "worker": "nobody",
            "nonce": "f" * 32, "generation": 1, "fence": 1, "autonomous": 0, "output_tail": "", "output_bytes": 0,
            "cancel_requested": 0, **fields,
        }  # fmt: skip
        names = ", ".join(f"`{name}`" for name in ["fire_ms", *row])
        marks = ", ".join(["%s"] * (len(row) + 1))
        with self.engine.begin() as conn:
            for fire_ms in fires:
                conn.exec_driver_sql(f"INSERT INTO runs ({names}) VALUES ({marks})", (fire_ms, *row.values()))

    def move(self, job: Job) -> None:
        """Have another worker get the job, as an admin would: one that no attack has cordoned."""
        owner, ask = self.ground.owner(job), self.ground.cluster.request
        others = [name for name in ("w1", "w2", "w3") if name != owner]
        answers = (ask("POST", f"/jobs/{job['id']}/reassign", {"worker": name}) for name in others)
        assert any(answer.status == 200 for answer in answers), f"{others} may not have it"
        # The next attack may cordon the one that is to have it.
        given = "SELECT 1 FROM assignments WHERE job_id = %s AND worker NOT IN ('', %s)"
        self.ground.cluster.wait(lambda: self.rows(given, job["id"], owner), "another worker is given it", 60)

    def next_fires(self, after_s: int, count: int) -> list[int]:
        now_ms = time.time_ns() // 1_000_000
        return [((now_ms + after_s * 1000) // 5000 + number) * 5000 for number in range(1, count + 1)]


@attack()
def a_task_signed_by_a_stranger(us: Intruder, job: Job) -> Sign:
    return us.change(job, "spec", envelope=us.ground.forged(int(job["id"]), "mysql-stranger"), generation=1000)


@attack()
def another_command_under_a_genuine_signature(us: Intruder, job: Job) -> Sign:
    genuine = bytes(us.row(job).envelope)
    sign = us.change(job, "spec", envelope=us.ground.altered(genuine, "mysql-altered"), generation=2)
    return Sign(told=lambda: sign.told and sign.told() and us.ground.log_says("task.refused", task=f"{job['id']}/0"),
                mend=sign.mend)  # fmt: skip


@attack()
def another_command_in_the_row_alone(us: Intruder, job: Job) -> Sign:
    spec = json.loads(us.row(job).spec) | {"executable": us.ground.command("mysql-spec")}
    return us.change(job, "spec", spec=json.dumps(spec))


@attack()
def the_genuine_task_of_another_job_and_namespace(us: Intruder, job: Job) -> Sign:
    evil = us.ground.cluster.post_job(
        executable=us.ground.command("mysql-other"), type="command", schedule="@yearly", namespace="theirs"
    )
    return us.change(job, "job_id", envelope=bytes(us.row(evil).envelope), generation=2)


@attack()
def two_jobs_rows_swapped(us: Intruder, job: Job) -> Sign:
    evil = us.ground.cluster.post_job(executable=us.ground.command("mysql-swap"), type="command", schedule="@yearly")
    other = us.row(evil)
    return us.change(job, "job_id", spec=other.spec, envelope=bytes(other.envelope), schedule="*/5 * * * * *")


@attack()
def the_whole_row_of_an_older_generation_put_back(us: Intruder, job: Job) -> Sign:
    old = us.row(job)
    changed = us.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {"description": "newer"})
    assert changed.status == 200, changed.body
    # The leader has seen the newer one, and its worker has run it.
    us.ground.cluster.wait(lambda: us.ground.ran_by_generation(job, 2, since_ms=0), "the newer one has run")
    now_ms = time.time_ns() // 1_000_000
    us.write(job, spec=old.spec, envelope=bytes(old.envelope), generation=old.generation,
             effective_from_ms=old.effective_from_ms)  # fmt: skip
    # The leader has put the older one into the tree by then: a worker that never had the newer one sees nothing else.
    us.ground.cluster.wait(lambda: us.ground.event_says("job.altered", job["id"], "went back"), "the leader tells", 60)
    us.move(job)

    def told() -> bool:
        words = "generation 1, and generation 2 has run already"
        return us.ground.log_says("task.refused", words, task=f"{job['id']}/0")

    def change_it_again() -> None:
        """As an admin does who was told: the next generation is one that may run."""
        assert us.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {"description": "again"}).status == 200

    return Sign(told=told, never=lambda: us.ground.ran_by_generation(job, 1, since_ms=now_ms), mend=change_it_again)


@attack()
def rows_of_the_ledger_by_a_generation_to_come(us: Intruder, job: Job) -> Sign:
    """Whoever is given the job next takes it for an older one than has run: the job waits for somebody to look."""
    (given,) = us.rows("SELECT epoch FROM assignments WHERE job_id = %s", job["id"])
    us.record(job, us.next_fires(20, 1), worker=us.ground.owner(job), fence=given.epoch, generation=10**12)
    us.move(job)
    return Sign(
        told=lambda: us.ground.log_says("task.refused", f"generation {10**12} has run", task=f"{job['id']}/0"),
        mend=lambda: us.sql("DELETE FROM runs WHERE job_id = %s AND generation = %s", job["id"], 10**12),
    )


@attack()
def a_task_of_random_bytes(us: Intruder, job: Job) -> Sign:
    return us.change(job, "cannot be read", envelope=b"\xff" * 1000, generation=2)


@attack()
def a_task_that_is_empty(us: Intruder, job: Job) -> Sign:
    return us.change(job, "cannot be read", envelope=b"", generation=2)


@attack()
def a_generation_set_ahead(us: Intruder, job: Job) -> Sign:
    return us.change(job, "generation", generation=10**12)


@attack()
def a_row_of_their_own_with_an_assignment(us: Intruder, job: Job) -> Sign:
    number = int(job["id"]) + 700_000
    columns = "namespace, generation, state, schedule, timezone, selector, shards, effective_from_ms, created_ms"
    us.sql(
        f"INSERT INTO jobs (id, name, updated_ms, search, spec, envelope, {columns}) SELECT {number}, 'theirs', "
        f"FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000), '', spec, %s, {columns} FROM jobs WHERE id = %s",
        us.ground.forged(number, "mysql-row-of-their-own"), job["id"],
    )  # fmt: skip
    us.sql(
        f"INSERT INTO assignments SELECT {number}, shard, worker, generation, epoch, reason, assigned_ms, since_ms"
        " FROM assignments WHERE job_id = %s",
        job["id"],
    )

    def remove() -> None:
        for table, column in (("jobs", "id"), ("assignments", "job_id"), ("job_labels", "job_id")):
            us.sql(f"DELETE FROM {table} WHERE {column} = {number}")

    return Sign(
        told=lambda: (
            us.ground.log_says("task.refused", task=f"{number}/0") and us.ground.event_says("job.altered", number)
        ),
        mend=remove,
    )


@attack()
def a_job_paused_as_a_leader_would(us: Intruder, job: Job) -> Sign:
    return us.change(job, "paused", silences=True, state="paused", paused_generation=1)


@attack()
def a_job_set_to_finished(us: Intruder, job: Job) -> Sign:
    return us.change(job, "finished", silences=True, state="finished")


@attack()
def a_job_removed(us: Intruder, job: Job) -> Sign:
    us.sql("DELETE FROM jobs WHERE id = %s", job["id"])
    return Sign(told=lambda: us.ground.event_says("job.altered", job["id"], "gone"), silences=True)


@attack()
def a_selector_that_no_worker_matches(us: Intruder, job: Job) -> Sign:
    return us.change(job, "selector", silences=True, selector="zone=mars")


@attack()
def a_schedule_that_never_comes(us: Intruder, job: Job) -> Sign:
    return us.change(job, "schedule", schedule="0 0 30 2 *")


@attack()
def rows_of_the_ledger_for_fires_far_ahead(us: Intruder, job: Job) -> Sign:
    """By a real worker's name and the present epoch: they are removed before the fires are due, and those run."""
    owner = us.ground.owner(job)
    (given,) = us.rows("SELECT epoch FROM assignments WHERE job_id = %s", job["id"])
    fires = us.next_fires(70, 6)
    us.record(job, fires, worker=owner, fence=given.epoch)
    wanted = {f"{job['id']}-0-{fire_ms}-1" for fire_ms in fires}

    def have_run() -> bool:
        runs = {run["id"]: run for run in us.ground.cluster.runs(job["id"]) if run["state"] == "succeeded"}
        return all(one in runs and runs[one]["started_at"] for one in wanted)

    return Sign(told=lambda: us.ground.event_says("run.phantom", f"{job['id']}/0", "removed"), healed=have_run)


@attack()
def rows_of_the_ledger_by_a_worker_of_no_name(us: Intruder, job: Job) -> Sign:
    us.record(job, us.next_fires(1, 3))
    return Sign(told=lambda: us.ground.event_says("run.phantom", f"{job['id']}/0", "no worker here is called"))


@attack()
def rows_of_the_ledger_by_another_worker(us: Intruder, job: Job) -> Sign:
    owner = us.ground.owner(job)
    (given,) = us.rows("SELECT epoch FROM assignments WHERE job_id = %s", job["id"])
    other = next(name for name in ("w1", "w2", "w3") if name != owner)
    us.record(job, us.next_fires(1, 3), worker=other, fence=given.epoch, state="skipped", reason="late")
    return Sign(told=lambda: us.ground.event_says("run.phantom", f"{job['id']}/0", f"the task is {owner}'s"))


@attack()
def rows_of_the_ledger_by_an_epoch_to_come(us: Intruder, job: Job) -> Sign:
    us.record(job, us.next_fires(1, 3), worker=us.ground.owner(job), fence=10**15, state="running")
    return Sign(told=lambda: us.ground.event_says("run.phantom", f"{job['id']}/0", "never given to anybody"))


@attack(**HASTY)
def rows_of_the_ledger_dressed_up_as_manual_runs(us: Intruder, job: Job) -> Sign:
    us.record(job, us.next_fires(1, 3), trigger="manual")
    return Sign(told=lambda: us.ground.event_says("run.phantom", f"{job['id']}/0"))


@attack()
def an_admins_token_made(us: Intruder, job: Job) -> Sign:
    secret = "ck_" + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    us.sql("INSERT INTO tokens (name, role, digest, created_ms) VALUES ('theirs', 'admin', %s, 1)", digest)
    ((number,),) = us.rows("SELECT id FROM tokens WHERE digest = %s", digest)
    return Sign(
        told=lambda: us.ground.event_says("token.unknown", number, "who made"),
        mend=lambda: us.sql("DELETE FROM tokens WHERE digest = %s", digest),
    )


@attack()
def a_viewers_token_made_an_admins(us: Intruder, job: Job) -> Sign:
    made = us.ground.cluster.request("POST", "/tokens", {"name": "viewer", "role": "viewer"}).json()
    us.sql("UPDATE tokens SET role = 'admin' WHERE id = %s", made["id"])
    return Sign(
        told=lambda: us.ground.event_says("token.unknown", made["id"], "role admin"),
        mend=lambda: us.sql("DELETE FROM tokens WHERE id = %s", made["id"]),
    )


@attack()
def a_revoked_token_made_good_again(us: Intruder, job: Job) -> Sign:
    made = us.ground.cluster.request("POST", "/tokens", {"name": "gone", "role": "operator"}).json()
    assert us.ground.cluster.request("DELETE", f"/tokens/{made['id']}").status == 204
    us.sql("UPDATE tokens SET revoked_ms = NULL WHERE id = %s", made["id"])
    return Sign(
        told=lambda: us.ground.event_says("token.unknown", made["id"], "was revoked"),
        mend=lambda: us.sql("DELETE FROM tokens WHERE id = %s", made["id"]),
    )


@attack()
def a_worker_cordoned(us: Intruder, job: Job) -> Sign:
    us.sql("REPLACE INTO cordons (worker, cordoned, draining, changed_ms) VALUES ('w2', 1, 0, 1)")
    return Sign(
        told=lambda: us.ground.event_says("cordon.unknown", "w2", "who asked"),
        mend=lambda: us.ground.uncordon("w2"),
    )


@attack()
def a_dead_worker_kept_alive_by_its_lease(us: Intruder, job: Job) -> Sign:
    us.sql(
        "INSERT INTO leases (worker, incarnation, lost_incarnation, beat_ms, clock_offset_ms, info)"
        " VALUES ('w7', 'e', '', FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000) + 3600000, 0, '')"
    )
    return Sign(
        told=lambda: us.ground.event_says("worker.half_seen", "w7", "ZooKeeper has no session"),
        mend=lambda: us.sql("DELETE FROM leases WHERE worker = 'w7'"),
    )


@attack()
def a_living_worker_declared_lost(us: Intruder, job: Job) -> Sign:
    owner = us.ground.owner(job)
    us.sql("UPDATE leases SET lost_incarnation = incarnation WHERE worker = %s", owner)
    return Sign(told=lambda: us.ground.log_says("worker.was_lost"), healed=lambda: us.ground.cluster.owner(job["id"]))


@attack(env={"MINE": {"secret": "mine"}}, schedule="@yearly")
def anothers_secret_in_the_place_of_mine(us: Intruder, job: Job) -> Sign:
    """The box opens for the name that it was sealed for alone, so the run is not started."""
    us.sql("UPDATE secrets AS a, secrets AS b SET a.box = b.box WHERE a.name = 'mine' AND b.name = 'yours'")
    changed = us.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {
        "schedule": "*/5 * * * * *", "executable": f"test \"$MINE\" != yours || {us.ground.command('secret')}",
    })  # fmt: skip
    if changed.status >= 400:
        return Sign(told=lambda: changed.status in (409, 422, 503))

    def told() -> bool:
        return any(run["reason"] == "secret_unreadable" for run in us.ground.cluster.runs(job["id"]))

    return Sign(told=told, silences=True)


@attack()
def a_job_moved_by_a_request_that_nobody_made(us: Intruder, job: Job) -> Sign:
    owner = us.ground.owner(job)
    other = next(name for name in ("w1", "w2", "w3") if name != owner)
    us.sql("REPLACE INTO move_requests (job_id, shard, worker, requested_ms) VALUES (%s, 0, %s, 1)", job["id"], other)
    return Sign(told=lambda: us.ground.event_says("move.fulfilled", f"{job['id']}/0")
                or us.ground.event_says("move.impossible", f"{job['id']}/0"))  # fmt: skip
