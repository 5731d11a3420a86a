"""Starts the programs that are no jobs: the runner itself, and a few tools of the system."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def remove_tree(folder: str) -> int:
    """Start rm on a folder whose content is hostile (links, depth, size); returns its pid. rm follows no link."""
    return os.posix_spawn("/bin/rm", ["rm", "-rf", "--one-file-system", "--", folder], {"LC_ALL": "C"})


#: The parent of a root part. Whoever has died for another reason than that there is nothing to do is started again; by
#: a shell, as that is the smallest process there is.
_KEEPER = '( while "$@"; s=$?; [ $s -ne 0 ]; do [ $s -gt 128 ] || sleep 1; done ) &'


def start_runner(python: str, main: str, state_dir: str, idle_s: float, *, kept: bool = False) -> None:
    """Start a runner for the state folder, which outlives us; if one runs already, it ends at once.

    It detaches itself; or it is `kept`: then it has a parent that starts it again whenever it is killed.
    """
    argv = [python, "-ISs", main, state_dir, str(idle_s)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("CRONKEEPER_")}
    if kept:
        argv = ["/bin/sh", "-c", _KEEPER, "keeper", *argv, "stay"]
        pid = os.posix_spawn(argv[0], argv, env, setsid=True)
    else:
        pid = os.posix_spawn(python, argv, env)
    # Somebody in this process may reap everybody's children.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def detach() -> None:
    """Leave the process, session and terminal that started us; returns in the new process only."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)


def run_tool(
    argv: Sequence[str], *, data: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 20.0
) -> tuple[int, bytes, bytes]:
    """Run a program of the system to its end; returns exit code, stdout and stderr. For the daemon, not for jobs.

    `data` is its standard input, `env` is added to our own environment. Raises OSError when it cannot be started, and
    TimeoutError.
    """
    import subprocess  # 2.6 MiB that the runner never needs

    try:
        done = subprocess.run(
            list(argv),
            input=data,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"{argv[0]} has not ended after {timeout_s:g} s") from exc
    return done.returncode, done.stdout, done.stderr
