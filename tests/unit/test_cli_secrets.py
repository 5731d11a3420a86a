"""Secrets on the command line: where values come from, and what is written into a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cronkeeper_cli import doctor
from cronkeeper_cli.crontab_export import export_crontab
from cronkeeper_cli.edit import job_from_flags
from cronkeeper_cli.failures import CommandError
from cronkeeper_cli.main import cli
from cronkeeper_cli.secrets import value_of
from cronkeeper_cli.standalone_home import Home

COMMAND = {"command": "./dump", "schedule": "@daily"}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\r\n", "word"),
        (b" word \n\n", " word \n\n"),
        (b"-----BEGIN-----\nAAAA\n-----END-----\n", "-----BEGIN-----\nAAAA\n-----END-----\n"),
        (b"", ""),
        ("\u00fc\n".encode(), "\u00fc"),
    ],
)
def test_a_text_of_one_line_loses_its_line_end(raw: bytes, value: str) -> None:
    assert value_of(raw) == value


def test_what_is_no_text_is_refused_without_being_shown() -> None:
    with pytest.raises(CommandError) as caught:
        value_of(b"c4nary\xff")
    assert "base64" in caught.value.message
    assert "c4nary" not in caught.value.message


def test_there_is_no_way_to_give_a_value_on_the_command_line() -> None:
    command = cli.commands["secrets"]
    assert isinstance(command, click.Group)
    names = {name for param in command.commands["set"].params for name in (*param.opts, param.name)}
    assert names == {"name", "--from-file", "source", "-n", "--namespace", "namespace", "-o", "--output", "form"}
    asked = CliRunner().invoke(cli, ["secrets", "set", "pg"], input="c4nary\n")
    assert (asked.exit_code, "--from-file -" in asked.output) == (2, True)


def test_flags_name_secrets_beside_variables() -> None:
    flags: dict[str, Any] = {**COMMAND, "env": ("A=b=c",), "secrets": ("P=pg", "K=pg-key:file")}
    base = {"env": {"P": "plain", "B": "x"}}
    wanted = {"A": "b=c", "B": "x", "P": {"secret": "pg"}, "K": {"secret": "pg-key", "as": "file"}}
    assert job_from_flags(base, flags)["env"] == wanted


def test_a_job_with_secrets_is_no_line_of_a_crontab() -> None:
    job = {"executable": "ls", "schedule": "5 * * * *", "type": "command", "id": "1", "timezone": "UTC"}
    plain, secret = ({**job, "env": {"P": value}} for value in ("text", {"secret": "pg"}))
    assert "P=text" in export_crontab([plain], timezone="UTC", user=None)
    told = export_crontab([secret], timezone="UTC", user=None)
    assert "it uses secrets" in told
    assert [line for line in told.splitlines() if line and not line.startswith("#")] == ["SHELL=/bin/sh"]


def test_the_doctor_looks_at_the_keys_of_secrets(tmp_path: Path) -> None:
    key = tmp_path / "secrets-key"
    key.write_text("0123456789abcdef" * 4)

    def finding(*paths: Path) -> doctor.Finding:
        sets = (f"secrets_key_files={','.join(map(str, paths))}",) if paths else ()
        stores = {"DATABASE_URL": "sqlite:////none/x", "ZOOKEEPER": "127.0.0.1:1/none", "BLOB_URL": "file:///none"}
        found = doctor.secrets_finding(None, sets, {f"CRONKEEPER_{name}": value for name, value in stores.items()})
        assert found.what == "secrets"
        return found

    key.chmod(0o644)
    assert (finding(key).fault, "can be read by others" in finding(key).seen) == (True, True)
    assert finding(tmp_path / "none").fault
    key.chmod(0o600)
    assert (finding(key).fault, finding(key).seen) == (False, "1 key, closed to others")
    assert (finding().fault, "openssl rand" in finding().mend) == (False, True)


def test_standalone_makes_a_key_that_is_closed_to_others(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.secrets()
    first = home.secrets_key_file.read_text()
    home.secrets()
    assert (home.secrets_key_file.read_text(), home.secrets_key_file.stat().st_mode & 0o777) == (first, 0o600)
    assert len(bytes.fromhex(first)) == 32
