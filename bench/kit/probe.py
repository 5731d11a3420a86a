"""The fault trials' probe as a program: it writes what tests/faults/probe.sh writes, for a fifth of its cost.

That script starts five programs for each run: at hundreds of fires a second little else would be measured.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.harness.processes import ServerError

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char node[128], token[64];

static void first_line(const char *path, char *into, int size) {
    int fd = open(path, O_RDONLY), got = fd < 0 ? 0 : read(fd, into, size - 1);
    close(fd);
    into[got > 0 ? got : 0] = 0;
    into[strcspn(into, "\n")] = 0;
}

static const char *told(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int edge(int fd, const char *before, const char *after) {
    struct timespec wall, boot;
    char line[1500];
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    int size = snprintf(line, sizeof line, "%s\"token\":\"%s\",\"wall_s\":%lld.%09ld,\"boot_s\":%lld.%02ld%s}\n",
                        before, token, (long long)wall.tv_sec, wall.tv_nsec, (long long)boot.tv_sec,
                        boot.tv_nsec / 10000000, after);
    return write(fd, line, size) == size && fdatasync(fd) == 0;
}

int main(int argc, char **argv) {
    char path[4096], text[1200], end[64];
    if (argc != 5) return 2;
    first_line("/proc/sys/kernel/hostname", node, sizeof node);
    first_line("/proc/sys/kernel/random/uuid", token, sizeof token);
    snprintf(path, sizeof path, "%s/%s.jsonl", argv[1], node);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666), status = atoi(argv[4]);
    snprintf(text, sizeof text,
             "{\"edge\":\"start\",\"name\":\"%s\",\"job\":\"%s\",\"run\":\"%s\",\"fire_time\":\"%s\",\"attempt\":\"%s\","
             "\"shard\":\"%s\",\"worker\":\"%s\",\"fence\":\"%s\",\"node\":\"%s\",\"pid\":\"%d\",",
             argv[2], told("CRONKEEPER_JOB_ID"), told("CRONKEEPER_RUN_ID"), told("CRONKEEPER_FIRE_TIME"),
             told("CRONKEEPER_ATTEMPT"), told("CRONKEEPER_SHARD"), told("CRONKEEPER_WORKER"), told("CRONKEEPER_FENCE"),
             node, (int)getpid());
    if (!edge(fd, text, "")) return 3;
    usleep((useconds_t)(atof(argv[3]) * 1000000));
    snprintf(end, sizeof end, ",\"exit\":%d", status);
    return edge(fd, "{\"edge\":\"end\",", end) ? status : 3;
}
"""


def build(folder: Path) -> Path:
    """Return the program, made in `folder`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise ServerError("there is no C compiler; run deploy/install-packages bench")
    source, program = folder / "probe.c", folder / "probe"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-O2", "-static", "-o", str(program), str(source)], check=True)
    return program
