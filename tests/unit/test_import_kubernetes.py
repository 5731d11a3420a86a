"""CronJobs as kubectl prints them become jobs; what cannot be kept is noted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cronkeeper_cli.kubernetes import Converted, convert, cron_jobs
from tests.unit.test_cli_commands import run

ITEM: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "report", "namespace": "billing", "labels": {"team": "core"}},
    "spec": {
        "schedule": "0 6 * * 1-5",
        "timeZone": "Europe/Berlin",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 200,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 2,
                "activeDeadlineSeconds": 600,
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "image": "registry.example/report:1",
                                "command": ["/bin/report", "--day"],
                                "args": ["a b"],
                                "env": [{"name": "LEVEL", "value": "2"}],
                            }
                        ]
                    }
                },
            }
        },
    },
}


def item(**changes: Any) -> dict[str, Any]:
    made = copy.deepcopy(ITEM)
    made["spec"].update({key: value for key, value in changes.items() if key in ("schedule", "timeZone", "suspend")})
    container = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container.update({key: value for key, value in changes.items() if key in ("command", "args", "env", "envFrom")})
    return made


def converted(**changes: Any) -> Converted:
    return convert(item(**changes), source="kubernetes")


def job(**changes: Any) -> dict[str, Any]:
    found = converted(**changes).job
    assert found is not None
    return found


def test_everything_that_has_a_counterpart_is_kept() -> None:
    assert job() == {
        "name": "report",
        "namespace": "billing",
        "type": "command",
        "schedule": "0 6 * * 1-5",
        "timezone": "Europe/Berlin",
        "executable": "/bin/report",
        "args": ["--day", "a b"],
        "concurrency": "forbid",
        "grace_s": 200,
        "timeout_s": 600,
        "retry": {"limit": 2, "backoff_s": 10, "max_backoff_s": 360},
        "env": {"LEVEL": "2"},
        "labels": {"team": "core", "imported-from": "kubernetes"},
    }


def test_a_shell_line_stays_a_shell_line() -> None:
    made = job(command=["/bin/sh", "-c", "date; echo $LEVEL"], args=[])
    assert made["executable"] == "date; echo $LEVEL"
    assert "args" not in made


def test_a_zone_in_the_schedule_counts() -> None:
    made = job(schedule="CRON_TZ=Asia/Tokyo 0 9 ? * *", timeZone=None)
    assert (made["schedule"], made["timezone"]) == ("0 9 * * *", "Asia/Tokyo")


def test_what_is_not_kept_is_noted() -> None:
    secret = {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}
    notes = " ".join(converted(env=[secret], envFrom=[{"configMapRef": {"name": "c"}}]).notes)
    assert "PASS comes from a secret" in notes
    assert "envFrom is not kept" in notes
    assert "registry.example/report:1 is not used" in notes


def test_without_a_command_there_is_nothing_to_run() -> None:
    found = converted(command=[])
    assert found.job is None
    assert "give it a `command`" in found.notes[0]


def test_lists_and_items_are_read_and_others_refused() -> None:
    listed = {"kind": "CronJobList", "items": [ITEM]}
    assert list(cron_jobs([ITEM, {"kind": "List", "items": [ITEM, listed]}])) == [ITEM, ITEM, ITEM]
    with pytest.raises(ValueError, match="'Deployment'"):
        list(cron_jobs([{"kind": "Deployment"}]))


def test_the_command_reads_yaml_and_json_and_its_jobs_are_sound(tmp_path: Path) -> None:
    source = tmp_path / "jobs.yaml"
    source.write_text(yaml.safe_dump({"kind": "List", "items": [item(suspend=True)]}))
    result = run("import", "k8s", "-f", str(source))
    assert result.exit_code == 0, result.output
    assert "report: imported" in result.output
    assert "it is suspended" in result.output
    made = run("import", "k8s", "-f", "-", "-o", "json", stdin=json.dumps(ITEM))
    (tmp_path / "made.json").write_text(made.output)
    assert run("validate", "-f", str(tmp_path / "made.json")).exit_code == 0


def test_what_the_api_would_refuse_stops_the_import(tmp_path: Path) -> None:
    result = run("import", "k8s", "-f", "-", stdin=json.dumps(item(schedule="61 * * * *")))
    assert result.exit_code == 2
    assert "schedule" in result.output
