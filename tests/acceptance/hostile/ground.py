"""What all attackers share: jobs of others, which must fire on, a folder that only their commands write to, the table.

An attack is a function with a name. It is given a store and a job of somebody else's, does its harm, and says what
must be seen then: `told` (an event, a log line, a refusal, a reason of a run), `healed`, or both. Each is asked for
by its own test; that nothing of theirs ran, and that each job fires on (but those that an attack silences, which are
told of), is asked at the end.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.wire.task import Signer, Task
from tests.harness.cluster import Cluster

TICKING = {"schedule": "*/5 * * * * *", "type": "command", "misfire": "all", "executable": "true", "grace_s": 30}
STRANGER = Signer.from_seed(secrets.token_bytes(32))
Job = dict[str, Any]
Check = Callable[[], object]


@dataclass(frozen=True)
class Sign:
    """What gives an attack away, or undoes it. `told` and `healed` are asked until they are true."""

    told: Check | None = None
    healed: Check | None = None
    #: The job does not fire on: whoever holds that store's password can do that, and it is told.
    silences: bool = False
    #: What must not be true at the end.
    never: Check | None = None
    #: Puts back what nobody heals.
    mend: Callable[[], None] | None = None


class Ground:
    """A cluster, and what it says of itself."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.begun_s = time.time()
        self._from = {part.name: len(part.log_text()) for part in self._parts()}

    def _parts(self) -> list[Any]:
        cluster = self.cluster
        return [*cluster.apis, *cluster.managers, *cluster.workers.values()]

    def command(self, name: str) -> str:
        """Return a command of the attacker's. It must never run."""
        return f"touch {self.folder}/{name}"

    def see_that_a_command_would_leave_a_trace(self) -> None:
        """Run such a command in earnest: if it left no trace, neither would theirs."""
        job = self.cluster.post_job(**{**TICKING, "executable": self.command("in-earnest")})
        trace = self.folder / "in-earnest"
        self.cluster.wait(trace.exists, "a command of ours leaves a trace", 90)
        assert self.cluster.request("DELETE", f"/jobs/{job['id']}").status < 300
        time.sleep(2)
        trace.unlink()

    def forged(self, job_id: int, name: str, *, generation: int = 1000) -> bytes:
        """Return a task that runs the attacker's command, signed by the attacker."""
        spec = JobSpec(self.command(name), "*/5 * * * * *", JobType.COMMAND)
        return STRANGER.seal(Task(job_id, generation, JobState.ACTIVE, 0, spec))

    def altered(self, genuine: bytes, name: str) -> bytes:
        """Return a genuine task with another command in it: everything is right but the signature."""
        outer = json.loads(genuine)
        body = json.loads(outer["body"])
        body["spec"]["executable"] = self.command(name)
        outer["body"] = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return json.dumps(outer).encode()

    def lines(self, event: str) -> Iterator[dict[str, Any]]:
        """Yield what the logs have said of this event since the attacks began."""
        for part in self._parts():
            for line in part.log_text()[self._from.get(part.name, 0) :].splitlines():
                if f'"{event}"' in line:
                    try:
                        said = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(said, dict) and said.get("event") == event:
                        yield said

    def log_says(self, event: str, words: str = "", **facts: object) -> bool:
        return any(
            words in json.dumps(said) and all(str(said.get(key)) == str(value) for key, value in facts.items())
            for said in self.lines(event)
        )

    def event_says(self, kind: str, subject: object, words: str = "") -> bool:
        """Say whether the API tells of such an event."""
        answer = self.cluster.get(f"/events?kind={kind}&limit=200")
        assert answer.status == 200, answer.body
        return any(event["subject"] == str(subject) and words in event["detail"] for event in answer.json())

    def ran_by_generation(self, job: Job, generation: int, *, since_ms: int) -> bool:
        """Say whether the ledger has a run of that generation that was claimed since then."""
        engine = create_engine(self.cluster.env["CRONKEEPER_DATABASE_URL"])
        text = "SELECT COUNT(*) FROM runs WHERE job_id = %s AND generation = %s AND claimed_ms > %s"
        with engine.begin() as conn:
            count = conn.exec_driver_sql(text, (job["id"], generation, since_ms)).scalar_one()
        engine.dispose()
        return bool(count)

    def done(self, job: Job) -> int:
        return sum(run["state"] == "succeeded" and run["trigger"] != "manual" for run in self.cluster.runs(job["id"]))

    def uncordon(self, worker: str) -> None:
        """Put a worker in order again, as an admin would."""
        assert self.cluster.request("POST", f"/workers/{worker}/uncordon", {}).status == 200

    def owner(self, job: Job) -> str:
        return str(self.cluster.wait(lambda: self.cluster.owner(job["id"]), "it has a worker", 60))


