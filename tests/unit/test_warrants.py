"""From a signed task to an order, twice: by the daemon, which knows what a spec is, and by the root part, which not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronkeeper.domain.ids import FIRST_NODE_SHARD, RunKey, TaskId
from cronkeeper.domain.job import Artifact, JobSpec, JobState, JobType, Limits
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.domain.secret_env import MAX_VALUE_BYTES, Sealed, SecretEnv, SecretUse
from cronkeeper.wire.codec import MAX_BYTES
from cronkeeper.wire.sealed import SecretsKeys
from cronkeeper.wire.task import Signer, Task
from cronkeeper_worker import warrants
from cronkeeper_worker.gate import TaskView
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import Order, OrderError, order_from
from cronkeeper_worker.root_rules import Rules
from cronkeeper_worker.tasks import Installed
from cronkeeper_worker.warrants import Generations, Warrants

SIGNER = Signer.from_seed(bytes(range(32)))
KEYS = SecretsKeys([bytes(range(32))])
ME = pwd.getpwuid(os.geteuid()).pw_name
FILE = b"#!/bin/sh\necho a file\n"
DIGEST = hashlib.sha256(FILE).hexdigest()
ARTIFACT = Artifact(f"artifacts/{DIGEST}/x", "s3://b/x", DIGEST, len(FILE), "x")
RULES = Rules(os.geteuid(), os.getegid(), (SIGNER.public_bytes.hex(),), ME, (ME, "daemon"), "", (), 0)

_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
_NAMES = st.text("ABC_", min_size=1, max_size=4)
_SPECS = st.builds(
    JobSpec,
    executable=_TEXTS,
    schedule=st.just("* * * * *"),
    type=st.sampled_from(JobType),
    args=st.lists(_TEXTS, max_size=3).map(tuple),
    env=st.dictionaries(_NAMES.map("PLAIN_{}".format), _TEXTS, max_size=3),
    secrets=st.dictionaries(
        _NAMES.map("SECRET_{}".format), st.builds(SecretUse, st.just("pg"), st.booleans()), max_size=2
    ).map(lambda uses: SecretEnv(uses, {"pg": Sealed(1, _box())} if uses else {})),
    run_as=st.sampled_from([None, ME, "daemon"]),
    timeout_s=st.none() | st.integers(1, 86_400),
    shards=st.integers(1, 5),
    limits=st.builds(Limits, st.none() | st.integers(1, 99), st.none() | st.integers(1, 99), st.integers(0, 2048)),
    artifact=st.sampled_from([None, ARTIFACT]),
)
_RUNS = st.builds(
    RunKey,
    st.builds(TaskId, st.integers(1, 10**17), st.integers(0, 4) | st.just(FIRST_NODE_SHARD + 7)),
    st.integers(0, 2**42),
    st.integers(1, 99),
)


def _box() -> str:
    return KEYS.seal("the value", namespace="default", name="pg", version=1)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "daemon" / "artifacts").mkdir(parents=True)
    (tmp_path / "daemon" / "artifacts" / DIGEST).write_bytes(FILE)
    return tmp_path


def envelope(spec: JobSpec, job_id: int = 7, generation: int = 1) -> str:
    return SIGNER.seal(Task(job_id, generation, JobState.ACTIVE, 0, spec)).decode()


def request(sealed: str, run_id: str = "7-0-1-1") -> dict[str, Any]:
    told = {"CRONKEEPER_FIRE_TIME": "t", "CRONKEEPER_WORKER": "w1", "CRONKEEPER_FENCE": "1"}
    return {"run_id": run_id, "nonce": "n", "sealed": sealed, "told": told, "secrets": {}, "expires_boot_s": None}


def by_the_daemon(top: Path, spec: JobSpec, key: RunKey, sealed: str) -> Order:
    orders = NodeOrders(
        worker="w1",
        account=ME,
        accounts=("daemon",),
        artifact_path=lambda artifact: top / "artifacts" / artifact.sha256,
        secrets_keys=KEYS,
        sealed=lambda _task: sealed.encode(),
    )
    view = TaskView(key.task, spec, spec.parsed_schedule(), JobState.ACTIVE, 0)
    run = Run(key, Trigger.TIMER, RunState.CLAIMED, "w1", "nonce", 1, 9)
    return orders.make(Installed(view, 1, 9, None), run)._replace(expires_boot_s=12.5)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_SPECS, _RUNS)
def test_the_root_part_makes_the_order_that_the_daemon_means(top: Path, spec: JobSpec, key: RunKey) -> None:
    if spec.type is not JobType.COMMAND:
        spec = dataclasses.replace(spec, artifact=ARTIFACT)
    (top / warrants.GENERATIONS).unlink(missing_ok=True)
    sealed = envelope(spec, key.task.job_id)
    meant = by_the_daemon(top, spec, key, sealed)
    sent = json.loads(json.dumps(meant.as_request()))
    assert Warrants(str(top), RULES).order(sent) == meant._replace(sealed="")
    # And what travels without a root part is the same again.
    assert order_from(json.loads(json.dumps(meant.as_json()))) == meant


def test_the_bounds_are_those_of_the_core() -> None:
    assert (warrants._MAX_TASK, warrants._MAX_SECRET) == (MAX_BYTES, MAX_VALUE_BYTES)
    assert warrants.FIRST_NODE_SHARD == FIRST_NODE_SHARD


def test_the_newest_generation_is_remembered_across_lives_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "generations"
    first = Generations(str(path))
    assert (first.newest(7, 3), first.newest(7, 5), first.newest(7, 4), first.newest(8, 1)) == (3, 5, 5, 1)
    with path.open("ab") as file:
        file.write(b"9 ")
    again = Generations(str(path))
    assert (again.newest(7, 1), again.newest(8, 1), again.newest(9, 2)) == (5, 1, 2)
    assert Generations(str(path)).newest(9, 1) == 2


def test_the_file_of_generations_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "generations"
    first = Generations(str(path))
    for generation in range(1, 3000):
        first.newest(7, generation)
    assert Generations(str(path)).newest(7, 1) == 2999
    assert path.read_text() == "7 2999\n"


def test_a_signature_is_verified_once(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Warrants(str(top), RULES)
    sealed, calls = envelope(JobSpec("true", "* * * * *", JobType.COMMAND)), []
    verify = found._verify

    def counted(*words: Any) -> None:
        calls.append(1)
        verify(*words)

    monkeypatch.setattr(found, "_verify", counted)
    for number in range(5):
        found.order(request(sealed, f"7-0-1-{number + 1}"))
    assert calls == [1]
    # A key that counts no more has verified nothing.
    found.adopt(RULES._replace(verify_keys=(Signer.from_seed(bytes(range(1, 33))).public_bytes.hex(),)))
    with pytest.raises(OrderError, match="unknown key"):
        found.order(request(sealed, "7-0-1-9"))


@pytest.mark.parametrize("missing", ["spec", "job_id", "generation", "v"])
def test_a_signed_body_without_sense_is_refused(top: Path, missing: str) -> None:
    body = {"v": 1, "job_id": 7, "generation": 1, "spec": {}}
    text = json.dumps({key: value for key, value in body.items() if key != missing})
    sealed = json.loads(envelope(JobSpec("true", "* * * * *", JobType.COMMAND)))
    import base64

    from cronkeeper.wire.envelope import CONTEXT

    signature = base64.b64encode(SIGNER._private_key.sign(CONTEXT + text.encode())).decode()
    with pytest.raises(OrderError):
        Warrants(str(top), RULES).order(request(json.dumps({**sealed, "body": text, "sig": signature})))
