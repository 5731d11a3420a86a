"""The worker's settings."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from cronkeeper.domain.ids import is_worker_id
from cronkeeper.domain.labels import check_labels
from cronkeeper.domain.placement import START_WITHIN_S
from cronkeeper.runtime.config import Config, SecretsConfig, StoreConfig, is_public_key, setting

CRON_MODES = ("auto", "system", "user", "none")


@dataclass(frozen=True, kw_only=True)
class AccountsConfig(Config):
    """Who is who on a node whose worker is started as root."""

    daemon_account: str = setting(
        "cronkeeper-worker",
        "account of the daemon itself (a worker started as root): it talks to the network, and root starts the jobs;"
        " root: everything is root's",
    )
    run_processes: int = setting(0, "processes that an account may have on this node; 0: half of what the kernel has")
    node_account: str = setting("nobody", "account of runs that name none (a worker run as root)")
    node_accounts: tuple[str, ...] = setting((), "further accounts that runs may use on this node, such as deploy,root")

    def check(self) -> list[str]:
        faults = super().check()
        if self.run_processes < 0:
            faults.append("run_processes: use 0 or more")
        if os.geteuid() == 0:
            if not account_exists(self.node_account):
                faults.append(f"node_account: no account {self.node_account!r} on this node")
            faults += [f"daemon_account: {fault}" for fault in self._daemon_faults()]
        return faults

    def _daemon_faults(self) -> list[str]:
        """Return why the daemon cannot have this account: whoever runs as it could kill it, and order in its name.

        Runs of `root` can do that anyway.
        """
        name = self.daemon_account
        if not account_exists(name):
            make = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}"
            return [f"no account {name!r} on this node; make it with: {make}"]
        uid = pwd.getpwnam(name).pw_uid
        runs = [run_as for run_as in (self.node_account, *self.node_accounts) if account_exists(run_as)]
        same = [run_as for run_as in runs if uid and pwd.getpwnam(run_as).pw_uid == uid]
        return [f"runs may not have the daemon's own account {run_as!r}" for run_as in same[:1]]


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(StoreConfig, SecretsConfig, AccountsConfig):
    """What one node's worker is told."""

    state_dir: Path = setting(Path("/var/lib/cronkeeper/worker"), "journal, artifacts and runs of this node")
    worker_id: str = setting("", "stable name of this worker; unset: made once and kept in the state directory")
    labels: dict[str, str] = setting({}, "labels that selectors match, such as zone=eu,disk=ssd")
    capacity: int = setting(10_000, "expected load this worker takes, in fires a minute")
    verify_keys: tuple[str, ...] = setting((), "public keys (64 hex digits each) whose signed tasks are accepted")
    metrics_bind: str = setting("", "host:port of /metrics; unset: not served")
    cron: str = setting("auto", "auto, system (/etc/cron.d), user (this user's crontab) or none")
    cron_dir: Path = setting(Path("/etc/cron.d"), "where system crontab files go")
    cron_timezone: str = setting("", "IANA zone of this node's cron; unset: the system's")
    cron_silent_s: float = setting(110.0, "seconds without a call of cron after which it counts as silent")
    lease_every_s: float = setting(2.0, "seconds between beats of the lease row in MySQL")
    claim_wait_s: float = setting(2.0, "seconds that a fire waits for MySQL before the other fence is asked")
    on_stop: str = setting("leave", "leave: hand the tasks over at once; stay: keep them, for a restart or an upgrade")
    stop_wait_s: float = setting(60.0, "seconds that a stop with on_stop = leave waits for runs in progress")
    #: Only for tests of the cron trigger and for benchmarks: cron alone fires then, as when the daemon is away.
    timers: bool = setting(True, "fire by our own timers too, not by cron alone")

    def check(self) -> list[str]:
        faults = super().check()
        if self.worker_id and not is_worker_id(self.worker_id):
            faults.append("worker_id: use 1 to 63 letters, digits, '_', '.' or '-'")
        faults += [f"labels: {fault}" for fault in check_labels(self.labels)]
        if self.capacity < 1:
            faults.append("capacity: use at least 1 fire a minute")
        if not self.verify_keys:
            faults.append("verify_keys: not set; a worker runs nothing that it cannot verify")
        faults += [
            f"verify_keys: {key[:12]!r} is not 64 hex digits" for key in self.verify_keys if not is_public_key(key)
        ]
        if self.cron not in CRON_MODES:
            faults.append(f"cron: {self.cron!r} is not one of {', '.join(CRON_MODES)}")
        # Below 90, a healthy cron would seem silent now and then; in tests there is one whose clock runs faster.
        if self.cron_silent_s < 10:
            faults.append("cron_silent_s: use at least 10, and 90 or more in earnest: cron calls once a minute")
        if self.on_stop not in ("leave", "stay"):
            faults.append(f"on_stop: {self.on_stop!r} is neither leave nor stay")
        if not 0 <= self.stop_wait_s <= 86_400:
            faults.append("stop_wait_s: use at least 0 and at most 86400 seconds")
        longest_s = min(self.session_timeout_s / 2, START_WITHIN_S - 1)
        if not 0.2 <= self.lease_every_s <= longest_s:
            faults.append(
                f"lease_every_s: use at least 0.2 and at most {longest_s:g}: half of session_timeout_s,"
                f" and a second less than the {START_WITHIN_S:g} s that a claim is good for"
            )
        return faults


def account_exists(name: str) -> bool:
    """Say whether this node has an account of that name."""
    try:
        return pwd.getpwnam(name).pw_name == name
    except (KeyError, ValueError):  # there is none, or the text can be no name
        return False
