"""Accounts of this machine: whom a run runs as, and the clean environment that it gets."""

from __future__ import annotations

import os
import pwd
import time
from typing import NamedTuple

from cronkeeper_worker import descriptors
from cronkeeper_worker.orders import AccountError

_AGE_S = 60.0
SHADOW = "/etc/shadow"
#: Its field with the day, since 1970, from which on nobody may use the account.
_LAST_DAY = 7
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER_PATH = "/usr/local/bin:/usr/bin:/bin"


class Account(NamedTuple):
    """Whom a run runs as. `switch` is false for the account that we run as ourselves."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    switch: bool

    def environment(self) -> dict[str, str]:
        """Return what a login would give; nothing of ours leaks in."""
        return {
            "PATH": _ROOT_PATH if self.uid == 0 else _USER_PATH,
            "HOME": self.home,
            "LOGNAME": self.name,
            "USER": self.name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
        }


class Accounts:
    """Looks accounts up, each at most once a minute: they may be asked of a network."""

    def __init__(self) -> None:
        self._known: dict[str | None, tuple[float, Account]] = {}

    def get(self, name: str | None) -> Account:
        """Return the account of that name (None: our own). AccountError: there is none, or we may not become it.

        OSError: it cannot be looked up now.
        """
        known = self._known.get(name)
        now = time.monotonic()
        if known is None or now - known[0] > _AGE_S:
            known = self._known[name] = (now, _find(name))
        return known[1]


def _find(name: str | None) -> Account:
    # Without a descriptor the C library finds no account, no group and no member, and says nothing of why.
    descriptors.need()
    uid = os.geteuid()
    if name is None:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:  # a container may run under a number that no account has
            return Account(str(uid), uid, os.getegid(), (), "/", switch=False)
        return Account(entry.pw_name, uid, entry.pw_gid, (), entry.pw_dir, switch=False)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AccountError(f"this machine has no account {name!r}") from None
    except ValueError:  # NUL, or half of a character
        raise AccountError(f"{name!r} is no account's name") from None
    # As getpwnam of some machines takes numbers or blanks for names.
    if entry.pw_name != name:
        raise AccountError(f"this machine has no account {name!r}")
    switch = entry.pw_uid != uid
    if switch and uid != 0:
        raise AccountError(f"only a worker that runs as root can run a job as {name!r}")
    if switch and _has_expired(name, time.time()):
        raise AccountError(f"the account {name!r} has expired on this machine")
    groups = tuple(os.getgrouplist(name, entry.pw_gid)) if switch else ()
    return Account(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, switch)


def _has_expired(name: str, now_s: float) -> bool:
    """Say whether /etc/shadow gives the account a last day, and it is over: cron (by PAM) runs nothing for it then.

    A locked password is none of it: accounts of services have no other. The standard library cannot read this file any
    more. Raises OSError: who may become others can read it.
    """
    try:
        with open(SHADOW, "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return False
    start = name.encode(errors="surrogateescape") + b":"
    for line in lines:
        fields = line.split(b":")
        if line.startswith(start) and len(fields) > _LAST_DAY:
            day = fields[_LAST_DAY].strip()
            return day.isdigit() and int(day) * 86_400 <= now_s
    return False
