"""Secrets on the node: opened for the run that is due, refused when they are not what the task says."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.run import Reason, Run, RunState, Trigger
from cronkeeper.domain.secret_env import Sealed, SecretEnv, SecretUse
from cronkeeper.wire.sealed import NO_KEYS, SecretsKeys
from cronkeeper_worker.gate import TaskView
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import OrderError, Secret
from cronkeeper_worker.tasks import Installed

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
CANARY = "c4nary value"
RUN = Run(RunKey(TaskId(7, 0), 60_000, 1), Trigger.TIMER, RunState.CLAIMED, "w1", "n", 1, 1)


def sealed(*, key: bytes = OLD, namespace: str = "default", name: str = "pg", version: int = 3) -> str:
    return SecretsKeys([key]).seal(CANARY, namespace=namespace, name=name, version=version)


def task(box: str | None) -> Installed:
    uses = {"PGPASSWORD": SecretUse("pg"), "KEY": SecretUse("pg", as_file=True)}
    secrets = SecretEnv(uses, {} if box is None else {"pg": Sealed(3, box)})
    spec = JobSpec("true", "* * * * *", JobType.COMMAND, env={"A": "plain"}, secrets=secrets)
    view = TaskView(TaskId(7, 0), spec, spec.parsed_schedule(), JobState.ACTIVE, 0)
    return Installed(view, 1, 1, None)


def node(keys: SecretsKeys) -> NodeOrders:
    me = pwd.getpwuid(os.geteuid()).pw_name
    return NodeOrders(worker="w1", account=me, accounts=(), artifact_path=lambda _: Path("/none"), secrets_keys=keys)


@pytest.mark.parametrize("keys", [[OLD], [NEW, OLD]], ids=["its key", "an older key of several"])
def test_a_run_gets_what_its_variables_name(keys: list[bytes]) -> None:
    orders, item = node(SecretsKeys(keys)), task(sealed())
    assert orders.obstacle(item) is None
    order = orders.make(item, RUN)
    assert order.secrets == {"PGPASSWORD": Secret(CANARY), "KEY": Secret(CANARY, as_file=True)}
    assert order.env["A"] == "plain"
    assert CANARY not in repr(order) + repr(order.env)


@pytest.mark.parametrize(
    ("keys", "box"),
    [
        pytest.param(SecretsKeys([NEW]), sealed(), id="another key"),
        pytest.param(NO_KEYS, sealed(), id="no key"),
        pytest.param(SecretsKeys([OLD]), None, id="deleted"),
        pytest.param(SecretsKeys([OLD]), sealed(namespace="team-a"), id="of another namespace"),
        pytest.param(SecretsKeys([OLD]), sealed(name="pg2"), id="of another name"),
        pytest.param(SecretsKeys([OLD]), sealed(version=2), id="of another version"),
        pytest.param(SecretsKeys([OLD]), sealed()[:-8] + "AAAAAAA=", id="altered"),
        pytest.param(SecretsKeys([OLD]), sealed()[:40], id="cut off"),
        pytest.param(SecretsKeys([OLD]), "v2" + sealed()[2:], id="of a later format"),
        pytest.param(SecretsKeys([OLD]), "", id="empty"),
        pytest.param(SecretsKeys([OLD]), sealed() + "\u00fc", id="no BASE64"),
    ],
)
def test_a_secret_that_does_not_open_stops_the_run_and_says_nothing(
    keys: SecretsKeys, box: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    orders, item = node(keys), task(box)
    assert orders.obstacle(item) is Reason.SECRET_UNREADABLE
    with pytest.raises(OrderError) as caught:
        orders.make(item, RUN)
    assert "pg" in str(caught.value)
    assert CANARY not in str(caught.value) + repr([record.__dict__ for record in caplog.records])
    assert "secret.unreadable" in [record.__dict__["event"] for record in caplog.records]


def test_no_two_boxes_of_a_value_are_alike_and_no_repr_tells_a_key() -> None:
    assert sealed() != sealed()
    assert CANARY not in sealed()
    assert OLD.hex() not in repr(SecretsKeys([OLD]))
    assert repr(OLD)[2:10] not in repr(SecretsKeys([OLD]))


def test_a_box_never_takes_more_room_than_a_job_has_for_it() -> None:
    from cronkeeper.domain.secret_env import MAX_BOX_BYTES, MAX_VALUE_BYTES

    box = SecretsKeys([OLD]).seal("x" * MAX_VALUE_BYTES, namespace="n" * 63, name="x" * 128, version=10**12)
    # With its name, its version and the signs between them.
    assert len(box) + 128 + 60 < MAX_BOX_BYTES
