"""Debian's real cron on a clock that stands still until cron sleeps: a year in minutes, and no minute lost.

libfaketime gives cron its time from a file's modification time (`FAKETIME=%`). While cron works, that clock stands.
Once cron sleeps and none of its jobs is left, the driver reads from the kernel for how long cron asked to sleep, sets
the clock forward by exactly that, and wakes cron with SIGCHLD, which it gets after each job anyway. To cron, its work
takes no time at all and every sleep is as long as it asked for, so nothing depends on this machine's load; and each
fire belongs to the minute that the clock shows.
"""

from __future__ import annotations

import os
import platform
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

from tests.harness.cron import Node, find_faketime

#: clock_nanosleep on the machines that we know.
_CLOCK_NANOSLEEP = {"x86_64": "230", "aarch64": "115"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STUCK_S = 120.0
_LOOK_S, _LOOK_SLOWLY_S = 0.00005, 0.001
_PAM = "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session"))


class SteppedCron:
    """One cron with one crontab, from one instant on; a context manager. The node must have no other cron.

    `lines` are the five fields and their number; cron's job for a line does nothing but write that number down.
    """

    def __init__(self, node: Node, lines: Mapping[int, str], *, timezone: str, start_s: int) -> None:
        self._node = node
        self._fires_path = node.folder / "fires"
        self._clock_path = node.folder / "clock"
        self._fires_path.write_bytes(b"")
        self._clock_path.touch()
        self._write_crontab(lines)
        self._now_s = start_s
        self._asleep = _CLOCK_NANOSLEEP[platform.machine()]
        self._set_clock(start_s)
        env = {
            "PATH": _PATH,
            "TZ": timezone,
            "LD_PRELOAD": str(find_faketime()),
            "FAKETIME": "%",
            "FAKETIME_FOLLOW_FILE": str(self._clock_path),
            "FAKETIME_NO_CACHE": "1",
            # Files keep their real times: cron would take every crontab for changed, each minute, and read it again.
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._process = node.process(["cron", "-f", "-L", "0"], env, name="cron")

    def __enter__(self) -> Self:
        self._process.start()
        pid = self._process.pid
        self._proc = Path(f"/proc/{pid}")
        # The node's own list of processes: its init, its cron, and cron's jobs.
        self._node_proc = Path("/proc", str(self._node.init_pid), "root", "proc")
        self._fires = self._fires_path.open("rb", buffering=0)
        while b"cron" not in (self._proc / "comm").read_bytes():
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._fires.close()
        self._process.stop()

    def run_until(self, until_s: int) -> list[tuple[int, int]]:
        """Walk to `until_s`, exclusively; return (minute's instant in epoch s, line's number) of each fire, in order.

        Raises AssertionError when cron skipped a minute of the clock: then the machine did something unforeseen.
        """
        found: list[tuple[int, int]] = []
        worked = self._now_s // 60
        turns = b""
        while True:
            asked = self._wait_until_idle(turns)
            minute_s = self._now_s // 60 * 60
            found += [(minute_s, number) for number in self._new_fires()]
            if self._now_s // 60 not in (worked, worked + 1):
                raise AssertionError(f"cron went from minute {worked} to {self._now_s // 60}")
            worked = self._now_s // 60
            if self._now_s + asked >= until_s:
                return found
            self._now_s += asked
            self._set_clock(self._now_s)
            turns = self._turns()
            os.kill(self._process.pid, signal.SIGCHLD)

    def _wait_until_idle(self, since: bytes) -> int:
        """Wait until cron has had a turn `since`, sleeps and has no job left; return how long (s) it asked to sleep.

        A process that another processor is about to wake still shows the call in which it slept: without `since` we
        would take the sleep that is over for the next one, and skip its minute.
        """
        deadline = time.monotonic() + _STUCK_S
        pause_s = _LOOK_S
        while True:
            time.sleep(pause_s)  # cron has the processor meanwhile
            pause_s = min(pause_s * 1.5, _LOOK_SLOWLY_S)
            before = self._turns()
            fields = (self._proc / "syscall").read_text().split()
            if fields[0] == self._asleep and before != since and not self._jobs_left():
                words = self._words_at(int(fields[3], 16))
                if self._turns() == before:  # it has not run since we first looked: all that we saw belongs together
                    assert 0 < words[0] <= 65, words
                    return words[0]
            if time.monotonic() > deadline:
                raise AssertionError(f"cron is not idle after {_STUCK_S:g} s{self._process.log_tail()}")

    def _turns(self) -> bytes:
        """How often cron was given a processor."""
        return (self._proc / "schedstat").read_bytes().split()[2]

    def _jobs_left(self) -> bool:
        return sum(name.isdigit() for name in os.listdir(self._node_proc)) > 2

    def _words_at(self, address: int) -> tuple[int, int]:
        with (self._proc / "mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            seconds, nanoseconds = struct.unpack("qq", memory.read(16))
        return int(seconds), int(nanoseconds)

    def _new_fires(self) -> list[int]:
        data = self._fires.read()
        return [int(word) for word in data.split()] if data else []

    def _set_clock(self, now_s: int) -> None:
        # libfaketime's frozen clock shows the file's time less a moment, which time(2) cuts down to the second before.
        os.utime(self._clock_path, (now_s + 1, now_s + 1))

    def _write_crontab(self, lines: Mapping[int, str]) -> None:
        text = "".join(f"{fields} root echo {number} >>{self._fires_path}\n" for number, fields in lines.items())
        path = self._node.cron_d / "golden"
        path.write_text(text)
        path.chmod(0o644)


def prepare(node: Node) -> None:
    """Make jobs cheap in the node: cron asks PAM for each, and PAM's usual modules cost more than all the rest."""
    pam = node.folder / "pam-cron"
    pam.write_text(_PAM)
    node.run(["mount", "--bind", str(pam), "/etc/pam.d/cron"])


def record(
    node: Node, expressions: Sequence[str], *, timezone: str, start_s: int, until_s: int
) -> dict[str, list[int]]:
    """Return when cron fired each expression in [start, until): instants in epoch s, repeated as often as it fired.

    A line of our own goes with them, `0 * * * *`, and must fire at each full hour of the zone's clock and at no other
    time; AssertionError if it does not.
    """
    lines = dict(enumerate([*expressions, "0 * * * *"]))
    # cron runs nothing in the minute in which it starts: that is the one before.
    with SteppedCron(node, lines, timezone=timezone, start_s=start_s - 59) as cron:
        fires = cron.run_until(until_s)
    found: dict[int, list[int]] = {number: [] for number in lines}
    for instant_s, number in fires:
        found[number].append(instant_s)
    assert found.pop(len(expressions)) == full_hours(timezone, start_s, until_s), "cron lost a minute"
    return {lines[number]: instants for number, instants in found.items()}


def full_hours(timezone: str, start_s: int, until_s: int) -> list[int]:
    """Return the instants in [start, until), epoch s, at which a clock in the zone shows minute 0."""
    zone = ZoneInfo(timezone)
    return [at for at in range(start_s, until_s, 60) if datetime.fromtimestamp(at, zone).minute == 0]
