"""The first process of a test node: makes its mounts, is its syslog, reaps its orphans.

Usage: unshare --mount --pid --uts … python -IS node_init.py FOLDER NAME [PATH OPTIONS KEEP[:KEEP…]]…

Each PATH gets a tmpfs of its own with these mount options, with the folders KEEP still in it if they are below.

Standard library only, and nothing of ours: it runs before anything else in the node. When it dies, the kernel ends
every process in the node.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def mount(*arguments: str) -> None:
    """Run mount(8); its complaint ends up in the node's log."""
    subprocess.run(["mount", *arguments], check=True)


def private_crontabs(folder: Path) -> None:
    """Put the node's own crontabs over the host's, in this mount namespace only."""
    mount("--bind", str(folder / "crontab"), "/etc/crontab")
    mount("--bind", str(folder / "cron.d"), "/etc/cron.d")
    mount("--bind", str(folder / "crontabs"), "/var/spool/cron/crontabs")
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")


def private_disk(path: Path, options: str, keeps: list[Path], stash: Path) -> None:
    """Put a small file system over a folder."""
    kept = [keep for keep in keeps if keep.is_relative_to(path)]
    for number, keep in enumerate(kept):
        place = Path(f"{stash}-{number}")
        place.mkdir(exist_ok=True)
        mount("--rbind", str(keep), str(place))
    path.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(path))
    for number, keep in enumerate(kept):
        keep.mkdir(parents=True, exist_ok=True)
        mount("--rbind", f"{stash}-{number}", str(keep))


def private_dev(folder: Path) -> None:
    """Give the node a /dev of its own, so that it can have a /dev/log of its own."""
    host = folder / "host-dev"
    host.mkdir(exist_ok=True)
    mount("--rbind", "/dev", str(host))
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/dev")
    for name in _DEVICES:
        Path("/dev", name).touch()
        mount("--bind", str(host / name), f"/dev/{name}")
    for name in ("pts", "shm"):
        if (host / name).is_dir():
            Path("/dev", name).mkdir()
            mount("--rbind", str(host / name), f"/dev/{name}")
    for name, target in _LINKS.items():
        Path("/dev", name).symlink_to(target)
    subprocess.run(["umount", "--lazy", "--recursive", str(host)], check=True)


def reap() -> None:
    """Collect whatever has ended: orphans of the node are our children."""
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def serve(log_path: Path, ready_path: Path) -> None:
    """Write what comes over /dev/log to a file, and reap, until SIGTERM."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    Path("/dev/log").chmod(0o666)
    wakeup, wakeup_end = socket.socketpair()
    wakeup.setblocking(False)
    wakeup_end.setblocking(False)
    signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    selector.register(log, selectors.EVENT_READ)
    selector.register(wakeup, selectors.EVENT_READ)
    ready_path.touch()
    with log_path.open("ab", buffering=0) as file:
        while True:
            for key, _events in selector.select():
                if key.fileobj is log:
                    file.write(log.recv(65536).rstrip(b"\0\n") + b"\n")
                else:
                    wakeup.recv(4096)
            reap()


def main() -> None:
    """Make the node; returns only by SIGTERM."""
    folder, name, *disks = Path(sys.argv[1]), *sys.argv[2:]
    os.umask(0o022)
    socket.sethostname(name)
    private_crontabs(folder)
    for number in range(0, len(disks), 3):
        path, options, keeps = disks[number : number + 3]
        private_disk(Path(path), options, list(map(Path, keeps.split(":"))), Path("/run", f"kept-{number}"))
    private_dev(folder)
    serve(folder / "syslog", folder / "ready")


if __name__ == "__main__":
    main()
