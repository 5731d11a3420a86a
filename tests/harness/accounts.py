"""Doing something as another account of this machine, in a process of its own. Needs root."""

from __future__ import annotations

import os
import pickle
import pwd
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: The worker's own account, which deploy/install-packages makes.
DAEMON = "cronkeeper-worker"


def as_account(name: str, action: Callable[[], T]) -> T:
    """Return what `action` returns (or its exception, as a value) in a child that is this account, and nobody else.

    The child is not executed anew: its program may lie where the account cannot read. So import before.
    """
    entry = pwd.getpwnam(name)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
            try:
                said: object = action()
            except BaseException as exc:  # noqa: BLE001
                said = exc
            os.write(writer, pickle.dumps(said))
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    found: T = pickle.loads(data)  # of our own child
    return found
