"""Accounts by hostile names, by numbers and past their last day: refused by the API, the daemon and the root part."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.domain.run import Reason
from cronkeeper.ports import JobQuery
from cronkeeper.wire.sealed import NO_KEYS
from cronkeeper.wire.task import Signer, Task
from cronkeeper_worker import accounts
from cronkeeper_worker.accounts import Accounts
from cronkeeper_worker.gate import TaskView
from cronkeeper_worker.order_maker import NodeOrders
from cronkeeper_worker.orders import AccountError
from cronkeeper_worker.root_rules import Rules
from cronkeeper_worker.tasks import Installed
from cronkeeper_worker.warrants import Warrants
from tests.harness.api import JOB, World
from tests.harness.starved import no_descriptors

#: Not one of these is an account that a run may have.
HOSTILE = [
    "root", "#0", "+0", "-0", "0", "00", "0x0", "4294967295", "-1", "65534", "no-such-account", "nobody\n",
    "nobody\nroot", "nobody ", " nobody", "nobody:", "nobody\x00", "nobody\x00root", "Nobody", "nob\u043edy",
    "nobody\ud800", "-u root", "../root", "*",
]  # fmt: skip
SIGNER = Signer.from_seed(bytes(range(32)))
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="takes root: nobody else becomes another account")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("name", [*HOSTILE, ""], ids=repr)
def test_the_api_refuses_it_and_saves_nothing(name: str, world: World) -> None:
    answer = world.call("POST", "/jobs", json={**JOB, "run_as": name})
    assert answer.status_code in (403, 422), answer.get_json()
    assert "run_as" in answer.get_data(as_text=True) or answer.status_code == 422
    assert list(world.store.jobs.page(JobQuery(limit=10))) == []


def _spec(name: str) -> JobSpec:
    return JobSpec("true", "* * * * *", JobType.COMMAND, run_as=name)


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
@pytest.mark.parametrize("listed", [False, True], ids=["not listed", "listed by mistake"])
def test_a_node_refuses_it_whoever_signed(name: str, listed: bool, tmp_path: Path) -> None:
    """What root lists by mistake is refused by who would start it, if there is no such account; root it may list."""
    if listed and name == "root":
        return
    allowed = (name,) if listed else ()
    orders = NodeOrders(
        worker="w1",
        account="nobody",
        accounts=allowed,
        artifact_path=lambda _: tmp_path,
        secrets_keys=NO_KEYS,
        sealed=lambda _: b"",
    )
    spec = _spec(name)
    view = TaskView(TaskId(7, 0), spec, spec.parsed_schedule(), JobState.ACTIVE, 0)
    assert orders.obstacle(Installed(view, 1, 1, None)) is (None if listed else Reason.USER_REFUSED)

    rules = Rules(1, 1, (SIGNER.public_bytes.hex(),), "nobody", ("nobody", *allowed), "", (), 0)
    told = {"CRONKEEPER_FIRE_TIME": "t", "CRONKEEPER_WORKER": "w1", "CRONKEEPER_FENCE": "1"}
    asked = {"run_id": "7-0-1-1", "nonce": "n", "told": told, "secrets": {}, "expires_boot_s": None}
    try:
        sealed = SIGNER.seal(Task(7, 1, JobState.ACTIVE, 0, spec)).decode()
    except (UnicodeEncodeError, ValueError):
        return  # nobody can sign it
    with pytest.raises(AccountError):
        Accounts().get(Warrants(str(tmp_path), rules).order({**asked, "sealed": sealed}).run_as)


def test_a_daemon_without_a_free_descriptor_refuses_no_account(tmp_path: Path) -> None:
    """It reads none: the C library would say that there is none."""
    orders = NodeOrders(
        worker="w1",
        account="nobody",
        accounts=("daemon",),
        artifact_path=lambda _: tmp_path,
        secrets_keys=NO_KEYS,
        sealed=lambda _: b"",
    )
    for name in (None, "daemon"):
        spec = JobSpec("true", "* * * * *", JobType.COMMAND, run_as=name)
        view = TaskView(TaskId(7, 0), spec, spec.parsed_schedule(), JobState.ACTIVE, 0)
        with no_descriptors():
            assert orders.obstacle(Installed(view, 1, 1, None)) is None


def test_a_node_under_a_number_without_a_name_runs_what_names_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_242_424)
    orders = NodeOrders(
        worker="w1", account="nobody", accounts=("daemon",), artifact_path=lambda _: tmp_path, secrets_keys=NO_KEYS
    )
    for name, expected in ((None, None), ("daemon", Reason.USER_REFUSED), ("4242424", Reason.USER_REFUSED)):
        spec = JobSpec("true", "* * * * *", JobType.COMMAND, run_as=name)
        view = TaskView(TaskId(7, 0), spec, spec.parsed_schedule(), JobState.ACTIVE, 0)
        assert orders.obstacle(Installed(view, 1, 1, None)) is expected


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("name", [None, "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name])
def test_an_account_that_cannot_be_read_is_not_taken_for_none(name: str | None, left: int) -> None:
    """With a single descriptor it is found, but not all of its groups."""
    accounts = Accounts()
    with no_descriptors(left), pytest.raises(OSError, match="open files") as told:
        accounts.get(name)
    assert told.value.errno == errno.EMFILE
    assert accounts.get(name).home == (pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())).pw_dir


@root_only
@pytest.mark.parametrize(
    ("line", "refused"),
    [
        pytest.param("nobody:*:19000:0:99999:7:::", False, id="no last day"),
        pytest.param("nobody:!:19000:0:99999:7:::", False, id="a locked password, as services have it"),
        pytest.param("nobody:*:19000:0:99999:7::99999:", False, id="a last day to come"),
        pytest.param("nobody:*:19000:0:99999:7::1:", True, id="a last day that is over"),
        pytest.param("nobody:*:19000:0:99999:7::0:", True, id="chage -E 0"),
        pytest.param("nobody2:*:19000:0:99999:7::1:", False, id="another account's"),
        pytest.param("nobody:*", False, id="a short line"),
    ],
)
def test_an_account_after_its_last_day_is_refused(
    line: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text(f"root:*:19000:0:99999:7:::\n{line}\n")
    monkeypatch.setattr(accounts, "SHADOW", str(shadow))
    if refused:
        with pytest.raises(AccountError, match="has expired"):
            Accounts().get("nobody")
    else:
        assert Accounts().get("nobody").uid == pwd.getpwnam("nobody").pw_uid


@root_only
def test_a_file_of_last_days_that_cannot_be_read_lets_nobody_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "SHADOW", str(tmp_path))
    with pytest.raises(OSError, match="directory"):
        Accounts().get("nobody")
    monkeypatch.setattr(accounts, "SHADOW", str(tmp_path / "none"))
    assert Accounts().get("nobody").name == "nobody"
