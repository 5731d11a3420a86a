"""Jobs in files, and jobs from elsewhere, against the real API over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.served_api import Api, serve

TWO = """
- name: a
  type: command
  executable: "true"
  schedule: 5 3 * * *
  labels: {managed-by: git}
- name: b
  type: command
  executable: "false"
  schedule: "@hourly"
  labels: {managed-by: git}
"""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as served:
        yield served


def test_jobs_follow_their_file_and_a_second_time_nothing_happens(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(TWO)
    assert "would be created" in api.ok("diff", "-f", str(file))
    assert api.json("list") == []
    assert api.run("diff", "-f", str(file), "--exit-code").exit_code == 1
    assert "+ a: created" in api.ok("apply", "-f", str(file))
    assert api.ok("apply", "-f", str(file)) == "2 unchanged\n"
    assert api.run("diff", "-f", str(file), "--exit-code").exit_code == 0
    file.write_text(TWO.replace("5 3 * * *", "6 4 * * *"))
    said = api.ok("diff", "-f", str(file))
    assert "schedule: 5 3 * * * -> 6 4 * * *" in said
    assert "next before" in said
    api.ok("apply", "-f", str(file))
    assert api.json("show", "a")["schedule"] == "6 4 * * *"


def test_what_is_in_no_file_is_pruned_by_label_only(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(TWO)
    api.ok("apply", "-f", str(file))
    api.ok("create", "--schedule", "@daily", "--command", "true", "--name", "by-hand")
    file.write_text(yaml.safe_dump(yaml.safe_load(TWO)[:1]))
    assert "- b: pruned" in api.ok("apply", "-f", str(file), "--prune", "managed-by=git")
    assert {job["name"]: job["status"] for job in api.json("list")} == {
        "a": "scheduled",
        "b": "finished",
        "by-hand": "scheduled",
    }


def test_one_bad_job_in_a_file_saves_none(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(TWO.replace('"@hourly"', '"61 * * * *"'))
    result = api.run("apply", "-f", str(file))
    assert result.exit_code == 2
    assert "jobs[1].schedule" in result.output
    assert api.json("list") == []


def test_what_is_exported_can_be_applied_and_changes_nothing(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(TWO)
    api.ok("apply", "-f", str(file), "-n", "billing")
    exported = api.ok("export", "-n", "billing")
    assert api.ok("apply", "-f", "-", stdin=exported) == "2 unchanged\n"
    assert "5 3 * * * true" in api.ok("export", "--crontab", "--timezone", "UTC")


def test_an_imported_crontab_is_there_once_however_often_it_is_imported(api: Api, tmp_path: Path) -> None:
    tab = tmp_path / "tab"
    tab.write_text("0 3 * * * /opt/backup\n0 0 30 2 * x\n15 4 * * 1#2 y\n")
    argv = ("import", "crontab", str(tab), "--timezone", "Europe/Berlin", "--apply")
    result = api.run(*argv)
    assert result.exit_code == 0, result.output
    assert "2 created" in result.stderr
    assert "2 unchanged" in api.run(*argv).stderr
    jobs = {job["schedule"]: job for job in api.json("list")}
    assert set(jobs) == {"0 3 * * *", "15 4 * * 1"}
    assert jobs["0 3 * * *"]["timezone"] == "Europe/Berlin"


def test_a_suspended_cronjob_is_there_and_paused(api: Api) -> None:
    item = {
        "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "billing"},
        "spec": {
            "schedule": "0 6 * * *",
            "suspend": True,
            "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"command": ["/bin/true"]}]}}}},
        },
    }
    result = api.run("import", "k8s", "-f", "-", "--apply", stdin=yaml.safe_dump(item))
    assert result.exit_code == 0, result.output
    assert api.json("show", "report", "-n", "billing")["status"] == "paused"
