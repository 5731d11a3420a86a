"""The unit files start what there is, and the worker's one lets runs survive."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from cronkeeper_cli.main import cli

UNITS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "systemd").glob("*.service"))


def read(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way to keep capitals
    unit.read(path)
    return unit


def test_every_service_has_its_unit() -> None:
    assert [path.name for path in UNITS] == [f"cronkeeper-{name}.service" for name in ("api", "manager", "worker")]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_its_service_and_checks_the_configuration_first(path: Path) -> None:
    service = read(path)["Service"]
    name = path.stem.removeprefix("cronkeeper-")
    assert service["ExecStart"] == f"/opt/cronkeeper/bin/cronkeeper {name}"
    assert service["ExecStartPre"] == f"/opt/cronkeeper/bin/cronkeeper {name} --check-config"
    assert "--check-config" in [option for param in cli.commands[name].params for option in param.opts]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", "2")


def test_runs_survive_their_worker_and_are_not_fenced_in_by_it() -> None:
    service = read(UNITS[2])["Service"]
    assert (service["KillMode"], service["SendSIGKILL"]) == ("process", "no")
    assert not [key for key in service if key.startswith(("Protect", "Private", "Restrict", "NoNew", "Capability"))]


@pytest.mark.parametrize("path", UNITS[:2], ids=lambda path: path.name)
def test_what_runs_no_jobs_is_fenced_in(path: Path) -> None:
    service = read(path)["Service"]
    assert service["User"] == "cronkeeper"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
