"""The commands about jobs and runs, against the real API over HTTP."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cronkeeper.domain.ids import RunKey, TaskId
from tests.harness.ports import free_port
from tests.integration.served_api import FIELDS, Api, serve


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


# ----------------------------------------------------------------------------------------------------------- jobs


def test_a_job_from_its_creation_to_its_end(api: Api) -> None:
    created = api.json("create", *FIELDS, "--name", "listing", "--env", "A=1", "--label", "team=core")
    assert (created["id"], created["status"], created["executable"]) == ("1", "scheduled", "ls -la")
    assert (created["env"], created["labels"]) == ({"A": "1"}, {"team": "core"})
    assert api.ok("list", "-o", "name") == "1\n"
    assert api.json("show", "listing")["id"] == "1"
    assert yaml.safe_load(api.ok("show", "1", "-o", "yaml"))["name"] == "listing"
    assert "listing" in api.ok("list")
    assert api.json("pause", "listing")[0]["status"] == "paused"
    assert api.json("resume", "1")[0]["status"] == "scheduled"
    assert api.run("delete", "listing").exit_code == 0
    assert api.json("show", "1")["status"] == "finished"
    assert api.run("delete", "1", "--purge").exit_code == 0
    assert api.run("show", "1").exit_code == 3


def test_a_job_from_a_file_and_from_standard_input(api: Api, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("schedule: 5 * * * *\nexecutable: ls\ntype: command\nname: a\n")
    assert api.json("create", "-f", str(tmp_path / "job.yaml"), "--name", "b")["name"] == "b"
    text = '{"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}'
    assert "id" in api.ok("create", "-f", "-", stdin=text)


def test_a_script_is_stored_and_shown_by_its_url(api: Api, tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text("#!/bin/sh\necho hello\n")
    created = api.json("create", "--schedule", "@hourly", "--script", str(tmp_path / "hello.sh"), "--arg", "x")
    assert (created["type"], created["filename"], created["args"]) == ("script", "hello.sh", ["x"])
    assert created["executable"].startswith("file://")


def test_a_dry_run_saves_nothing_and_shows_the_next_fires(api: Api) -> None:
    said = api.json("create", *FIELDS, "--dry-run")
    assert len(said["next"]) == 10
    assert "every hour" in said["words"]
    assert api.json("list") == []


def test_lists_are_searched_and_paged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        api.ok("create", *FIELDS, "--name", f"job-{number}", "--label", f"odd={number % 2}")
    monkeypatch.setattr("cronkeeper_cli.client.PAGE", 3)
    assert [job["name"] for job in api.json("list")] == [f"job-{number}" for number in range(7)]
    assert [job["name"] for job in api.json("list", "--limit", "4")] == [f"job-{number}" for number in range(4)]
    assert [job["name"] for job in api.json("list", "-l", "odd=1")] == ["job-1", "job-3", "job-5"]
    assert [job["name"] for job in api.json("list", "-q", "job-6")] == ["job-6"]
    assert api.json("show", "job-6")["id"] == "7"


def test_names_are_looked_up_in_their_namespace(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "same")
    api.ok("create", *FIELDS, "--name", "same", "-n", "billing")
    assert api.json("show", "same")["id"] == "1"
    assert api.json("show", "same", "-n", "billing")["id"] == "2"
    assert api.run("show", "sam").exit_code == 3


def test_next_is_shown_in_words(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    lines = api.ok("next", "a", "--count", "2", "--after", "2027-01-01T00:00:00Z").splitlines()
    assert lines[1:3] == ["2027-01-01T00:05:00Z", "2027-01-01T01:05:00Z"]


# ---------------------------------------------------------------------------------------------------- exit status


def test_every_bad_field_is_told_with_its_mend(api: Api) -> None:
    result = api.run("create", "--schedule", "61 * * * *", "--command", "ls", "--timezone", "Europe/Berlyn")
    assert result.exit_code == 2
    assert "schedule: minute: 61 is not in 0-59" in result.output
    assert "timezone:" in result.output
    assert "Europe/Berlin" in result.output
    assert api.json("list") == []


def test_a_taken_name_is_a_conflict(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    result = api.run("create", *FIELDS, "--name", "a")
    assert result.exit_code == 4
    assert "name" in result.output


def test_what_is_not_there_is_not_found(api: Api) -> None:
    for argv in (["show", "99"], ["runs", "99"], ["delete", "nobody"], ["logs", "1-0-1000-1"], ["cordon", "nowhere"]):
        assert api.run(*argv).exit_code == 3, argv


def test_without_a_token_the_mend_is_told(api: Api) -> None:
    result = api.run("list", env={"CRONKEEPER_TOKEN": ""})
    assert result.exit_code == 1
    assert "CRONKEEPER_TOKEN" in result.output


def test_an_api_that_is_not_there_is_an_error_with_a_hint(api: Api) -> None:
    result = api.run("list", env={"CRONKEEPER_URL": f"http://127.0.0.1:{free_port()}"})
    assert result.exit_code == 1
    assert "Connection refused" in result.output
    assert "cronkeeper standalone" in result.output


# ------------------------------------------------------------------------------------------------------------ edit


def editor(tmp_path: Path, *scripts: str) -> dict[str, str]:
    """Return an environment whose editor applies one sed script at each call, the last one ever after."""
    program = tmp_path / "editor"
    calls = tmp_path / "calls"
    cases = "".join(f"{number}) sed -i '{script}' \"$1\" ;;\n" for number, script in enumerate(scripts, 1))
    program.write_text(
        f'#!/bin/sh\necho x >> {calls}\ncp "$1" {tmp_path}/seen\ncase $(wc -l < {calls}) in\n{cases}esac\nsleep 0.01\n'
    )
    program.chmod(0o755)
    return {"EDITOR": str(program), "VISUAL": ""}


def test_an_edit_changes_what_was_changed_and_nothing_else(api: Api, tmp_path: Path) -> None:
    before = api.json("create", *FIELDS, "--name", "a", "--env", "A=1")
    result = api.run("edit", "a", env=editor(tmp_path, "s/^schedule: .*/schedule: 7 * * * */"))
    assert result.exit_code == 0, result.output
    after = api.json("show", "a")
    assert (after["schedule"], after["generation"]) == ("7 * * * *", 2)
    volatile = {"schedule", "generation", "updated_at", "next_fire"}
    assert {k: v for k, v in after.items() if k not in volatile} == {
        k: v for k, v in before.items() if k not in volatile
    }


def test_an_edit_without_a_change_saves_nothing(api: Api, tmp_path: Path) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    assert api.run("edit", "a", env=editor(tmp_path, "")).exit_code == 0
    assert api.json("show", "a")["generation"] == 1


def test_a_mistake_reopens_the_editor_with_the_reason(api: Api, tmp_path: Path) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    mend = "s/^schedule: .*/schedule: 8 * * * */"
    result = api.run("edit", "a", env=editor(tmp_path, "s/^schedule: .*/schedule: 61 * * * */", mend))
    assert result.exit_code == 0, result.output
    assert "#!   schedule: minute: 61 is not in 0-59" in (tmp_path / "seen").read_text()
    assert api.json("show", "a")["schedule"] == "8 * * * *"


def test_giving_up_after_a_mistake_ends_with_2(api: Api, tmp_path: Path) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    result = api.run("edit", "a", env=editor(tmp_path, "s/^schedule: .*/schedule: 61 * * * */", ""))
    assert result.exit_code == 2
    assert api.json("show", "a")["schedule"] == "5 * * * *"


def test_somebody_elses_change_is_never_overwritten(api: Api, tmp_path: Path) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    env = editor(tmp_path, "s/^schedule: .*/schedule: 7 * * * */")
    program = tmp_path / "editor"
    other = tmp_path / "other"
    opened, go = tmp_path / "opened", tmp_path / "go"
    other.write_text(f'#!/bin/sh\ntouch {opened}\nwhile [ ! -e {go} ]; do sleep 0.05; done\nexec {program} "$1"\n')
    other.chmod(0o755)
    env["EDITOR"] = str(other)

    def meanwhile() -> None:
        while not opened.exists():
            time.sleep(0.02)
        job = api.store.jobs.get(1)
        api.store.jobs.replace(dataclasses.replace(job, generation=2), expected_generation=1)
        go.touch()

    thread = threading.Thread(target=meanwhile)
    thread.start()
    result = api.run("edit", "a", env=env)
    thread.join()
    assert result.exit_code == 4
    assert "your text is kept in" in result.output
    kept = Path(result.output.rpartition("kept in ")[2].strip())
    assert "7 * * * *" in kept.read_text()
    kept.unlink()
    assert api.json("show", "a")["schedule"] == "5 * * * *"


# ------------------------------------------------------------------------------------------------------------ runs


def test_run_waits_prints_the_output_and_ends_well(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    worker = api.finish_pending("1", exit_code=0, output=b"total 0\n")
    result = api.run("run", "a", "--wait")
    worker.join()
    assert result.exit_code == 0
    assert result.stdout == "total 0\n"
    assert [run["state"] for run in api.json("runs", "a")] == ["succeeded"]
    assert api.ok("logs", "a") == "total 0\n"
    assert api.ok("logs", "a", "--tail", "2") == "0\n"


def test_run_that_fails_ends_with_1_and_says_how(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    worker = api.finish_pending("1", exit_code=3, output=b"oh\n")
    result = api.run("run", "a", "--wait")
    worker.join()
    assert result.exit_code == 1
    assert result.stdout == "oh\n"
    assert "failed, exit code 3" in result.stderr


def test_run_that_nobody_takes_times_out_with_5(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    result = api.run("run", "a", "--wait", "--timeout", "0.5s")
    assert result.exit_code == 5
    assert "still pending" in result.output


def test_logs_follow_until_the_end(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    run = api.json("run", "a")[0]
    worker = api.finish_pending("1", exit_code=0, output=b"one\ntwo\n", after_s=1.5)
    while api.json("runs", "a")[0]["state"] != "running":
        time.sleep(0.02)
    assert api.ok("logs", "-f", run["id"]) == "one\ntwo\n"
    worker.join()


def test_a_pending_run_is_cancelled_at_once(api: Api) -> None:
    api.ok("create", *FIELDS, "--name", "a")
    run = api.json("run", "a")[0]
    assert api.json("cancel", run["id"])[0]["state"] == "cancelled"
    assert RunKey.parse(run["id"]).task == TaskId(1, 0)
    assert api.run("cancel", run["id"]).exit_code == 4
