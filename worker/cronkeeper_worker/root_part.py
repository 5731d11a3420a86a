"""Starting the root part, and being root no more. Imports next to nothing: cron's call needs it, too."""

from __future__ import annotations

import fcntl
import os
import pwd

from cronkeeper_worker import our_process, programs, runner_main


def start(top: str, python: str, idle_s: float = runner_main.IDLE_S) -> None:
    """Start a root part for the state folder, unless one is there."""
    fd = os.open(os.path.join(top, runner_main.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
    programs.start_runner(python, os.path.abspath(runner_main.__file__), top, idle_s, kept=True)


def drop(uid: int, gid: int) -> None:
    """Become the daemon's account for good: its own groups only, and no way back by a setuid program."""
    os.chdir("/")
    os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    our_process.no_new_privs()
    for name in ("HOME", "MAIL", "XDG_RUNTIME_DIR", "LOGNAME", "USER"):
        os.environ.pop(name, None)
