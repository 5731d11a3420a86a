"""What the views work with, put together once for each process, after the fork."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cronkeeper.domain.scope import EVERYWHERE, Scope
from cronkeeper.errors import ConfigError, CronkeeperError, UnavailableError
from cronkeeper.ports import BlobStore, Coordinator, Store
from cronkeeper.runtime.clock import Clock, SystemClock
from cronkeeper.runtime.key_files import read_secrets_keys
from cronkeeper.runtime.loop import spawn_thread
from cronkeeper.wire.sealed import NO_KEYS, SecretsKeys
from cronkeeper.wire.task import Signer, Verifier
from cronkeeper_api.config import ApiConfig, read_signing_key
from cronkeeper_api.metrics import ApiMetrics
from cronkeeper_api.oidc import Identities, open_identities
from cronkeeper_api.slow_clients import SlowClients
from cronkeeper_manager.fleet import Fleet
from cronkeeper_manager.service import (
    Answers,
    Artifacts,
    Backfills,
    Forecasts,
    Jobs,
    Namespaces,
    News,
    Policy,
    Runs,
    Tokens,
)
from cronkeeper_manager.service.calendars import Calendars
from cronkeeper_manager.service.denials import Denials
from cronkeeper_manager.service.resigning import Resigning
from cronkeeper_manager.service.scoped import scoped
from cronkeeper_manager.service.secrets import Secrets
from cronkeeper_manager.service.trail import Trail

log = logging.getLogger(__name__)

_PULSE_S, _OVERDUE_S = 1.0, 3.0
#: So many sets of namespaces are kept ready.
_MAX_VIEWS = 1000


class Pulse:
    """Whether a store answers, asked at most once a second and by one thread at a time.

    A server that hangs must not take all our threads with it, one for each health check.
    """

    def __init__(self, ping: Callable[[], None], clock: Clock) -> None:
        self._ping = ping
        self._clock = clock
        self._asking = threading.Lock()
        self._beats = False
        self._asked_s = float("-inf")
        self._sent_s = float("-inf")

    def beats(self) -> bool:
        """Say whether the store answered just now; no, too, while an answer is overdue."""
        if self._age() < _PULSE_S:
            return self._beats
        if not self._asking.acquire(blocking=False):
            # Not counted from the last answer: that may be old only because nobody has asked since.
            return self._beats and self._clock.boot_s() - self._sent_s < _OVERDUE_S
        try:
            self._sent_s = self._clock.boot_s()
            self._ping()
            self._beats = True
        except CronkeeperError:
            self._beats = False
        finally:
            self._asked_s = self._clock.boot_s()
            self._asking.release()
        return self._beats

    def _age(self) -> float:
        return self._clock.boot_s() - self._asked_s


class Views:
    """The use cases as callers of some namespaces see them: made once for each set of namespaces."""

    def __init__(self, make: Callable[[Scope], Services]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: dict[Scope, Services] = {}

    def of(self, scope: Scope) -> Services:
        """Return the use cases for these namespaces."""
        with self._lock:
            if len(self._made) >= _MAX_VIEWS:
                self._made.clear()
            if scope not in self._made:
                self._made[scope] = self._make(scope)
            return self._made[scope]


@dataclass(frozen=True, slots=True)
class Services:
    """One process's stores and use cases, as a caller of `scope` sees them."""

    config: ApiConfig
    clock: Clock
    store: Store
    coordinator: Coordinator
    jobs: Jobs
    runs: Runs
    backfills: Backfills
    forecasts: Forecasts
    calendars: Calendars
    answers: Answers
    tokens: Tokens
    denials: Denials
    resigning: Resigning
    #: Callers by tokens of somebody else, if an issuer is set.
    identities: Identities | None
    namespaces: Namespaces
    secrets: Secrets
    trail: Trail
    fleet: Fleet
    news: News
    metrics: ApiMetrics
    pulse: Pulse
    #: Places for live tails: each holds a thread, and other requests need some, too.
    tails: threading.Semaphore
    #: Places for large bodies and answers, for the same reason.
    slow: SlowClients
    #: Says whether this server is about to stop: /readyz then sends HAProxy elsewhere.
    draining: Callable[[], bool] = lambda: False
    #: Set when the process ends: live tails stop.
    stopping: threading.Event = field(default_factory=threading.Event)
    scope: Scope = EVERYWHERE
    views: Views | None = None

    def within(self, scope: Scope) -> Services:
        """Return the same for a caller of these namespaces: what belongs to others is not there."""
        return self if scope == self.scope or self.views is None else self.views.of(scope)

    def close(self) -> None:
        """End what was opened. Safe to repeat."""
        self.stopping.set()
        self.news.stop()
        self.coordinator.stop()
        self.store.close()