@dataclass(frozen=True)
class Attack:
    name: str
    act: Callable[[Any, Job], Sign]
    #: What the attacked job has beyond TICKING.
    job: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def ticks(job: Job) -> bool:
    """Say whether a job fires from the start: those with files are let loose by their attacks."""
    return bool(job["schedule"] == TICKING["schedule"] and job["type"] == "command")


class Table:
    """Attacks by their names, in the order in which they are written."""

    def __init__(self) -> None:
        self.attacks: list[Attack] = []

    def __call__(self, **job: Any) -> Callable[[Callable[[Any, Job], Sign]], Callable[[Any, Job], Sign]]:
        def add(act: Callable[[Any, Job], Sign]) -> Callable[[Any, Job], Sign]:
            self.attacks.append(Attack(act.__name__.replace("_", " "), act, job))
            return act

        return add


class Watch:
    """Looks out for the signs of all attacks, in turn, until all were seen or the time is over."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[int, str, str], Check] = {}
        #: What a look came to that ended in an error.
        self.faults: dict[tuple[int, str, str], BaseException] = {}
        self.done = threading.Event()

    def has_seen(self, battle: Battle, name: str) -> bool:
        return not any((id(battle), name, what) in self.waiting for what in ("told", "healed"))

    def look_out(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            while self.waiting and time.monotonic() < deadline and not self.done.wait(1.0):
                for key, check in list(self.waiting.items()):
                    try:
                        if check():
                            del self.waiting[key]
                    except Exception as exc:  # noqa: BLE001 - it may be well at the next look; the last one is told
                        self.faults[key] = exc
        finally:
            self.done.set()


@dataclass
class Battle:
    """All attacks of one attacker, done side by side: each on a job of its own."""

    ground: Ground
    attacker: Any
    jobs: dict[str, Job] = field(default_factory=dict)
    signs: dict[str, Sign] = field(default_factory=dict)
    faults: dict[str, BaseException] = field(default_factory=dict)
    _watch: Watch = field(default_factory=Watch)

    def post(self, attacks: list[Attack], **beside: Any) -> None:
        """Post the jobs of others and see those fire that do; with `beside`, two more that nobody attacks."""
        with ThreadPoolExecutor(8) as pool:
            posted = pool.map(self._post, attacks)
            self.jobs = {attack.name: job for attack, job in zip(attacks, posted, strict=True)}
        for number in range(2 if beside else 0):
            self.jobs[f"beside {number}"] = self.ground.cluster.post_job(**TICKING, **beside)
        for name, job in self.jobs.items():
            if ticks(job):
                self.ground.cluster.wait(lambda: self.ground.done(job), f"the job of {name} fires", 90)  # noqa: B023

    def _post(self, attack: Attack) -> Job:
        fields = {**TICKING, "name": f"o-{secrets.token_hex(5)}", **attack.job}
        return self.ground.cluster.post_job(**fields)

    def fight(self, attacks: list[Attack]) -> None:
        for attack in attacks:
            try:
                self.signs[attack.name] = attack.act(self.attacker, self.jobs[attack.name])
            except Exception as exc:  # noqa: BLE001 - one attack that cannot be done must not hide the others
                self.faults[attack.name] = exc

    def see(self, name: str) -> None:
        """Assert that the attack was told of, or healed, or both: as its sign says."""
        if name in self.faults:
            raise self.faults[name]
        sign = self.signs[name]
        assert sign.told or sign.healed, "an attack that is neither told nor healed"
        while not self._watch.done.wait(0.2) and not self._watch.has_seen(self, name):
            pass
        for what in ("told", "healed"):
            key = (id(self), name, what)
            assert key not in self._watch.waiting, f"it is {what} (last fault: {self._watch.faults.get(key)!r})"

    def watch_with(self, watch: Watch) -> None:
        """Have somebody look out for the signs of all attacks at once."""
        self._watch = watch
        for name, sign in self.signs.items():
            for what, check in (("told", sign.told), ("healed", sign.healed)):
                if check is not None:
                    watch.waiting[id(self), name, what] = check

    def nothing_ran_and_all_fire_on(self) -> None:
        """Mend what nobody heals, then see every job fire; nothing of the attacker's has run meanwhile."""
        cluster, spared = self.ground.cluster, []
        for name, job in self.jobs.items():
            sign = self.signs.get(name)
            if sign is not None and sign.mend is not None:
                sign.mend()
            if ticks(job) and not (sign is not None and sign.silences):
                spared.append((name, job, self.ground.done(job)))
        for name, job, before in spared:
            cluster.wait(lambda: self.ground.done(job) >= before + 2, f"the job of {name} fires on", 90)  # noqa: B023
        for name, sign in self.signs.items():
            assert sign.never is None or not sign.never(), f"{name}: what must never be"
        assert [path.name for path in self.ground.folder.iterdir()] == [], "a command of theirs has run"

    def end(self) -> None:
        for job in self.jobs.values():
            self.ground.cluster.request("DELETE", f"/jobs/{job['id']}")
