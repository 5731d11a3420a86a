"""What root has laid down for its part of a node: which account the daemon has, whose signatures count, who may run.

`root.json` in the node's state folder, which root alone can write. The root part goes by it, whatever the daemon says.
It imports nothing but `typing`, as the runner does.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

FILE = "root.json"
#: The daemon's own folder, below the state folder: everything in there is the daemon's, everything beside it is root's.
DAEMON_FOLDER = "daemon"


class Rules(NamedTuple):
    """The file's content."""

    #: The daemon's account, by number.
    uid: int
    gid: int
    #: Public keys in hex.
    verify_keys: tuple[str, ...]
    #: Whom runs run as: the account of those that name none, and all that are allowed.
    account: str
    accounts: tuple[str, ...]
    #: Where crontab files go.
    cron_dir: str
    #: Where `cronkeeper` and `cryptography` are found.
    library: tuple[str, ...]
    #: How many processes an account may have; 0 is half of what the kernel allows.
    processes: int


def load(top: str) -> Rules | None:
    """Return the rules; None where the node has no root part. Raises OSError or ValueError for what root did not write.

    The folder must be root's, and so the file is, too.
    """
    try:
        fd = os.open(os.path.join(top, FILE), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, encoding="ascii") as file:
        found = os.fstat(fd)
        if found.st_uid != 0 or found.st_mode & 0o022:
            raise ValueError(f"{FILE} in {top} was not written by root")
        data: dict[str, Any] = json.load(file)
    try:
        lists = {name: tuple(data[name]) for name in ("verify_keys", "accounts", "library")}
        return Rules(**{**data, **lists})
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{FILE} in {top} is of another version: {exc}") from exc


def is_split(state_dir: str) -> bool:
    """Say whether this is the folder of a daemon that has a root part beside it."""
    top, name = os.path.split(os.path.abspath(state_dir))
    try:
        found = os.lstat(os.path.join(top, FILE))
    except OSError:
        return False
    return name == DAEMON_FOLDER and found.st_uid == 0


def top_of(state_dir: str) -> str:
    """Return the folder of the runner, the runs and our command: root's, if there is a root part; else the daemon's."""
    return os.path.dirname(os.path.abspath(state_dir)) if is_split(state_dir) else state_dir
