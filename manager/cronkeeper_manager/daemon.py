"""The manager's process: wiring, signals, and what happens when a leadership is lost.

A leader that is fenced, or that meets an error nobody foresaw, stops writing and begins afresh: it replaces its own
process by a new one (`execv` of the very command that it was started with), which holds no belief of the old one. So no
service manager is needed, and the pid stays. With `restart_itself = false`, and where somebody forked us instead of
executing us (`cronkeeper standalone` does, and looks after its parts), the exit status 75 asks for a new start.
A follower goes on following, whatever happens.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from cronkeeper.errors import ConfigError, CronkeeperError, FencedError, UnavailableError
from cronkeeper.ports import Coordinator
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.runtime.logs import setup_logs
from cronkeeper.runtime.loop import Loop
from cronkeeper.runtime.memory import one_heap
from cronkeeper.runtime.metrics import ManagerMetrics, serve_metrics
from cronkeeper.runtime.signals import on_terminate
from cronkeeper.stores import open_coordinator, open_database, send_database_canary
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_manager.leader import Leader
from cronkeeper_manager.mysql_watch import MysqlWatch
from cronkeeper_manager.reach import Reach

log = logging.getLogger(__name__)

#: The exit status that asks for a new start.
EXIT_RESTART = 75
#: Turns begin at least so far apart, however much is going on.
SPACING_S = 0.1
#: How long a clean end may take, whatever the servers do.
_CLOSE_S = 2.0
_CONNECT_S = 10.0
#: Counts starts that follow each other too quickly, across `execv`.
_RESTARTS = "CRONKEEPER_MANAGER_RESTARTS"
_SETTLED_S = 60.0
_LONGEST_PAUSE_S = 10.0

_forked = threading.Event()
# A forked process has its parent's command line: executing that would start a second parent.
os.register_at_fork(after_in_child=_forked.set)


def run(config: ManagerConfig) -> int:
    """Run a manager until SIGTERM or SIGINT and return the exit status. Main thread only.

    Raises ConfigError when a store refuses its settings. Replaces the process when a leadership is lost, see above.
    """
    setup_logs(config, service="manager", instance=config.name)
    one_heap()
    begun_s = time.monotonic()
    stopping = threading.Event()
    if _RESTARTS not in os.environ:
        # Only at a start: a password that is changed in the wrong order must not end those who begin afresh.
        send_database_canary(config, "manager")
    status = _serve(config, stopping)
    if stopping.is_set():
        return 0
    if status == EXIT_RESTART and config.restart_itself and not _forked.is_set():
        return _begin_afresh(stopping, lasted_s=time.monotonic() - begun_s)
    return status


def _serve(config: ManagerConfig, stopping: threading.Event) -> int:
    """Be a manager once, from connecting to the end; return 0, or EXIT_RESTART."""
    clock, registry = SystemClock(), CollectorRegistry()
    metrics = ManagerMetrics(registry)
    store = open_database(config, pool_size=3)
    coordinator = open_coordinator(config, name=config.name)
    loop = Loop("manager", lambda: step(), max_backoff_s=2.0)
    mysql = MysqlWatch(store, clock, background=True, on_return=loop.wake)
    reach = Reach(store, clock, background=True)
    leader = Leader(config, store, coordinator, clock, metrics, mysql=mysql, reach=reach, stopping=stopping.is_set)
    step = _spaced(leader.step, stopping)

    def stop() -> None:
        stopping.set()
        loop.stop()

    def changed() -> None:
        leader.observer.note_change()
        loop.wake()

    on_terminate(stop)
    coordinator.on_change(changed)
    server = serve_metrics(config.metrics_bind, registry)
    try:
        _start(coordinator)
        return _lead(loop)
    finally:
        mysql.stop()
        reach.stop()
        if server is not None:
            server.shutdown()
            server.server_close()
        _close([leader.resign, coordinator.stop, store.close])


def _start(coordinator: Coordinator) -> None:
    try:
        coordinator.start(_CONNECT_S)
    except UnavailableError as exc:
        log.warning("ZooKeeper is away, it goes on being tried", extra={"event": "zookeeper.away", "error": str(exc)})


def _lead(loop: Loop) -> int:
    log.info("the manager has started", extra={"event": "manager.started"})
    try:
        loop.run()
    except FencedError as exc:
        log.warning("the leadership is lost, beginning afresh", extra={"event": "leader.fenced", "error": str(exc)})
        return EXIT_RESTART
    except ConfigError:
        raise
    except Exception:
        # Whatever it was, the beliefs of this process are not to be trusted; those of a new one are.
        log.exception("an error that nobody foresaw, beginning afresh", extra={"event": "manager.failed"})
        return EXIT_RESTART
    log.info("the manager has stopped", extra={"event": "manager.stopped"})
    return 0


def _spaced(step: Callable[[], float], stopping: threading.Event) -> Callable[[], float]:
    """Return the step with at least SPACING_S between two beginnings: a storm of news costs a look each, no more."""
    begun_s = time.monotonic() - SPACING_S

    def spaced() -> float:
        nonlocal begun_s
        early_s = begun_s + SPACING_S - time.monotonic()
        if early_s > 0 and stopping.wait(early_s):
            return 0.0
        begun_s = time.monotonic()
        return step()

    return spaced


def _close(steps: Sequence[Callable[[], None]]) -> None:
    """Resign and close, but do not wait for servers that do not answer: our session ends without us."""

    def closing() -> None:
        for step in steps:
            try:
                step()
            except CronkeeperError as exc:
                log.warning("not everything was closed", extra={"event": "manager.close_failed", "error": str(exc)})

    thread = threading.Thread(target=closing, name="close", daemon=True)
    thread.start()
    thread.join(_CLOSE_S)


def _begin_afresh(stopping: threading.Event, *, lasted_s: float) -> int:
    """Replace this process by a new start of the same command, after a wait that grows while that does not help."""
    quick = 0 if lasted_s > _SETTLED_S else int(os.environ.get(_RESTARTS, "0")) + 1
    pause_s = min(0.1 * 2.0 ** min(quick, 16), _LONGEST_PAUSE_S)
    if stopping.wait(pause_s):
        return 0
    os.environ[_RESTARTS] = str(quick)
    sys.stdout.flush()
    sys.stderr.flush()
    # Descriptors are closed by the kernel (PEP 446), threads end, signal handlers are reset.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line, no shell
