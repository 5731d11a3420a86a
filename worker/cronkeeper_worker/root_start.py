"""A worker's first moments as root: lay out the node's folders and rules, start the root part, be root no more.

Below the state folder, `daemon` belongs to the daemon's account, and everything else to root. Nothing that root reads,
writes or executes lies in a folder that the daemon's account can change.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pwd
import stat
import sys
from collections.abc import Collection
from pathlib import Path

from cronkeeper.errors import ConfigError, UnavailableError
from cronkeeper_worker import control_groups, node_files, root_part, root_rules, runner_main, warrants
from cronkeeper_worker.config import WorkerConfig
from cronkeeper_worker.fire_listener import install_fire
from cronkeeper_worker.root_artifacts import FOLDER as ARTIFACTS
from cronkeeper_worker.runner_client import RunnerClient

#: What lies in the state folder and stays root's. All else was a daemon's that was root itself, and becomes the
#: daemon's.
_ROOTS = frozenset(
    {"runs", "spare", "bin", root_rules.FILE, warrants.GENERATIONS, root_rules.DAEMON_FOLDER}
    | {runner_main.SOCKET, runner_main.LOCK, runner_main.LOG, control_groups.NOTE}
)
_STAGING = ".daemon.new"
_KEYS = "secrets-key-{}"
LOCK_WAIT_S = 15.0


def settle(config: WorkerConfig) -> WorkerConfig:
    """Return the daemon's settings, for a process that is the daemon's account from now on.

    For a worker that is not root, or whose daemon shall be, nothing changes. Raises ConfigError.
    """
    if os.geteuid() != 0:
        return config
    entry = pwd.getpwnam(config.daemon_account)
    top = Path(os.path.abspath(config.state_dir))
    if entry.pw_uid == 0:
        _give_up(top)
        return config
    _refuse_foreign_code(entry)
    own = lay_out(top, config, entry.pw_uid, entry.pw_gid)
    keys = [Path(path).read_bytes() for path in config.secrets_key_files]
    root_part.drop(entry.pw_uid, entry.pw_gid)
    names = []
    for number, key in enumerate(keys):
        node_files.write_private(own / _KEYS.format(number), key)
        names.append(str(own / _KEYS.format(number)))
    return dataclasses.replace(config, state_dir=own, secrets_key_files=tuple(names))


def lay_out(top: Path, config: WorkerConfig, uid: int, gid: int) -> Path:
    """Have the node's folders, rules, command and root part; return the daemon's folder. Raises ConfigError."""
    _refuse_foreign_folders(top)
    own = _daemon_folder(top, uid, gid)
    _lay_down_rules(top, config, uid, gid)
    install_fire(top, sys.executable, (own, uid, gid))
    _have_root_part(top)
    return own


def _give_up(top: Path) -> None:
    """The daemon is root from now on, as it once was: what is the daemon's alone comes back to where it was then."""
    own = top / root_rules.DAEMON_FOLDER
    if not (top / root_rules.FILE).exists():
        return
    lock = _wait_for_the_last(own)
    for path in list(own.iterdir()) if own.is_dir() else []:
        # Only plain files: a link would have root follow it.
        if stat.S_ISREG(path.lstat().st_mode) and not os.path.lexists(top / path.name):
            os.chown(path, 0, 0, follow_symlinks=False)
            path.rename(top / path.name)
    (top / root_rules.FILE).unlink()
    if lock is not None:
        lock.release()


def _refuse_foreign_folders(top: Path) -> None:
    """Raise ConfigError unless root alone can put something in the place of the state folder, or of what is in it."""
    top.mkdir(parents=True, exist_ok=True)
    for folder in (top, *top.parents):
        found = folder.lstat()
        others_write = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or others_write or not stat.S_ISDIR(found.st_mode):
            raise ConfigError(
                f"state_dir: {folder} must be a folder of root's that nobody else can write in, as root goes by what is"
                " in it; chown and chmod it, or use another folder"
            )
    top.chmod(0o711)


def _refuse_foreign_code(entry: pwd.struct_passwd) -> None:
    """Raise ConfigError for a program that the daemon's account can change, or cannot read."""
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    for path in (Path(sys.executable).resolve(), *map(Path, _library()), Path(runner_main.__file__)):
        found = path.stat()
        if entry.pw_uid == found.st_uid or found.st_mode & 0o002:
            raise ConfigError(f"daemon_account: {entry.pw_name} can change {path}, which root runs; chown it to root")
        closed = [folder for folder in path.parents if not _may_enter(folder, groups)]
        if closed:
            raise ConfigError(
                f"daemon_account: {entry.pw_name} cannot reach {path}, as {closed[0]} is closed to others; install"
                " Cronkeeper and its Python under /opt, for example, or set daemon_account = root (the daemon then"
                " stays root)"
            )


def _may_enter(folder: Path, groups: Collection[int]) -> bool:
    found = folder.stat()
    return bool(found.st_mode & (stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH))


def _library() -> list[str]:
    """Return where the root part finds what it imports."""
    found = [importlib.util.find_spec(name) for name in ("cronkeeper", "cryptography")]
    return [str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin is not None]


def _daemon_folder(top: Path, uid: int, gid: int) -> Path:
    """Return the daemon's own folder, made of what an earlier version kept beside it."""
    own = top / root_rules.DAEMON_FOLDER
    if own.exists():
        found = own.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
            raise ConfigError(f"state_dir: {own} is not the daemon's; run: chown -R --no-dereference {uid}:{gid} {own}")
        return own
    staging = top / _STAGING
    lock = _wait_for_the_last(top)
    staging.mkdir(mode=0o700, exist_ok=True)
    # Whatever lies here is root's, and nobody else has been able to touch it. Step by step, so that a death in between
    # is made good by the next start: nobody opens the journal before all of it is there.
    for path in sorted(top.iterdir()):
        if path.name not in _ROOTS and path.name != _STAGING:
            path.rename(staging / path.name)
    for folder, folders, files in os.walk(staging):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)
    os.chown(staging, uid, gid)
    staging.rename(own)
    if lock is not None:
        lock.release()
    return own


def _wait_for_the_last(folder: Path) -> node_files.NodeLock | None:
    """A daemon of before, or its stand-in, may still be here: take its lock. Raises ConfigError."""
    if not (folder / node_files.LOCK).exists():
        return None
    lock = node_files.NodeLock(folder)
    if not lock.acquire(LOCK_WAIT_S):
        raise ConfigError(f"state_dir: {folder} is in use by another worker daemon")
    return lock


def _lay_down_rules(top: Path, config: WorkerConfig, uid: int, gid: int) -> None:
    has_cron = config.cron in ("auto", "system") and config.cron_dir.is_dir()
    rules = root_rules.Rules(
        uid=uid,
        gid=gid,
        verify_keys=config.verify_keys,
        account=config.node_account,
        accounts=(config.node_account, *config.node_accounts),
        cron_dir=str(config.cron_dir) if has_cron else "",
        library=tuple(dict.fromkeys(_library())),
        processes=config.run_processes,
    )
    node_files.write_private(top / root_rules.FILE, json.dumps(rules._asdict()).encode())
    (top / ARTIFACTS).mkdir(mode=0o755, exist_ok=True)


def _have_root_part(top: Path) -> None:
    """Start the root part; one of another version, or of before there was one, is told to finish."""
    client = RunnerClient(top, lambda _event: None, signed=True)
    try:
        client.ensure()
    except UnavailableError as exc:
        raise ConfigError(f"the root part of the worker did not start ({exc}); see {top / runner_main.LOG}") from exc
    client.close()
