"""The root part of a worker against somebody who has taken the daemon: real processes, real accounts.

Every attack is made as the daemon's own account, with all that the daemon has: its folder, its socket, and the signed
tasks that it was given. None must get a process of an account, a command or a file that nobody signed for this node.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cronkeeper.domain.job import JobSpec, JobType
from cronkeeper.domain.secret_env import SecretEnv, SecretUse
from cronkeeper_worker import root_rules, runner_main
from cronkeeper_worker.crontab_form import HEADER, NO_TASKS
from cronkeeper_worker.orders import Ended, SpawnFailed, Started
from tests.harness.accounts import DAEMON, as_account
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import alive
from tests.harness.root_part import (
    FOREIGN,
    PLAIN,
    TOLD_NOW,
    House,
    keepers,
    request,
    runners,
    sealed,
    talk,
    until,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


@pytest.fixture
def house() -> Iterator[House]:
    folder = make_folder("root-part")
    found = House(folder)
    yield found
    found.end()
    remove_folder(folder)


# ------------------------------------------------------------------------------------------------------- the attacks


def test_a_task_that_nobody_signed_is_refused(house: House) -> None:
    good = json.loads(sealed(PLAIN))
    evil = json.loads(sealed(dataclasses.replace(PLAIN, executable="touch /tmp/evil"), signer=FOREIGN))
    forgeries = [
        {**good, "body": evil["body"]},
        {**good, "body": good["body"].replace("id -un", "id -gn")},
        {**good, "body": good["body"] + " "},
        {**evil, "key": good["key"]},
        {**evil},
        {**good, "sig": ""},
        {**good, "sig": good["sig"][:-6] + "AAAA=="},
        {**good, "sig": [good["sig"]]},
        {key: value for key, value in good.items() if key != "sig"},
    ]
    for number, forgery in enumerate(forgeries):
        assert house.refused(request(json.dumps(forgery), f"7-0-60000-{number + 1}"))
    assert (house.top / runner_main.LOG).read_text().count("an order was refused") == len(forgeries)
    # What the daemon says beside the task counts for nothing.
    lies: dict[str, Any] = {"command": "touch /tmp/evil", "run_as": "root", "executable": "/bin/sh", "cwd": "/root"}
    house.order(request(sealed(PLAIN), "7-0-60000-99", **lies))
    assert house.ran("7-0-60000-99") == "nobody\nnogroup\n"


def test_an_order_of_the_old_kind_is_refused(house: House) -> None:
    assert house.refused({"run_id": "7-0-60000-1", "nonce": "n", "command": "touch /tmp/evil", "run_as": "root"})


@pytest.mark.parametrize("name", ["root", DAEMON, "bin", "0", "#0", "nobody root", "no-such-account"])
def test_an_account_that_root_does_not_allow_is_refused_though_it_is_signed(house: House, name: str) -> None:
    assert "not allowed" in house.refused(request(sealed(dataclasses.replace(PLAIN, run_as=name))))


def test_an_older_generation_is_refused_for_ever(house: House) -> None:
    old, new = sealed(PLAIN, generation=4), sealed(PLAIN, generation=5)
    house.say({"op": "learn", "sealed": [new]})
    assert "generation 4 of job 7 is over" in house.refused(request(old))
    # Nor by a root part that was killed, nor by one whose memory the daemon tries to change.
    for attempt in (lambda: (house.top / "generations").unlink(), lambda: (house.top / "generations").write_text("")):
        assert isinstance(as_account(DAEMON, attempt), PermissionError)
    killed = house.pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: runners(house.top) not in ([], [killed]))
    house.client.ensure()
    assert "is over" in house.refused(request(old, "7-0-60000-2"))
    house.order(request(new, "7-0-60000-3"))
    assert house.ran("7-0-60000-3")


def test_what_was_started_by_a_task_that_is_over_is_told_and_not_refused(house: House) -> None:
    old = request(sealed(JobSpec("sleep 1", "* * * * *", JobType.COMMAND)))
    house.order(old)
    first = house.told(Started)
    house.events.clear()
    house.say({"op": "learn", "sealed": [sealed(PLAIN, generation=2)]})
    house.order(old)
    assert house.told(Started) == first
    # Another order under its name is none of that.
    house.events.clear()
    house.order({**old, "nonce": "another"})
    assert "is over" in house.told(SpawnFailed).message


@pytest.mark.parametrize(
    "run_id",
    [
        "../../../../etc/evil",
        "7-0-60000-1/../../x",
        "..",
        "",
        "7",
        "8-0-60000-1",
        "7-0-60000-1\n",
        "/etc/x",
        "7-0-6-1-2",
    ],
)
def test_a_run_id_names_no_other_folder_and_no_other_job(house: House, run_id: str) -> None:
    house.order(request(sealed(PLAIN), run_id))
    house.order(request(sealed(PLAIN), "7-0-60000-9"))
    house.ran("7-0-60000-9")
    assert [event.run_id for event in house.events if isinstance(event, Started)] == ["7-0-60000-9"]
    outside = [path for path in house.top.rglob("*x*") if "artifacts" not in path.parts and path.name != "exit.json"]
    assert outside == []
    house.say({"op": "ack", "run_ids": [run_id]}, {"op": "cancel", "run_id": run_id})
    assert (house.top / "bin" / "cronkeeper-fire").exists()


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        ({}, {"LD_PRELOAD": "/tmp/evil.so"}),
        ({}, {"PATH": "/tmp"}),
        ({"PGPASSWORD": SecretUse("pg")}, {"PGPASSWORD": "x", "LD_PRELOAD": "/tmp/evil.so"}),
        ({"PGPASSWORD": SecretUse("pg")}, {"LD_PRELOAD": "/tmp/evil.so"}),
        ({"PGPASSWORD": SecretUse("pg")}, {"PGPASSWORD": ["x"]}),
        ({"PGPASSWORD": SecretUse("pg")}, {"PGPASSWORD": "x" * 5000}),
        ({"PGPASSWORD": SecretUse("pg", as_file=True)}, {"PGPASSWORD/../../x": "x"}),
    ],
)
def test_only_variables_that_the_task_names_get_secrets(house: House, declared: Any, given: dict[str, Any]) -> None:
    spec = dataclasses.replace(PLAIN, secrets=SecretEnv(declared))
    assert "secret" in house.refused(request(sealed(spec), secrets=given))


@pytest.mark.parametrize(
    "told",
    [
        {**TOLD_NOW, "LD_PRELOAD": "/tmp/evil.so"},
        {**TOLD_NOW, "CRONKEEPER_JOB_ID": "8"},
        {**TOLD_NOW, "CRONKEEPER_FENCE": "7\nLD_PRELOAD=/tmp/evil.so"},
        {**TOLD_NOW, "CRONKEEPER_FENCE": "7\0"},
        {**TOLD_NOW, "CRONKEEPER_FENCE": 7},
        {**TOLD_NOW, "CRONKEEPER_FENCE": "7" * 1000},
        {},
        None,
        [],
    ],
)
def test_a_run_is_told_three_short_texts_and_nothing_else(house: House, told: Any) -> None:
    assert "told" in house.refused(request(sealed(PLAIN), told=told))


def test_a_crontab_holds_calls_of_our_own_command_and_nothing_else(house: House) -> None:
    fire = f"{house.top}/bin/cronkeeper-fire"
    lines = [
        "* * * * * root touch /tmp/evil\n",
        f"* * * * * root {fire} 1\n* * * * * root touch /tmp/evil\n",
        f"* * * * * root {fire} 1; touch /tmp/evil\n",
        f"* * * * * root {fire} 1%\n",
        f"* * * * * root {fire}/../../x 1\n",
        f"* * * * * root {house.own}/evil 1\n",
        f"* * * * * {DAEMON} {fire} 1\n",
        f"* * * * * {fire} 1\n",
        f"* * * * * root {fire} 1\r\n",
        f"* * * * * * root {fire} 1\n",
        f"* * * * * root {fire} 1",
        "SHELL=/tmp/evil\n",
        "# tasks 1/0 root touch\n",
        "\ud800\n",
        "@reboot root true\n",
    ]
    for line in lines:
        with pytest.raises((ValueError, OSError)):
            house.client.place([HEADER + NO_TASKS + line])
        assert list(house.cron_d.iterdir()) == []
    with pytest.raises(ValueError, match="more than"):
        house.client.place([f"{HEADER}{NO_TASKS}* * * * * root {fire} 12\n"] * 101)
    assert list(house.cron_d.iterdir()) == []


def test_a_file_that_is_swapped_or_changed_is_not_what_runs(house: House) -> None:
    """The daemon owns the file that it fetched: neither another file, nor another content after the look, is run."""
    good, evil = b"#!/bin/sh\nsleep 0.5; echo good\n", b"#!/bin/sh\nsleep 0.5; echo evil\n"
    artifact = house.plant(good)
    path = house.own / "artifacts" / artifact.sha256
    spec = JobSpec(artifact.url, "* * * * *", JobType.SCRIPT, artifact=artifact)
    house.order(request(sealed(spec)))
    house.told(Started)
    assert as_account(DAEMON, lambda: path.write_bytes(evil)) == len(evil)  # the very inode, while sh reads it
    assert house.ran() == "good\n"
    house.order(request(sealed(spec), "7-0-60000-2"))
    assert house.ran("7-0-60000-2") == "good\n"
    kept = house.top / "artifacts" / artifact.sha256
    for attempt in (lambda: kept.write_bytes(evil), lambda: kept.unlink(), lambda: path.rename(kept)):
        assert isinstance(as_account(DAEMON, attempt), PermissionError)
    # Should even root's copy be changed: the daemon can read what became of the run, which it has to tell.
    kept.chmod(0o755)
    kept.write_bytes(evil)
    house.order(request(sealed(spec), "7-0-60000-4"))
    assert "the artifact has sha256" in house.told(SpawnFailed, "7-0-60000-4").message
    note = house.top / "runs" / "7-0-60000-4" / "exit.json"
    assert isinstance(as_account(DAEMON, note.read_bytes), bytes)
    # A root part that has no copy yet sees the other content at once.
    os.unlink(kept)
    house.order(request(sealed(spec), "7-0-60000-3"))
    assert "not the file that was signed" in house.told(SpawnFailed, "7-0-60000-3").message


def test_links_devices_and_pipes_in_the_daemons_folder_lead_root_nowhere(house: House) -> None:
    secret = house.top.parent / "secret"
    secret.write_bytes(b"#!/bin/sh\necho roots own\n")
    secret.chmod(0o700)
    artifact = house.plant(secret.read_bytes())
    place = house.own / "artifacts" / artifact.sha256
    spec = JobSpec(artifact.url, "* * * * *", JobType.SCRIPT, artifact=artifact)

    def link() -> None:
        place.unlink()
        place.symlink_to(secret)

    def pipe() -> None:
        place.unlink()
        os.mkfifo(place)

    def folder() -> None:
        place.unlink()
        shutil.rmtree(place.parent)
        place.parent.symlink_to(house.top.parent / "elsewhere")

    elsewhere = house.top.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(secret, elsewhere / artifact.sha256)
    for attempt in (link, pipe, folder):
        assert as_account(DAEMON, attempt) is None
        assert house.refused(request(sealed(spec)))


def test_nothing_that_root_goes_by_can_be_changed_by_the_daemon(house: House) -> None:
    (house.top / "runs" / "x").mkdir()

    def try_all() -> list[str]:
        done = []
        for folder in (house.top, house.top / "bin", house.top / "runs", house.top / "artifacts", house.top.parent):
            for name in ("new", *(os.listdir(folder) if os.access(folder, os.R_OK) else ())):
                place, other = folder / name, house.own / "evil"
                attempts: list[Callable[[], object]] = [
                    lambda place=place: place.write_bytes(b"x"),  # type: ignore[misc]
                    lambda place=place: place.mkdir(),  # type: ignore[misc]
                    lambda place=place: place.unlink(),  # type: ignore[misc]
                    lambda place=place: place.chmod(0o777),  # type: ignore[misc]
                    lambda place=place, other=other: place.rename(other),  # type: ignore[misc]
                    lambda place=place, other=other: os.symlink(other, place),  # type: ignore[misc]
                ]
                for number, attempt in enumerate(attempts):
                    try:
                        attempt()
                        done.append(f"{place} by {number}")
                    except OSError:
                        pass
        return done

    # Its own folder is the daemon's, so that is allowed to change its mode; not to move it.
    found = as_account(DAEMON, try_all)
    assert found == [f"{house.own} by 3"] or found == []
    for name in (root_rules.FILE, runner_main.LOCK, runner_main.LOG, "generations"):
        assert isinstance(as_account(DAEMON, lambda name=name: (house.top / name).read_bytes()), PermissionError)  # type: ignore[misc]


def test_it_answers_root_and_the_daemon_and_nobody_else(house: House) -> None:
    sock = house.top / runner_main.SOCKET
    assert isinstance(as_account("nobody", lambda: talk(house.top)), PermissionError)
    sock.chmod(0o666)  # even if the file let it in
    assert isinstance(as_account("nobody", lambda: talk(house.top)), (OSError, ValueError))
    assert house.say()[0]["signed"]

    # Nor can the daemon stand in its place.
    assert isinstance(as_account(DAEMON, sock.unlink), PermissionError)
    assert isinstance(as_account(DAEMON, lambda: os.kill(house.pid(), signal.SIGKILL)), PermissionError)


def test_the_daemon_cannot_send_the_root_part_away(house: House) -> None:
    before = house.pid()
    house.say({"op": "finish"}, wait_s=0.5)
    assert house.say()[0]["pid"] == before
    talk(house.top, {"op": "finish"})  # as root
    until(lambda: not runners(house.top))
    house.client.ensure()


@pytest.mark.parametrize("account", [DAEMON, "nobody"])
def test_neither_daemon_nor_job_can_kill_trace_or_read_the_root_part(house: House, account: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def attack() -> list[str]:
        got = []
        for pid in (house_pid, *keeper_pids):
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
                with contextlib.suppress(PermissionError):
                    os.kill(pid, number)
                    got.append(f"killed {pid}")
            if libc.ptrace(16, pid, 0, 0) == 0:
                got.append(f"traced {pid}")
            for name in ("environ", "mem", "maps"):
                with contextlib.suppress(PermissionError):
                    os.read(os.open(f"/proc/{pid}/{name}", os.O_RDONLY), 1)
                    got.append(f"read {name}")
            with contextlib.suppress(PermissionError):
                got += os.listdir(f"/proc/{pid}/fd")
        return got

    house_pid, keeper_pids = house.pid(), keepers(house.top)
    assert keeper_pids
    assert as_account(account, attack) == []


def test_cancelling_reaches_runs_of_ours_and_no_foreign_process(house: House) -> None:
    """The proof of a run's process lies where the daemon cannot write: no pid of its choice is ever signalled."""
    house.order(request(sealed(JobSpec("exec sleep 30", "* * * * *", JobType.COMMAND))))
    run = house.told(Started)
    proof = house.top / "runs" / "7-0-60000-1" / "start.json"
    assert isinstance(as_account(DAEMON, lambda: proof.write_text("{}")), PermissionError)
    assert isinstance(as_account(DAEMON, lambda: (house.top / "runs" / "9-0-1-1").mkdir()), PermissionError)
    for other in (str(os.getpid()), "1", "../../../proc/1", "7-0-60000-2"):
        house.say({"op": "cancel", "run_id": other}, {"op": "ack", "run_ids": [other]})
    assert alive(run.pid)
    house.say({"op": "cancel", "run_id": "7-0-60000-1"})
    assert house.told(Ended).cancelled


