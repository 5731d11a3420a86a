"""Crontabs as they are found in the wild, and what the import says of each: reports that were checked line by line.

`CRONKEEPER_GOLDEN=write` writes the reports anew; read `git diff` then, line by line again.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from cronkeeper_cli.crontab_text import Line, Settings
from cronkeeper_cli.imports import read_file, report

FOLDER = Path(__file__).with_name("crontabs")
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".user", ".system"))
NOW = datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.UTC)


def read(path: Path) -> tuple[list[Line], list[str]]:
    is_system = path.suffix == ".system"
    settings = Settings(path.name, is_system, None if is_system else "me", "Europe/Berlin")
    return read_file(path.read_bytes(), settings, now=NOW)


def full_report(path: Path) -> str:
    """The report as the command prints it, and the command lines as they will be run."""
    lines, notes = read(path)
    said = report(path.name, lines, notes)
    return "\n".join([*said, *_runs(lines)]) + "\n"


def _runs(lines: list[Line]) -> list[str]:
    """What is run, and by whom; variables where they change."""
    said = ["", "runs:"]
    env: object = {}
    for line in lines:
        if line.job is None:
            continue
        if (found := line.job.get("env", {})) != env:
            env = found
            said.append(f"      with {found}")
        said.append(f"{line.number:5} {line.job['run_as']}: {line.job['executable']!r}")
    return said


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_report_is_the_one_that_was_checked(path: Path) -> None:
    golden = path.with_name(f"{path.name}.report")
    made = full_report(path)
    if os.environ.get("CRONKEEPER_GOLDEN") == "write":
        golden.write_bytes(made.encode())
    assert made == golden.read_bytes().decode()


def test_the_corpus_is_large() -> None:
    entries = sum(
        1
        for path in FILES
        for line in path.read_bytes().split(b"\n")
        if line.strip() and not line.lstrip(b" \t").startswith(b"#")
    )
    assert entries >= 300
