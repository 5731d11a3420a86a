"""`cronkeeper doctor`: one line for each thing that must be right, with the mend."""

from __future__ import annotations

import ctypes
import os
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cronkeeper.errors import ConfigError, CronkeeperError
from cronkeeper_cli.failures import CommandError

if TYPE_CHECKING:
    from cronkeeper.ports import Event
    from cronkeeper.runtime.config import StoreConfig

_CONNECT_S = 5.0
#: Over 1 s a worker is warned of, over 10 s it gets no new tasks.
_CLOCK_WARN_S = 1.0
_CRON_NAMES = frozenset({"cron", "crond"})
# adjtimex(2): `modes` (0: only ask), then offset, freq, maxerror and esterror as longs, then status.
_TIMEX = struct.Struct("@I4xqqqqi")
_TIMEX_SIZE = 256
_UNSYNCHRONISED = 0x0040


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and how to mend it if it is a fault (or a warning: no fault, but a mend)."""

    what: str
    seen: str
    fault: bool = False
    mend: str = ""

    def line(self) -> str:
        """Return the line that is printed."""
        word = "FAULT" if self.fault else "note" if self.mend else "ok"
        return f"{word:<5}  {self.what:<12}  {' '.join(self.seen.split())}{'; ' + self.mend if self.mend else ''}"


def examine(config_file: Path | None, sets: tuple[str, ...], environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything, in the order in which it is needed. Never raises: a fault is a finding."""
    from cronkeeper.runtime.config import StoreConfig
    from cronkeeper_cli.services import load_config
    from cronkeeper_worker import control_groups

    machine = [cron_finding(_running_programs()), clock_finding(*_kernel_clock())]
    keys = tuple(text for text in sets if text.startswith("secrets_key_files="))
    sets = tuple(text for text in sets if text not in keys)
    try:
        config = load_config(StoreConfig, config_file, sets, environ)
    except CommandError as exc:
        return [Finding("config", exc.message, fault=True, mend="see cronkeeper api --list-settings"), *machine]
    checks: list[tuple[str, Callable[[StoreConfig], str], str]] = [
        ("database", _database, "check database_url; the schema is made by: cronkeeper db upgrade"),
        ("zookeeper", _zookeeper, "check zookeeper and zookeeper_auth, and that the servers run and have a quorum"),
        ("object store", _object_store, "check blob_url and the s3_ settings"),
    ]
    found = [Finding("config", "sound")]
    for what, check, mend in checks:
        try:
            found.append(Finding(what, check(config)))
        except (CronkeeperError, OSError, ImportError) as exc:
            found.append(Finding(what, str(exc), fault=True, mend=mend))
    if not found[1].fault:
        found.append(_holidays(config))
    found.append(secrets_finding(config_file, keys, environ))
    if os.geteuid() == 0:
        found.append(accounts_finding(config_file, environ))
        found.append(groups_finding(control_groups.missing()))
    return [*found, *machine]


def cron_finding(programs: frozenset[str]) -> Finding:
    """Judge whether a cron runs, by the names of the running programs."""
    running = sorted(_CRON_NAMES & programs)
    if running:
        return Finding("cron", f"{running[0]} is running")
    return Finding(
        "cron", "no cron is running here", mend="a worker then fires by its timers only; start it: service cron start"
    )


def clock_finding(synchronised: bool, max_error_s: float) -> Finding:
    """Judge what the kernel says of the clock."""
    if not synchronised:
        return Finding("clock", "the kernel says that nobody keeps it right", mend="run an NTP client such as chrony")
    if max_error_s > _CLOCK_WARN_S:
        return Finding("clock", f"may be off by {max_error_s:.1f} s", mend="look at the NTP client of this machine")
    return Finding("clock", f"kept right, off by at most {max_error_s * 1000:.0f} ms")


def holidays_finding(last: Event | None) -> Finding:
    """Judge what a leader said last of the holidays that jobs have copied."""
    if last is None or last.kind != "calendars.ending":
        return Finding("holidays", "no job runs out of them, as far as a leader has told")
    return Finding("holidays", last.detail.partition("; ")[0], mend="run: cronkeeper calendars refresh")


