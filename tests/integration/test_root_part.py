"""The root part of a worker: what the daemon gets of it, and how a node gets one. Real processes, real accounts."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.domain.job import JobSpec, JobType, Limits
from cronkeeper.errors import ConfigError
from cronkeeper.runtime.config import load
from cronkeeper_worker import control_groups, node_files, root_part, root_rules, root_start, run_files
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.crontab_form import HEADER, NO_TASKS
from cronkeeper_worker.orders import RunnerLost, SpawnFailed, Started
from tests.harness.accounts import DAEMON, as_account
from tests.harness.folders import make_folder, remove_folder
from tests.harness.processes import alive
from tests.harness.root_part import (
    FOREIGN,
    PLAIN,
    House,
    keepers,
    request,
    runners,
    sealed,
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


# ------------------------------------------------------------------------------------------------- what is to be had


def test_a_signed_task_runs_as_the_account_that_it_names_with_what_it_says(house: House) -> None:
    text = (
        'echo "$A $CRONKEEPER_RUN_ID $CRONKEEPER_FENCE $CRONKEEPER_SHARDS"; id -un; grep NoNewPrivs /proc/self/status'
    )
    spec = JobSpec(text, "* * * * *", JobType.COMMAND, env={"A": "b"}, run_as="daemon", shards=3)
    house.order(request(sealed(spec)))
    assert house.ran().split() == ["b", "7-0-60000-1", "7", "3", "daemon", "NoNewPrivs:", "1"]
    assert house.told(Started).pid


def test_one_that_names_no_account_has_the_nodes(house: House) -> None:
    house.order(request(sealed(PLAIN)))
    assert house.ran() == "nobody\nnogroup\n"


def test_the_daemon_reads_how_a_run_ended_and_what_it_printed_and_nobody_else_does(house: House) -> None:
    house.order(request(sealed(JobSpec("echo text; mkdir d", "* * * * *", JobType.COMMAND))))
    house.ran()
    folder = house.top / "runs" / "7-0-60000-1"

    def read() -> object:
        return (folder / "output").read_text(), run_files.read_exit(str(folder)) is not None

    assert as_account(DAEMON, read) == ("text\n", True)
    for account in ("nobody", "daemon"):
        assert isinstance(as_account(account, read), PermissionError)
    assert isinstance(as_account(DAEMON, lambda: (folder / "start.json").read_text()), PermissionError)


def test_a_file_runs_when_it_is_the_one_that_was_signed(house: House) -> None:
    artifact = house.plant(b'#!/bin/sh\necho "$1 by $(id -un)"\n')
    spec = JobSpec(artifact.url, "* * * * *", JobType.SCRIPT, args=("hello",), artifact=artifact)
    house.order(request(sealed(spec)))
    assert house.ran() == "hello by nobody\n"


def test_a_script_without_its_file_is_refused(house: House) -> None:
    spec = JobSpec("s3://b/x", "* * * * *", JobType.SCRIPT)
    assert "no file" in house.refused(request(sealed(spec)))


def test_the_crontab_is_written_and_taken_away(house: House) -> None:
    fire = house.top / "bin" / "cronkeeper-fire"
    text = f"{HEADER}{NO_TASKS}* * * * * root {fire} 12\n"
    house.client.place([text])
    assert (house.cron_d / "cronkeeper-0").read_text() == text
    before = (house.cron_d / "cronkeeper-0").stat().st_mtime
    house.client.place(None)
    assert (house.cron_d / "cronkeeper-0").stat().st_mtime > before
    house.client.place([])
    assert list(house.cron_d.iterdir()) == []


def test_a_root_part_that_is_killed_is_there_again_at_once_and_knows_its_runs(house: House) -> None:
    house.order(request(sealed(JobSpec("sleep 2; echo done", "* * * * *", JobType.COMMAND))))
    pid = house.told(Started).pid
    killed = house.pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: runners(house.top) not in ([], [killed]))
    # As the daemon, which could not start one.
    hello, running, _ = until(lambda: isinstance(found := house.say(), list) and found)
    assert (hello["signed"], [event["pid"] for event in running["events"]]) == (True, [pid])


@pytest.mark.skipif(bool(control_groups.missing()), reason="takes a cgroup v2 that can be written")
def test_a_run_of_another_account_ends_with_all_that_left_its_session(house: House) -> None:
    text = "(setsid sh -c 'trap : TERM; echo $$ >stray; while :; do sleep 1; done' >/dev/null 2>&1 &) & sleep 600"
    house.order(request(sealed(JobSpec(text, "* * * * *", JobType.COMMAND, run_as="daemon"))))
    place = house.top / "runs" / "7-0-60000-1" / "work" / "stray"
    stray = int(until(lambda: place.exists() and place.read_text()))
    assert isinstance(as_account(DAEMON, lambda: os.kill(stray, signal.SIGKILL)), PermissionError)
    killed = house.pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: runners(house.top) not in ([], [killed]))
    until(lambda: any(isinstance(event, RunnerLost) for event in house.events))
    house.client.ensure()
    house.client.cancel("7-0-60000-1")
    until(lambda: not alive(stray))


def test_it_goes_by_the_rules_of_the_last_start(house: House) -> None:
    assert "not allowed" in house.refused(request(sealed(dataclasses.replace(PLAIN, run_as="games"))))
    house.lay_out(node_accounts=("games",))
    house.order(request(sealed(dataclasses.replace(PLAIN, run_as="games")), "7-0-60000-2"))
    assert house.ran("7-0-60000-2").startswith("games\n")
    house.events.clear()
    house.lay_out(verify_keys=(FOREIGN.public_bytes.hex(),))
    house.order(request(sealed(PLAIN, generation=2), "7-0-60000-3"))
    assert "unknown key" in house.told(SpawnFailed, "7-0-60000-3").message


def test_processes_of_an_account_are_bounded(house: House) -> None:
    house.client.close()
    for pid in (*keepers(house.top), house.pid()):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not runners(house.top))
    house.lay_out(run_processes=77)
    house.client.ensure()
    for number, spec in enumerate((PLAIN, dataclasses.replace(PLAIN, limits=Limits(cpu=60)))):
        spec = dataclasses.replace(spec, executable="ulimit -p")
        house.order(request(sealed(spec, job_id=8 + number), f"{8 + number}-0-60000-1"))
        assert house.ran(f"{8 + number}-0-60000-1") == "77\n"


# ------------------------------------------------------------------------------------------------------- beginnings


def test_what_a_daemon_of_before_has_left_becomes_the_daemons_and_nothing_is_lost(house: House) -> None:
    top = house.top.parent / "older"
    (top / "artifacts").mkdir(parents=True)
    for name in ("journal.db", "journal.db-wal", "worker-id", "away.json", "artifacts/aa"):
        (top / name).write_text(name)
    run = top / "runs" / "1-0-1-1"
    run.mkdir(parents=True)
    (run / "output").write_text("printed")
    (run / "output").chmod(0o600)
    config = dataclasses.replace(house.config, state_dir=top)
    own = root_start.lay_out(top, config, house.entry.pw_uid, house.entry.pw_gid)
    try:
        assert root_rules.is_split(str(own)) and not root_rules.is_split(str(top))
        names = ("journal.db", "journal.db-wal", "worker-id", "away.json", "artifacts/aa")
        assert as_account(DAEMON, lambda: [(own / name).read_text() for name in names]) == list(names)
        assert {path.owner() for path in own.rglob("*")} == {DAEMON}
        kept = {"artifacts", "bin", "daemon", "generations", "root.json", "runner.lock", "runner.log", "runner.sock"}
        kept |= set() if control_groups.missing() else {control_groups.NOTE}
        assert {path.name for path in top.iterdir()} == kept | {"runs", "spare"}
        assert {path.owner() for path in top.iterdir()} == {"root", DAEMON}
        assert as_account(DAEMON, lambda: (run / "output").read_text()) == "printed"
        # Again and again, and after a death in the middle of it.
        (top / root_start._STAGING).mkdir()
        assert root_start.lay_out(top, config, house.entry.pw_uid, house.entry.pw_gid) == own
        # And back: a node whose daemon is to be root.
        root_start._give_up(top)
        assert (top / "journal.db").read_text() == "journal.db"
        assert root_rules.load(str(top)) is None
    finally:
        for pid in (*keepers(top), *runners(top)):
            os.kill(pid, signal.SIGKILL)


def test_a_state_folder_that_others_can_exchange_is_refused(house: House) -> None:
    bad = house.top.parent / "bad"
    bad.mkdir()
    bad.chmod(0o777)
    with pytest.raises(ConfigError, match=r"state_dir: .* must be a folder of root's"):
        root_start.lay_out(bad / "state", house.config, house.entry.pw_uid, house.entry.pw_gid)
    bad.chmod(0o755)
    os.chown(bad, house.entry.pw_uid, house.entry.pw_gid)
    with pytest.raises(ConfigError, match="state_dir"):
        root_start.lay_out(bad / "state", house.config, house.entry.pw_uid, house.entry.pw_gid)


def test_rules_that_root_did_not_write_are_refused(house: House) -> None:
    path = house.top / root_rules.FILE
    os.chown(path, house.entry.pw_uid, house.entry.pw_gid)
    with pytest.raises(ValueError, match="was not written by root"):
        root_rules.load(str(house.top))
    os.chown(path, 0, 0)
    path.unlink()
    path.symlink_to(house.own / "rules")
    with pytest.raises(OSError, match="symbolic"):
        root_rules.load(str(house.top))


def test_who_becomes_the_daemons_account_has_no_way_back(house: House) -> None:
    def become() -> object:
        root_part.drop(house.entry.pw_uid, house.entry.pw_gid)
        status = Path("/proc/self/status").read_text()
        wanted = ("NoNewPrivs", "CapEff", "CapPrm", "Groups")
        facts = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if line.startswith(wanted)}
        with pytest.raises(PermissionError):
            os.setuid(0)
        return os.getresuid(), facts["NoNewPrivs"], int(facts["CapEff"][0], 16), int(facts["CapPrm"][0], 16)

    assert as_account("root", become) == ((house.entry.pw_uid,) * 3, ["1"], 0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"daemon_account": "no-such"},
            "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin no-such",
        ),
        ({"daemon_account": "nobody"}, "runs may not have the daemon's own account 'nobody'"),
        ({"node_accounts": (DAEMON,)}, "runs may not have the daemon's own account"),
    ],
)
def test_an_account_that_cannot_be_the_daemons_is_refused_with_the_mend(
    house: House, changes: dict[str, Any], words: str
) -> None:
    fields = {field.name: getattr(house.config, field.name) for field in dataclasses.fields(house.config)}
    with pytest.raises(ConfigError, match="daemon_account: ") as refused:
        load(WorkerConfig, file=None, environ={}, flags={**fields, **changes})
    assert words in str(refused.value)


def test_two_locks_do_not_follow_a_link(house: House) -> None:
    place = house.own / node_files.LOCK
    assert as_account(DAEMON, lambda: place.symlink_to(house.top.parent / "made-by-root")) is None
    with pytest.raises(OSError, match="symbolic"):
        node_files.NodeLock(house.own)
    assert not (house.top.parent / "made-by-root").exists()
