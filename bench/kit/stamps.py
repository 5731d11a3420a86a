"""What a measured job runs: a small program that writes down when it began, for which fire, on which worker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cronkeeper.domain.instants import parse_rfc3339
from tests.harness.processes import ServerError

_SOURCE = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec now;
    char line[256];
    clock_gettime(CLOCK_REALTIME, &now);
    const char *fire = getenv("CRONKEEPER_FIRE_TIME"), *worker = getenv("CRONKEEPER_WORKER");
    int size = snprintf(line, sizeof line, "%s %lld.%09ld %s %s\n", argc > 2 ? argv[2] : "-", (long long)now.tv_sec,
                        now.tv_nsec, fire ? fire : "-", worker ? worker : "-");
    int fd = open(argv[1], O_WRONLY | O_APPEND);
    return write(fd, line, size) == size ? 0 : 1;
}
"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One start: of which job, when, and (but for bare cron's) for which fire and on which worker."""

    name: str
    at_s: float
    fire_s: float | None
    worker: str

    @property
    def minute_s(self) -> float:
        return self.at_s // 60 * 60


class Stamps:
    """The program and the file that it writes to, in a folder that every account may enter."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise ServerError("there is no C compiler; run deploy/install-packages bench")
        folder.chmod(0o755)
        self._file = folder / "stamps"
        self._file.touch()
        self._file.chmod(0o666)
        self._program = folder / "stamp"
        source = folder / "stamp.c"
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-O2", "-static", "-o", str(self._program), str(source)], check=True)

    def command(self, name: str) -> str:
        """Return the command line of a job of that name."""
        return f"{self._program} {self._file} {name}"

    def forget(self) -> None:
        """Begin with an empty file."""
        with self._file.open("r+") as file:
            file.truncate()

    def read(self) -> list[Stamp]:
        return list(self._lines())

    def count(self) -> int:
        return self._file.read_bytes().count(b"\n")

    def _lines(self) -> Iterator[Stamp]:
        for line in self._file.read_text().splitlines():
            name, at, fire, worker = line.split(" ")
            yield Stamp(name, float(at), None if fire == "-" else parse_rfc3339(fire) / 1000, worker)
