"""Which command lines need no shell, and the thread that is barred."""

from __future__ import annotations

import shlex
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronkeeper_worker.spawn import Barred, explain, words

_LOOKED_INTO = [*"$*?[]~#{}'\"\\`()<>;&|!^", "$HOME", "~x", "#x", "a#b", "a=*", "$(id)", "2>x", "ü"]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("/bin/ls -la /tmp", ["/bin/ls", "-la", "/tmp"]),
        ("  /bin/ls\t-l  ", ["/bin/ls", "-l"]),
        ("/opt/x/backup.sh --to=s3:b/p,50% user@host", ["/opt/x/backup.sh", "--to=s3:b/p,50%", "user@host"]),
        ("/usr/bin/env A=b", ["/usr/bin/env", "A=b"]),
        ("ls -la", None),
        ("./run", None),
        ("A=b /bin/ls", None),
        ("", None),
        (" ", None),
        *((f"/bin/echo {text}", None) for text in _LOOKED_INTO),
        ("/bin/echo a\n/bin/echo b", None),
        ("/bin/echo a\r", None),
    ],
)  # fmt: skip
def test_words(command: str, wanted: list[str] | None) -> None:
    assert words(command) == wanted


@given(st.text("ab/ \t-=.$*'\"~#;&|<>(){}\\\n!%@:,+_^", max_size=20))
def test_words_are_what_a_shell_makes_of_them(rest: str) -> None:
    found = words("/bin/printf " + rest)
    if found is not None:
        # Its own built-in command shows the words that it has found, one a line.
        script = f"set -- {rest}\nfor word; do printf '%s\\n' \"$word\"; done"
        shown = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
        assert found == ["/bin/printf", *shown.stdout.splitlines()]
        assert found == shlex.split("/bin/printf " + rest)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (b"OSError:2:", ("cannot execute: No such file or directory", True)),
        (b"OSError:B:noexec", ("cannot prepare the process: Resource temporarily unavailable", False)),
        (b"cannot enter /x: Permission denied", ("cannot enter /x: Permission denied", False)),
        (b"OSError:", ("OSError:", False)),
        (b"OSError:\xff:", ("OSError:\ufffd:", False)),
    ],
)
def test_a_reason_is_told_in_words(reason: bytes, told: tuple[str, bool]) -> None:
    assert explain(reason) == told


def test_a_barred_thread_works_while_we_wait_and_is_barred_once() -> None:
    bars: list[int] = []
    barred = Barred(lambda: bars.append(threading.get_native_id()))
    assert barred.do(threading.get_native_id) != threading.get_native_id()
    assert barred.do(threading.get_native_id) == bars[0]
    with pytest.raises(ZeroDivisionError):
        barred.do(lambda: 1 / 0)
    assert barred.do(lambda: "on") == "on"
    assert len(bars) == 1
    # What it did may have held secrets.
    assert barred._work is None
    barred.close()
    barred.close()


def test_nothing_is_done_by_a_thread_that_could_not_be_barred() -> None:
    tries: list[int] = []
    done: list[int] = []

    def bar() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("refused")

    barred = Barred(bar)
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            barred.do(lambda: done.append(1))
    assert not done
    barred.do(lambda: done.append(1))
    assert len(done) == 1
    barred.close()