def test_messages_without_end_depth_or_sense_harm_nobody(house: House) -> None:
    for message in (
        b"x" * (9 << 20),
        b"[" * 1_000_000 + b"\n",
        b'{"op": "start", "orders": [' + b'{"run_id": "a"},' * 1000 + b"{}]}\n",
        b'{"op": "start", "orders": [{"run_id": "7-0-1-1", "nonce": "n", "sealed": "' + b"[" * 100_000 + b'"}]}\n',
        json.dumps({"op": "start", "orders": [request(sealed(PLAIN), expires_boot_s=1e400)]}).encode() + b"\n",
        json.dumps({"op": "start", "orders": [request(sealed(PLAIN), expires_boot_s="soon")]}).encode() + b"\n",
        b'{"op": "_give_up_name"}\n',
        b'{"op": "crontab", "number": 1, "files": {"a": 1}}\n',
        b"\xff\xfe\n\n\n",
    ):
        house.say(message)
    before = house.pid()
    with contextlib.ExitStack() as stack:  # and one who calls again and again, and says nothing
        for _ in range(200):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            idle.settimeout(5)
            with contextlib.suppress(BlockingIOError):  # so many wait already
                idle.connect(str(house.top / runner_main.SOCKET))
    house.order(request(sealed(PLAIN), "7-0-60000-7"))
    assert house.ran("7-0-60000-7") == "nobody\nnogroup\n"
    assert [event.run_id for event in house.events if isinstance(event, Started)] == ["7-0-60000-7"]
    assert house.pid() == before


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([sealed(PLAIN), "n"])
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
_NEARLY = st.builds(
    lambda changes, gone: {key: value for key, value in {**request(sealed(PLAIN)), **changes}.items() if key != gone},
    st.dictionaries(st.sampled_from([*request(""), "command", "run_as"]), _VALUES, min_size=1),
    st.sampled_from([*request(""), "nothing"]),
).filter(lambda found: found.get("sealed") != sealed(PLAIN) or found.get("told") != TOLD_NOW)
_OPS = st.sampled_from(["start", "learn", "crontab", "cancel", "ack", "hello", "none", None, 7])
_MESSAGES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda orders: {"op": "start", "orders": orders}, st.lists(_NEARLY, max_size=3)),
    st.fixed_dictionaries({"op": _OPS}, optional=dict.fromkeys(
        ("orders", "sealed", "files", "number", "run_id", "run_ids", "protocol"), _VALUES
    )),
)  # fmt: skip


def test_no_message_kills_it_or_has_it_start_anything(house: House) -> None:
    before = house.pid()
    sent = 0

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(_MESSAGES, min_size=1, max_size=5))
    def attack(messages: list[Any]) -> None:
        nonlocal sent
        for message in messages:
            data = message + b"\n" if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
            with contextlib.suppress(OSError, ValueError):
                talk(house.top, data)
            sent += 1

    attack()
    assert sent >= 100
    house.order(request(sealed(PLAIN, job_id=9), "9-0-60000-1"))
    house.ran("9-0-60000-1")
    assert {event.run_id for event in house.events if isinstance(event, Started)} == {"9-0-60000-1"}
    assert house.pid() == before
    assert list(house.cron_d.iterdir()) == []
