"""Debian's real cron is asked whether the import knows it: what it refuses, and what it gives to shell and input."""

from __future__ import annotations

import ast
import datetime
import re
import time
from collections.abc import Callable
from pathlib import Path

from cronkeeper_cli import vixie
from cronkeeper_cli.crontab_text import Line, Settings, file_notes, read_crontab
from tests.golden.stepped import prepare
from tests.harness.cron import Node
from tests.harness.processes import ServerError

NOW = datetime.datetime(2026, 2, 1, 12, tzinfo=datetime.UTC)
CORPUS = Path(__file__).parents[1] / "unit" / "crontabs"
_TIMEOUT_S = 25.0
#: The node has no such accounts as real crontabs name, and cron refuses an entry for want of one.
_USER = "root"
#: Written into the file instead of the shell's work: what cron gave it.
_SHELL = """#!/usr/bin/python3
import os, sys
given = (sys.argv[2], sys.stdin.buffer.read(), os.getcwd(), os.environ.get("A"))
name = {folder!r} + "/" + os.environ["N"]
with open(name + ".part", "w") as file:
    file.write(repr(given))
os.rename(name + ".part", name)
"""
_COMMANDS = [
    *("plain", r"a\%b", r"a\\b", r"a\\%b", r"a\\\%b", r"a\b", "a%", "a%%", "a%b", "a%b%", "a%b%c", r"a%b\%c"),
    *(r"a%b\\%c", r"a%b\c", "a%b\\", "a\\", "%x", "a %  b ", r"\\\\", r"a%\\\%", r"grep '\\.php' x", r"date +\%F"),
]
_VARIABLES = [
    *("A=b", "A = b", 'A="b c"', "A=' b c '", 'A=b "c"', '"A"=b', "A=b \t", "A=$HOME/x", "A=b=c#d", 'A="b=c"'),
    *("A='\"'", "A=\tb\t", 'A="q"  \r', "A=b\r", "A=''", "A=" + "x" * 1500),
]


def refused(node: Node) -> set[str]:
    """Return the files of cron.d that cron ignores."""
    return set(re.findall(r"\(\*system\*([\w-]+)\) ERROR \(", node.cron_log()))


def read_as_cron(data: bytes) -> bool:
    """Say whether we believe that cron reads the file."""
    text = data.decode(errors="surrogateescape")
    lines: list[Line] = read_crontab(text, Settings("test", user_column=True), now=NOW)
    return not file_notes(text, lines)


def with_user(line: bytes) -> bytes:
    """Return a line of a user's crontab as one of a system crontab, if it is an entry at all."""
    entry = re.fullmatch(rb"([ \t]*(?:@[^ \t]+|(?:[^ \t]+[ \t]+){4}[^ \t]+)[ \t]+)([^ \t].*)", line, re.DOTALL)
    if entry is None or vixie.variable(line.decode(errors="surrogateescape")) is not None:
        return line
    return entry[1] + _USER.encode() + b" " + entry[2]


def samples() -> dict[str, bytes]:
    """Each odd line of the corpus as a file of its own, and the odd files whole."""
    files = {}
    for name in ("odd", "refused", "windows", "windows-blank"):
        for number, line in enumerate((CORPUS / f"{name}.user").read_bytes().split(b"\n"), start=1):
            if line.strip(b" \t") and not line.lstrip(b" \t").startswith(b"#"):
                files[f"{name}-{number}"] = with_user(line) + b"\n"
    for path in sorted({*CORPUS.glob("*.user")} - {CORPUS / "fleet.user"}):
        lines = path.read_bytes().split(b"\n")
        files[f"whole-{path.stem}"] = b"\n".join(map(with_user, lines))
    entry = b"0 0 * * * root"
    plain = [b"", b" ", b" x", b" x\0y", b" x\0# y", b" x\0\0", b" " + b"a" * 998, b" " + b"a" * 999]
    files |= {f"end-{number}": entry + end + b"\n" for number, end in enumerate(plain)}
    return files


def wait_for(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise ServerError(f"cron did not {what} within {_TIMEOUT_S:g} s")
        time.sleep(0.1)


def install(node: Node, name: str, data: bytes) -> None:
    path = node.cron_d / name
    path.write_bytes(data)
    path.chmod(0o644)


def test_a_file_is_ignored_by_cron_exactly_when_the_import_says_so() -> None:
    files = samples()
    assert len(files) >= 40
    with Node("import-accepts") as node:
        for name, data in files.items():
            install(node, name, data)
        node.start_cron()
        wait_for(lambda: "Running @reboot jobs" in node.cron_log(), "read its files")
        ignored = refused(node)
    wrong = {name: data[:80] for name, data in files.items() if read_as_cron(data) == (name in ignored)}
    assert wrong == {}
    # Both kinds are there, so the test can fail both ways.
    assert 40 <= len(ignored) <= len(files) - 40


def test_shell_and_input_get_what_the_import_says() -> None:
    with Node("import-commands") as node:
        prepare(node)
        told = node.folder / "told"
        told.mkdir()
        shell = node.folder / "shell"
        shell.write_text(_SHELL.format(folder=str(told)))
        shell.chmod(0o755)
        head = f"SHELL={shell}\nN="
        for number, command in enumerate(_COMMANDS):
            install(node, f"command-{number}", f"{head}command-{number}\n0 2 * * * root {command}\n".encode())
        for number, line in enumerate(_VARIABLES):
            install(node, f"variable-{number}", f"{head}variable-{number}\n{line}\n0 2 * * * root x\n".encode())
        node.start_cron(faketime="@2026-03-31 01:59:56", timezone="UTC")
        names = [*(f"command-{n}" for n in range(len(_COMMANDS))), *(f"variable-{n}" for n in range(len(_VARIABLES)))]
        wait_for(lambda: all((told / name).exists() for name in names), "run its jobs")
        found = {name: ast.literal_eval((told / name).read_text()) for name in names}
    for number, text in enumerate(_COMMANDS):
        line, given, folder, _ = found[f"command-{number}"]
        assert (line, given.decode()) == vixie.split_input(text), text
        assert folder == "/root"
    for number, text in enumerate(_VARIABLES):
        assert vixie.variable(text) == ("A", found[f"variable-{number}"][3]), text
