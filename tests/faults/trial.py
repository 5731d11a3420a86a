"""One fault trial: what was asked of a fleet, what was done to it, what its jobs did, and what the checker says of it.

    with Trial(fleet, folder) as trial:
        trial.post("tick", schedule="* * * * * *")
        trial.wait(5)
        with trial.fault(FaultKind.CUT_ZOOKEEPER, ["w1"]):
            trial.wait(20)
        trial.finish()

Everything random is drawn from `seed`, which is printed; CRONKEEPER_SEED replays one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from cronkeeper.domain.job import JobSpec, JobType, spec_to_dict
from tests.faults import reading
from tests.faults.checker.history import FaultKind, write_lines
from tests.faults.checker.policy import PAD_S
from tests.faults.fleet import Fleet
from tests.faults.nemesis import strike, wait_well
from tests.faults.operation import Operation
from tests.harness.cluster import Answer
from tests.harness.folders import remove_folder
from tests.harness.network import Fault

PROBE = Path(__file__).with_name("probe.sh")
SEED_VARIABLE = "CRONKEEPER_SEED"
#: The problem that says that nothing was saved; any other 5xx leaves it open.
NOTHING_SAVED = "/problems/unavailable"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What counts as on time, and how long news and recovery may take, seconds."""

    on_time_s: float = 2.5
    propagation_s: float = 8.0
    recovery_s: float = 15.0
    skew_s: float = 0.25


@dataclass(slots=True)
class _Struck:
    """A fault that was done, and when."""

    kind: FaultKind
    targets: list[str]
    started_s: float
    fault: Fault
    ended_s: float | None = None
    healed_s: float | None = None

    def line(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "targets": self.targets,
            "started_s": self.started_s,
            "ended_s": self.ended_s,
            "healed_s": self.healed_s,
        }