def assemble(
    config: ApiConfig,
    *,
    store: Store,
    coordinator: Coordinator,
    blobs: BlobStore,
    signer: Signer,
    fleet: Fleet,
    clock: Clock,
    draining: Callable[[], bool] = lambda: False,
    secrets_keys: SecretsKeys = NO_KEYS,
) -> Services:
    """Put the use cases together on whatever implements the ports."""
    news = News(coordinator)
    artifacts = Artifacts(blobs, max_bytes=config.max_artifact_bytes)
    policy = Policy(config.run_as_allowed, config.max_artifact_bytes)
    metrics, pulse = ApiMetrics(), Pulse(store.ping, clock)
    denials = Denials(store.tokens, clock)
    verifier = Verifier([signer.public_bytes, *map(bytes.fromhex, config.verify_keys)])
    identities = open_identities(config, denials, clock)
    # Together they leave a quarter of the threads to everybody else.
    tails, stopping = threading.Semaphore(max(1, config.threads // 2)), threading.Event()
    slow = SlowClients(max(1, config.threads // 4), limit_s=config.body_limit_s)

    def on(mine: Store, scope: Scope, views: Views) -> Services:
        # All use cases stand on `mine` alone: that is what keeps them within the caller's namespaces.
        namespaces = Namespaces(mine, clock, policy)
        jobs = Jobs(mine, artifacts, signer, news, clock, namespaces)
        return Services(
            config=config,
            clock=clock,
            store=mine,
            coordinator=coordinator,
            jobs=jobs,
            runs=Runs(mine, news, clock),
            backfills=Backfills(mine, news, clock),
            forecasts=Forecasts(mine, clock),
            calendars=Calendars(mine, jobs, clock),
            answers=Answers(mine, clock),
            tokens=Tokens(mine.tokens, clock),
            denials=denials,
            resigning=Resigning(mine.jobs, signer, verifier, clock),
            identities=identities,
            namespaces=namespaces,
            secrets=Secrets(mine, jobs, secrets_keys, clock),
            trail=Trail(mine.trail, coordinator),
            fleet=fleet.within(mine.jobs),
            news=news,
            metrics=metrics,
            pulse=pulse,
            tails=tails,
            slow=slow,
            draining=draining,
            stopping=stopping,
            scope=scope,
            views=views,
        )

    views = Views(lambda scope: on(scoped(store, scope), scope, views))
    return on(store, EVERYWHERE, views)


def open_services(
    config: ApiConfig,
    *,
    draining: Callable[[], bool] = lambda: False,
    refused: Callable[[ConfigError], None] = lambda _exc: None,
) -> Services:
    """Open the real stores. Call it after the fork: neither a ZooKeeper session nor a connection pool survives one.

    ZooKeeper is connected to in the background: jobs can be posted without it. Raises ConfigError where the database
    refuses what an API server has to do; `refused` is told where ZooKeeper or the object store does.
    """

    from cronkeeper.stores import open_coordinator, open_database, open_objects, send_database_canary

    if config.signing_key_file is None:
        raise ValueError("signing_key_file is not set")  # ApiConfig.check has refused this before
    clock = SystemClock()
    send_database_canary(config, "api")
    store = open_database(config, pool_size=config.threads)
    coordinator = open_coordinator(config, name="api")
    blobs = open_objects(config)
    services = assemble(
        config,
        store=store,
        coordinator=coordinator,
        blobs=blobs,
        signer=Signer.from_seed(read_signing_key(config.signing_key_file)),
        fleet=Fleet(store, coordinator, clock),
        clock=clock,
        draining=draining,
        secrets_keys=read_secrets_keys(config.secrets_key_files),
    )
    spawn_thread("zookeeper-start", lambda: _start(coordinator, config, refused), _start_died)
    return services


def _start(coordinator: Coordinator, config: ApiConfig, refused: Callable[[ConfigError], None]) -> None:
    from cronkeeper.stores import send_object_canary

    try:
        try:
            coordinator.start(10.0)
        except UnavailableError as exc:
            log.warning(
                "ZooKeeper is away, it goes on being tried", extra={"event": "zookeeper.away", "error": str(exc)}
            )
        send_object_canary(config, writes=True)
    except ConfigError as exc:
        refused(exc)


def _start_died(exc: BaseException) -> None:
    log.error("the ZooKeeper session could not be started", extra={"event": "zookeeper.failed"}, exc_info=exc)
