"""The manager's configuration."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from cronkeeper.runtime.config import StoreConfig, setting
from cronkeeper_manager.liveness import LivenessSettings, check_settings


@dataclass(frozen=True, kw_only=True)
class ManagerConfig(StoreConfig):
    """What a manager daemon needs. `check` refuses settings that do not add up to the promised failover."""

    manager_id: str = setting("", "this manager's name; host and process id unless set")
    metrics_bind: str = setting("", "host:port for Prometheus; empty serves nothing")
    grace_s: float = setting(2.0, "seconds that a worker's znode must be gone before the worker can be lost")
    lease_stale_s: float = setting(6.0, "age in seconds from which a worker's lease in MySQL counts as stale")
    mysql_silent_s: float = setting(15.0, "seconds without MySQL after which its witness counts as silent")
    lost_brake_share: float = setting(1 / 3, "failover pauses when more than this part of the fleet vanishes at once")
    lost_brake_least: int = setting(3, "but only if at least so many workers have vanished")
    lost_brake_window_s: float = setting(60.0, "seconds that count as at once")
    lost_brake_pause_s: float = setting(120.0, "seconds for which failover then pauses")
    runs_keep_days: int = setting(90, "days after which ended runs and their output are removed")
    trail_keep_days: int = setting(400, "days after which entries of the audit trail are removed")
    restart_itself: bool = setting(
        True, "start afresh in the same process after losing leadership; false exits with status 75 instead"
    )

    @property
    def name(self) -> str:
        """Who this manager is in the election, in logs and in the term's row."""
        return self.manager_id or f"{socket.gethostname()}-{os.getpid()}"

    @property
    def liveness(self) -> LivenessSettings:
        """When a worker is given up."""
        return LivenessSettings(
            session_s=self.session_timeout_s,
            grace_s=self.grace_s,
            lease_stale_s=self.lease_stale_s,
            mysql_silent_s=self.mysql_silent_s,
            brake_share=self.lost_brake_share,
            brake_least=self.lost_brake_least,
            brake_window_s=self.lost_brake_window_s,
            brake_pause_s=self.lost_brake_pause_s,
        )

    def check(self) -> list[str]:
        faults = super().check() + check_settings(self.liveness)
        if self.runs_keep_days < 1:
            faults.append("runs_keep_days: use at least 1 day")
        if self.trail_keep_days < 1:
            faults.append("trail_keep_days: use at least 1 day")
        if self.metrics_bind and not self.metrics_bind.rpartition(":")[2].isdigit():
            faults.append("metrics_bind: use host:port, such as 127.0.0.1:9464")
        return faults