def _database(config: StoreConfig) -> str:
    from cronkeeper.store import upgrade as schema
    from cronkeeper.stores import open_database

    schema.check(config.database)
    store = open_database(config)
    try:
        store.ping()
    finally:
        store.close()
    return f"answers, schema {schema.head()}, an account for {_parts_of(config)}"


def _parts_of(config: StoreConfig) -> str:
    """Return the parts that this account has the rights of. Raises ConfigError if there is none."""
    from cronkeeper.stores import send_database_canary

    found, missing = [], []
    for part in ("api", "manager", "worker"):
        try:
            send_database_canary(config, part)
            found.append(part)
        except ConfigError as exc:
            missing.append(f"{part}: {exc}")
    if not found:
        raise ConfigError("; ".join(missing))
    return " and ".join(found)


def _holidays(config: StoreConfig) -> Finding:
    from cronkeeper.stores import open_database
    from cronkeeper_manager.holiday_watch import last_told

    store = open_database(config)
    try:
        return holidays_finding(last_told(store))
    except CronkeeperError as exc:
        return Finding("holidays", str(exc), fault=True, mend="check database_url")
    finally:
        store.close()


def _zookeeper(config: StoreConfig) -> str:
    from cronkeeper.domain.placement import NodeInfo
    from cronkeeper.stores import open_coordinator

    # A written znode is the only proof: a server may listen, and even say that it is fine, and fail every session.
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    coordinator = open_coordinator(config, name=name)
    try:
        coordinator.start(_CONNECT_S)
        coordinator.ensure_layout()
        coordinator.save_node(NodeInfo(id=name))
        coordinator.drop_node(name)
    finally:
        coordinator.stop()
    return "takes writes"


def _object_store(config: StoreConfig) -> str:
    from cronkeeper.stores import open_objects, send_object_canary

    open_objects(config).check()
    send_object_canary(config, writes=False)
    return "can be used"


def secrets_finding(config_file: Path | None, sets: tuple[str, ...], environ: Mapping[str, str]) -> Finding:
    """Look at the keys of jobs' secrets, as an API server and a worker do at their start."""
    from cronkeeper.runtime.config import SecretsConfig
    from cronkeeper_cli.services import load_config

    make = "(umask 077; openssl rand -hex 32 > secrets-key)"
    try:
        files = load_config(SecretsConfig, config_file, sets, environ).secrets_key_files
    except CommandError as exc:
        return Finding("secrets", exc.message, fault=True, mend=f"make one with: {make}")
    if not files:
        return Finding("secrets", "no key is set: jobs can have none", mend=f"secrets_key_files; make one with: {make}")
    return Finding("secrets", f"{len(files)} {'key' if len(files) == 1 else 'keys'}, closed to others")


def accounts_finding(config_file: Path | None, environ: Mapping[str, str]) -> Finding:
    """Look at the accounts of a worker that is started as root. On a machine without a worker it is a note only."""
    from cronkeeper_cli.services import load_config
    from cronkeeper_worker.config import AccountsConfig

    try:
        config = load_config(AccountsConfig, config_file, (), environ)
    except CommandError as exc:
        return Finding("accounts", exc.message, mend="a worker does not start here as root before that is mended")
    return Finding("accounts", f"a worker's daemon is {config.daemon_account}, and jobs are {config.node_account}")


def groups_finding(missing: str) -> Finding:
    """Judge whether a worker could give each run a control group, by what is in the way."""
    if missing:
        mend = "what leaves a run's session on purpose then outlives a cancel; mount cgroup v2 for writing"
        return Finding("groups", f"runs get no control groups: {missing}", mend=mend)
    return Finding("groups", "each run can have a control group")


def _running_programs() -> frozenset[str]:
    names = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                names.add((folder / "comm").read_text().strip())
            except OSError:  # it ended meanwhile
                continue
    return frozenset(names)


def cron_is_running() -> bool:
    """Say whether a cron daemon runs on this machine, as far as we may see."""
    return bool(_CRON_NAMES & _running_programs())


def _kernel_clock() -> tuple[bool, float]:
    """Return whether somebody keeps the clock right, and by how many seconds it may be off."""
    if struct.calcsize("@l") != 8:
        return False, 0.0
    buffer = ctypes.create_string_buffer(_TIMEX_SIZE)
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _, _, _, max_error_us, _, status = _TIMEX.unpack_from(buffer)
    return not status & _UNSYNCHRONISED, max_error_us / 1e6
