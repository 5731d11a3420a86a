"""Keeps the node's crontab in step with the installed tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cronkeeper.domain.job import JobState
from cronkeeper.domain.schedule import Kind
from cronkeeper.errors import ConfigError
from cronkeeper.runtime.clock import Clock
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.crontab_file import CrontabTarget, RootCrontab, SystemCrontab, UserCrontab
from cronkeeper_worker.crontab_render import Draft, ticks
from cronkeeper_worker.tasks import Installed

log = logging.getLogger(__name__)


class CrontabKeeper:
    """Writes only what has changed. A crontab that cannot be written is told and tried again; fires go on by timer."""

    def __init__(self, target: CrontabTarget | None, fire: Path, timezone: str, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        user = "root" if target is not None and target.has_user_column else None
        self._draft = Draft(fire=str(fire), node_timezone=timezone, user=user)
        #: The numbers of the ticks that stand in the crontab: cron calls with each of them once a minute.
        self.ticks: tuple[int, ...] = ()

    def install(self, items: Iterable[Installed]) -> bool:
        """Make the crontab hold entries for just these tasks. Returns False when it could not be written."""
        if self._target is None:
            return True
        wanted = [
            (item.view.id, item.view.schedule)
            for item in items
            if item.view.state is JobState.ACTIVE
            and (item.next_ms is not None or item.view.schedule.kind is Kind.REBOOT)
        ]
        files = self._draft.render(wanted, self._clock.now_ms())
        try:
            self._target.install(files)
        except OSError as exc:
            log.error("the crontab cannot be written", extra={"event": "crontab.fault", "error": str(exc)})
            return False
        self.ticks = ticks(files)
        return True

    def renew(self) -> None:
        """Have cron read all of it again: the same texts, with times that cron has not seen. Never fails."""
        try:
            if self._target is not None:
                self._target.renew()
        except OSError as exc:
            log.error("the crontab cannot be written", extra={"event": "crontab.fault", "error": str(exc)})

    def clear(self) -> None:
        """Remove every entry of ours. Never fails: an entry that stays finds nobody to stand in for."""
        self.ticks = ()
        try:
            if self._target is not None:
                self._target.remove_all()
        except OSError as exc:
            log.error("the crontab cannot be written", extra={"event": "crontab.fault", "error": str(exc)})


def choose_target(
    config: WorkerConfig, place: Callable[[Sequence[str] | None], None] | None = None
) -> CrontabTarget | None:
    """Return where this node's entries go: system files for root, the user's own crontab otherwise. None: nowhere.

    `place` has the root part put files in place, if there is one. Raises ConfigError when the configured way cannot
    work here.
    """
    mode = config.cron
    if mode == "none":
        return None
    if mode == "auto":
        mode = "system" if os.geteuid() == 0 or place is not None else "user"
        if mode == "system" and not config.cron_dir.is_dir():
            log.warning("this node has no cron; fires go by timer alone", extra={"event": "cron.absent"})
            return None
        if mode == "user" and not UserCrontab.available():
            log.warning("this node has no crontab command; fires go by timer alone", extra={"event": "cron.absent"})
            return None
    if mode == "system":
        if not config.cron_dir.is_dir():
            raise ConfigError(f"cron_dir: {config.cron_dir} is not a directory; install cron, or set cron = none")
        return SystemCrontab(config.cron_dir) if place is None else RootCrontab(config.cron_dir, place)
    return UserCrontab()


def system_timezone() -> str:
    """Return the IANA name of the zone that this node's cron lives in."""
    for path in (Path("/etc/timezone"), Path("/etc/localtime")):
        try:
            text = path.read_text().strip() if path.name == "timezone" else str(path.resolve())
        except OSError:
            continue
        name = text.partition("/zoneinfo/")[2] if path.name == "localtime" else text
        if name in ("Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Universal"):
            return "UTC"
        if name:
            return name
    return "UTC"