@dataclass(slots=True)
class _Posted:
    """A job as this trial knows it."""

    id: str | None
    spec: dict[str, Any]
    generation: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Trial:
    """Records a history in `folder` while you hurt the fleet; `finish` heals it, lets it recover, and judges.

    The calling thread is in the fleet's network from `with` on. The history stays in `folder`, whatever happens.
    """

    def __init__(
        self,
        fleet: Fleet,
        folder: Path,
        *,
        seed: int | None = None,
        bounds: Bounds | None = None,
        keeps_jobs: bool = False,
        probe: Path = PROBE,
    ) -> None:
        self.fleet = fleet
        self.folder = folder
        self.seed = seed if seed is not None else seed_from_environment()
        self.bounds = bounds or Bounds()
        self.chance = random.Random(self.seed)
        self.jobs: dict[str, _Posted] = {}
        self.started_s = time.time()
        # Below the fleet's own folder, which every node sees, whatever its disks are.
        self._work = fleet.cluster.folder / f"trial-{uuid.uuid4().hex[:8]}"
        self._work.mkdir(mode=0o755)
        self._ops: list[dict[str, Any]] = []
        self._struck: list[_Struck] = []
        self._owners: list[dict[str, Any]] = []
        self._stack = contextlib.ExitStack()
        self._longest_s = 0.0
        self._written = False
        #: Its jobs need not be removed: the fleet ends with it.
        self._keeps_jobs = keeps_jobs
        #: What its jobs run: tests/faults/probe.sh, or a program that writes the same.
        self._probe = probe
        #: A fixture never hears of its test's failure: what was not found right has failed.
        self._passed = False

    def __enter__(self) -> Self:
        print(f"trial: seed {self.seed}, history in {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)
        truth = self._work / "truth"
        truth.mkdir()
        # Jobs run under an account of their own and write here.
        truth.chmod(0o1777)
        shutil.copy(self._probe, self._work / self._probe.name)
        with self.fleet.entered():
            wait_well(self.fleet)
        self._stack.callback(remove_folder, self._work)
        self._stack.enter_context(self.fleet.entered())
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever cannot be healed: the rest is done, and the fault is told last.
        with self._stack, contextlib.ExitStack() as healing:
            healing.callback(self.heal)
            with contextlib.suppress(Exception):
                self.heal()
            if not self._written:
                with contextlib.suppress(Exception):
                    self._write(time.time())
            if not self._passed:
                self._keep_logs()
                print(f"trial: seed {self.seed} failed; its history is in {self.folder}")
            with contextlib.suppress(Exception):
                wait_well(self.fleet)
            if not self._keeps_jobs:
                self._purge()

    # -- what a user does

    def post(self, name: str, *, sleep_s: float = 0, exit_status: int = 0, **fields: Any) -> str | None:
        """Create a job that runs the probe; return its id, or None if that is not known or it was refused.

        `name` tells its lines in the truth. `fields` are those of `POST /jobs`; `schedule` is among them.
        """
        self._op("create", name, "POST", "/jobs", self._body(name, sleep_s, exit_status, fields))
        return self.jobs[name].id

    def post_herd(self, names: Sequence[str], **fields: Any) -> None:
        """Create many jobs of one kind in one request: `POST /apply`."""
        bodies = {name: self._body(name, 0, 0, fields) for name in names}
        invoked_s = time.time()
        answer = self.fleet.cluster.request("POST", "/apply", {"jobs": list(bodies.values())})
        assert answer.status == 200, answer.body[:500]
        ids = {one["name"]: one["id"] for one in answer.json()["created"]}
        for name, body in bodies.items():
            self.jobs[name].id, self.jobs[name].generation = ids[body["name"]], 1
            self._note_op("create", name, invoked_s, "ok", answer.status)

    def edit(self, name: str, **fields: Any) -> bool:
        """Change fields of a job; return whether that is known to be done."""
        posted = self.jobs[name]
        posted.spec = {**posted.spec, **fields}
        return self._op("replace", name, "PATCH", f"/jobs/{posted.id}", fields)

    def pause(self, name: str) -> bool:
        """Stop firing a job."""
        return self._op("pause", name, "POST", f"/jobs/{self.jobs[name].id}/pause")

    def resume(self, name: str) -> bool:
        """Go on firing a paused job."""
        return self._op("resume", name, "POST", f"/jobs/{self.jobs[name].id}/resume")

    def delete(self, name: str) -> bool:
        """Take a job off the schedule for good; its history stays."""
        return self._op("delete", name, "DELETE", f"/jobs/{self.jobs[name].id}")

    def run(self, name: str) -> bool:
        """Run a job now, besides its schedule."""
        return self._op("run", name, "POST", f"/jobs/{self.jobs[name].id}/run")

    def wait(self, seconds: float) -> None:
        """Let that much time pass."""
        time.sleep(seconds)

    def settle(self) -> None:
        """Wait until what was asked for must be known everywhere: a fault that comes earlier excuses that it is not.

        Call it between the posts and the first fault, or the fires that fall into the fault are not required.
        """
        asked_s = max((op["completed_s"] for op in self._ops), default=0.0)
        self.wait(max(0.0, asked_s + self.bounds.propagation_s + PAD_S + 0.5 - time.time()))

    def owner(self, name: str) -> str:
        """Return the worker that has an unsharded job, once it has one."""
        job_id = str(self.jobs[name].id)
        return self.fleet.cluster.wait(lambda: self.fleet.cluster.owner(job_id), f"{name} is placed", 30) or ""

    def starts(self, name: str) -> list[dict[str, Any]]:
        """Return the start lines that a job's runs have written so far, oldest first."""
        return [
            line
            for line in reading.truth_lines(self._work / "truth")
            if line["edge"] == "start" and line["name"] == name
        ]

    # -- what happens to the fleet

    def strike(self, kind: FaultKind, targets: Sequence[str], how: str = "") -> Fault:
        """Do a fault of the nemesis; what is returned takes it back and notes when. `finish` does so at the latest."""
        operation = Operation(kind, tuple(targets), how, self.chance.getrandbits(32))
        started_s = time.time()
        struck = _Struck(kind, list(targets), started_s, strike(self.fleet, operation))
        self._struck.append(struck)
        return _Noted(struck)

    @contextlib.contextmanager
    def fault(self, kind: FaultKind, targets: Sequence[str], how: str = "") -> Iterator[None]:
        """The same for the length of a `with`."""
        struck = self.strike(kind, targets, how)
        try:
            yield
        finally:
            struck.heal()

    def note_fault(self, kind: FaultKind, targets: Sequence[str], fault: Fault) -> Fault:
        """Note a fault that the test has just done by itself, with what takes it back."""
        struck = _Struck(kind, list(targets), time.time(), fault)
        self._struck.append(struck)
        return _Noted(struck)

    def heal(self) -> None:
        """Take back every fault that is still there. What fails is raised once all others have been tried."""
        with contextlib.ExitStack() as stack:
            for struck in reversed(self._struck):
                stack.callback(_Noted(struck).heal)

    def note_owners(self) -> None:
        """Write down who has which task, and which crontab names it; call it when nothing is on the move."""
        given = reading.assigned(self.fleet)
        look = {"at_s": time.time(), "assigned": given, "crontabs": reading.crontabs(self.fleet, given)}
        self._owners.append(look)

    # -- the end

    def finish(self, *, steady_s: float = 22.0, demand: bool = True) -> Any:
        """Heal all, wait for the recovery, let it tick for `steady_s`, read everything, and judge.

        Returns the checker's report; with `demand` raises AssertionError with its text if it is not ok.
        """
        from tests.faults.checker import check
        from tests.faults.checker.history import read_history

        self.heal()
        healed_s = max((struck.healed_s or 0.0 for struck in self._struck), default=time.time())
        wait_well(self.fleet)
        self.wait(max(0.0, healed_s + self.bounds.recovery_s + steady_s - time.time()))
        self.note_owners()
        read_s = time.time()
        # What has begun by now shall have ended and be written down.
        self.wait(self._longest_s + 3.0)
        self._write(read_s)
        report = check(read_history(self.folder))
        print(report.text())
        assert report.ok or not demand, f"seed {self.seed}: {self.folder}\n{report.text()}"
        self._passed = report.ok
        return report

    def _write(self, read_s: float) -> None:
        """Write the history; what began after `read_s` is left out of truth and ledger alike."""
        self._written = True
        ids = [posted.id for posted in self.jobs.values() if posted.id is not None]
        plan = {"seed": self.seed, "started_s": self.started_s, "read_s": read_s, "bounds": asdict(self.bounds)}
        (self.folder / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
        write_lines(self.folder / "ops.jsonl", self._ops)
        write_lines(self.folder / "truth.jsonl", reading.truth(self._work / "truth", before_s=read_s))
        write_lines(self.folder / "clocks.jsonl", [])
        write_lines(self.folder / "faults.jsonl", [struck.line() for struck in self._struck])
        write_lines(self.folder / "owners.jsonl", self._owners)
        cluster = self.fleet.cluster
        write_lines(self.folder / "ledger.jsonl", reading.ledger(cluster, ids, before_s=read_s))
        write_lines(self.folder / "missed.jsonl", reading.missed(cluster, ids))
        write_lines(self.folder / "jobs.jsonl", reading.jobs(cluster, ids))
        write_lines(self.folder / "events.jsonl", reading.events(cluster, since_s=self.started_s))

    def _body(self, name: str, sleep_s: float, exit_status: int, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the body of a job that runs the probe, and hold it for one of this trial's."""
        argv = [str(self._work / self._probe.name), str(self._work / "truth"), name, f"{sleep_s:g}", str(exit_status)]
        self._longest_s = max(self._longest_s, sleep_s)
        body = {"executable": " ".join(argv), "type": "command", "name": f"{name}-{self.seed}", **fields}
        self.jobs[name] = _Posted(None, {**defaults(body), **body}, fields=body)
        return body

    def _op(self, op: str, name: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> bool:
        """Ask for something and write down what is known of its outcome."""
        posted = self.jobs[name]
        invoked_s = time.time()
        answer, fault = None, ""
        try:
            answer = self.fleet.cluster.request(
                method, path, body, headers={"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else None
            )
        except OSError as exc:
            fault = repr(exc)
        result = outcome(answer)
        if answer is not None and answer.status in (200, 201) and op != "run":
            job = answer.json()
            posted.id, posted.generation, posted.spec = job["id"], job["generation"], job
        self._note_op(op, name, invoked_s, result, None if answer is None else answer.status)
        if result != "ok":
            print(f"trial: {op} {name}: {result} {fault or (answer.body[:500] if answer is not None else '')!r}")
        return result == "ok"

    def _note_op(self, op: str, name: str, invoked_s: float, result: str, status: int | None) -> None:
        posted = self.jobs[name]
        self._ops.append(
            {
                "op": op,
                "name": name,
                "job": posted.id,
                "generation": posted.generation,
                "spec": posted.spec if op in ("create", "replace") else None,
                "invoked_s": invoked_s,
                "completed_s": time.time(),
                "result": result,
                "status": status,
            }
        )

    def _keep_logs(self) -> None:
        """Put all logs beside the history; those of an older trial on the same fleet come first in each."""
        cluster, logs = self.fleet.cluster, self.folder / "logs"
        logs.mkdir(exist_ok=True)
        for part in [*cluster.apis, *cluster.managers]:
            shutil.copy(part.log_path, logs / f"{part.name}.log")
        for name, worker in cluster.workers.items():
            shutil.copy(worker.log_path, logs / f"{name}.log")

    def _purge(self) -> None:
        """Remove this trial's jobs: the next one finds the fleet as this one did."""
        for posted in self.jobs.values():
            if posted.id is not None:
                with contextlib.suppress(OSError):
                    self.fleet.cluster.request("DELETE", f"/jobs/{posted.id}?purge=true")


class _Noted:
    """A fault whose healing is noted."""

    def __init__(self, struck: _Struck) -> None:
        self._struck = struck

    def heal(self) -> None:
        if self._struck.healed_s is None:
            self._struck.ended_s = time.time()
            self._struck.fault.heal()
            self._struck.healed_s = time.time()


def outcome(answer: Answer | None) -> str:
    """Return what an answer (None: there was none) says: it is done, it is not done, or nobody knows."""
    if answer is None:
        return "unknown"
    if answer.status < 400:
        return "ok"
    if answer.status < 500:
        return "fail"
    try:
        return "fail" if answer.json()["type"] == NOTHING_SAVED else "unknown"
    except (ValueError, LookupError, TypeError):
        return "unknown"


def defaults(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole job as the API would have filled it in, for one whose creation got no answer."""
    return spec_to_dict(JobSpec(executable=body["executable"], schedule=body["schedule"], type=JobType.COMMAND))


def seed_from_environment() -> int:
    """Return CRONKEEPER_SEED, or a new seed."""
    given = os.environ.get(SEED_VARIABLE)
    return int(given) if given else random.SystemRandom().getrandbits(31)
