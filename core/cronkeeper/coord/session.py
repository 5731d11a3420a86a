"""Our ZooKeeper session over kazoo: it comes back by itself, and it knows how long it has heard nothing.

kazoo says CONNECTED for as long as it has not noticed anything else, which can be for ever while it is busy. So a
thread of ours asks the ensemble's leader once a second, and `silence_s` counts from the sending of the last question
that was answered. What has stayed silent for a third of the session's time is cut off, so that kazoo tries another
server while the session still lives.

Servers that have lost their data, or were given an older copy, refuse whoever has seen a later transaction than they
have. kazoo would insist for ever; ours does so for twice the session's time and then takes what it is given.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from cronkeeper.coord import paths
from cronkeeper.coord.calls import Calls
from cronkeeper.coord.client import LeanClient
from cronkeeper.coord.requests import Answer, Children, Create, Delete, Get, Refused, Request
from cronkeeper.coord.transport import BoundedHandler
from cronkeeper.errors import ConfigError, CronkeeperError, UnavailableError
from cronkeeper.runtime.clock import Clock, SystemClock
from cronkeeper.runtime.tls import Tls

log = logging.getLogger(__name__)

PROBE_EVERY_S = 1.0
STOP_S = 5.0
DEFAULT_CHROOT = "/cronkeeper"


def split_hosts(hosts: str) -> tuple[str, str]:
    """Return the servers and the chroot of `h1:p,h2:p/chroot`. Raises ConfigError."""
    servers, slash, chroot = hosts.strip().partition("/")
    parts = [part for part in chroot.split("/") if part]
    if not servers.strip() or any(part in (".", "..") for part in parts):
        raise ConfigError(f"zookeeper hosts: not host:port,host:port/chroot: {hosts!r}")
    return servers, "/" + "/".join(parts) if slash and parts else DEFAULT_CHROOT


def acl_for(auth: str) -> list[Any]:
    """Return the ACL of everything that we create: `user:password` alone, or everybody without one. ConfigError."""
    if not auth:
        return list(OPEN_ACL_UNSAFE)
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise ConfigError("zookeeper auth: must be user:password")
    return [make_digest_acl(user, password, all=True)]


class KazooSession:
    """`requests.Session` over kazoo. See there."""

    def __init__(
        self,
        hosts: str,
        *,
        auth: str,
        timeout_s: float,
        name: str,
        clock: Clock | None = None,
        tls: Tls | None = None,
    ) -> None:
        # At DEBUG, kazoo writes the password and every payload into the log.
        logging.getLogger("kazoo").setLevel(logging.WARNING)
        servers, chroot = split_hosts(hosts)
        self.timeout_s = timeout_s
        self._auth = auth
        self._name = name
        self._clock = clock or SystemClock()
        # With one server alone there is nobody else to try.
        shun_s = timeout_s if "," in servers else 0.0
        context = tls.context() if tls else None
        self._handler = BoundedHandler(unacknowledged_s=0.4 * timeout_s, shun_s=shun_s, tls=context)
        try:
            self._client: Any = LeanClient(
                hosts=servers,
                timeout=timeout_s,
                handler=self._handler,
                auth_data=[("digest", auth)] if auth else None,
                # kazoo's own would wait for up to an hour between two tries.
                connection_retry=KazooRetry(
                    max_tries=-1, delay=0.1, backoff=2, max_delay=2, sleep_func=self._handler.sleep_func
                ),
                # Nothing is repeated on our behalf, least of all with another session than it was asked in.
                command_retry=KazooRetry(max_tries=1, ignore_expire=False, sleep_func=self._handler.sleep_func),
            )
        except ValueError as exc:
            raise ConfigError(f"zookeeper hosts: {exc}") from exc
        self._client.add_listener(self._on_state)
        self._calls = Calls(
            self._client,
            root=chroot,
            acl=acl_for(auth),
            answer_timeout_s=timeout_s * 2 / 3,
            on_event=self._on_watch,
        )
        self._listener: Callable[[str | None], None] = lambda _path: None
        self._session_id = 0
        self._heard_s = -math.inf
        self._unanswered = 0
        self._admitted = False
        self._admission = threading.Lock()
        self._stopping = threading.Event()
        self._probe_soon = threading.Event()
        self._probe_thread: threading.Thread | None = None
        self._pid = os.getpid()

    def start(self, timeout_s: float) -> None:
        self._guard_fork()
        if self._probe_thread is None:
            self._client.start_async()
            self._probe_thread = threading.Thread(target=self._probe_loop, name=f"zk-probe-{self._name}", daemon=True)
            self._probe_thread.start()
        deadline = time.monotonic() + timeout_s
        if not self.wait_connected(timeout_s):
            why = self._handler.last_fault
            raise UnavailableError(
                f"ZooKeeper: no connection after {timeout_s:g} s; still trying{'; ' + why if why else ''}"
            )
        try:
            self._admit()
        except ConfigError:
            self.stop()
            raise
        sent_s, answer = self._probe()
        answer.wait(max(0.0, deadline - time.monotonic()))
        self._on_answer(sent_s, answer)

    def stop(self) -> None:
        self._stopping.set()
        self._probe_soon.set()
        if self._probe_thread is None or os.getpid() != self._pid:
            return
        # kazoo joins its threads without a limit, so it is stopped in one that we can leave behind.
        closing = threading.Thread(target=self._close, name=f"zk-stop-{self._name}", daemon=True)
        closing.start()
        closing.join(STOP_S)
        if closing.is_alive():
            log.warning("the ZooKeeper client did not stop in time", extra={"event": "zookeeper.stop_timeout"})
        self._probe_thread.join(STOP_S)
        self._session_id = 0

    @property
    def connected(self) -> bool:
        return bool(self._client.connected) and not self._stopping.is_set()

    @property
    def session_id(self) -> int:
        return self._session_id

    def silence_s(self) -> float:
        return self._clock.boot_s() - self._heard_s

    def wait_connected(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self.connected:
            if self._stopping.is_set() or time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def listen(self, on_event: Callable[[str | None], None]) -> None:
        self._listener = on_event

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        self._guard_fork()
        if self._stopping.is_set():
            raise UnavailableError("ZooKeeper: this client was stopped")
        if not self._admitted:
            self._admit()
        return self._calls.run(requests)

    def ensure_root(self) -> None:
        self._calls.create_root()

    # -- admission: a wrong password does not fail at the connection, only later, and not everywhere

    def _admit(self) -> None:
        with self._admission:
            if self._admitted:
                return
            calls = self._calls
            if isinstance(calls.run([Children(paths.ROOT)])[0], Refused):
                calls.create_root()
            # With a wrong password, an open chroot would let us in, and its closed folders would not.
            calls.run([Children(path) for path in paths.TOP_LEVEL])
            canary = f"/canary-{uuid.uuid4().hex}"
            calls.run([Create(canary, b"tweet", ephemeral=True), Get(canary), Delete(canary)])
            if self._auth and calls.close_root():
                log.info("closed the chroot to strangers", extra={"event": "zookeeper.chroot_closed"})
            self._admitted = True

    # -- kazoo's threads

    def _on_state(self, state: str) -> None:
        # Called in the connection's thread, where waiting for anything would be for ever: note it, and wake.
        if state == KazooState.CONNECTED:
            self._session_id = self._client.client_id[0]
            self._unanswered = 0
            self._probe_soon.set()
        elif state == KazooState.LOST:
            self._session_id = 0
        level = logging.INFO if state == KazooState.CONNECTED or self._stopping.is_set() else logging.WARNING
        log.log(
            level,
            "the ZooKeeper session changed its state",
            extra={"event": f"zookeeper.{state.lower()}", "session": f"{self._session_id:#x}"},
        )
        self._listener(None)

    def _on_watch(self, event: Any) -> None:
        # Without a path it means that kazoo has forgotten all watches, after the connection broke.
        self._listener(self._calls.relative(event.path) if event.path else None)

    # -- the probe

    def _probe_loop(self) -> None:
        while not self._stopping.is_set():
            self._probe_soon.wait(PROBE_EVERY_S)
            self._probe_soon.clear()
            try:
                if self._client.connected:
                    self._probe()
                self._mend()
            except Exception:  # the probe must survive anything: without it the process would fence itself for good
                log.exception("the ZooKeeper probe failed", extra={"event": "zookeeper.probe_failed"})

    def _probe(self) -> tuple[float, Any]:
        sent_s = self._clock.boot_s()
        self._unanswered += 1
        # A sync is answered by the ensemble's leader, who holds the sessions. A follower that has lost the leader would
        # go on answering reads for seconds.
        answer = self._client.sync_async("/")
        answer.rawlink(functools.partial(self._on_answer, sent_s))
        return sent_s, answer

    def _on_answer(self, sent_s: float, answer: Any) -> None:
        if answer.successful():
            self._unanswered = 0
            self._heard_s = max(self._heard_s, sent_s)

    def _mend(self) -> None:
        if not self._client.connected and self.silence_s() > 2 * self.timeout_s:
            # What we saw last was so long ago that every server that still belongs to the ensemble has it by now. If
            # the ensemble still knows the session, it goes on with it; if not, it says so, and we get another one.
            self._client.last_zxid = 0
        # Probes are counted, not seconds: after this process was paused, the answers may be waiting to be read.
        if self._client.connected and self._unanswered * PROBE_EVERY_S > max(self.timeout_s / 3, PROBE_EVERY_S):
            log.warning("ZooKeeper is silent; trying another server", extra={"event": "zookeeper.silent"})
            self._handler.drop_connection()
        elif self._handler.dead:
            # An error that kazoo did not foresee ends its connection thread for good.
            log.error("the ZooKeeper client has died; starting it again", extra={"event": "zookeeper.revived"})
            with contextlib.suppress(Exception):
                self._client.stop()
            if not self._stopping.is_set():
                self._client.start_async()

    def _close(self) -> None:
        try:
            self._client.stop()
            self._client.close()
        except Exception as exc:  # noqa: BLE001  # kazoo raises bare classes here, and we are leaving anyway
            log.warning(
                "the ZooKeeper client did not close",
                extra={"event": "zookeeper.close_failed", "error": f"{type(exc).__name__}: {exc}"},
            )

    def _guard_fork(self) -> None:
        if os.getpid() != self._pid:
            raise CronkeeperError("a ZooKeeper client does not survive a fork: connect after it")
