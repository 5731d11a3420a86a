"""Metrics of one process, served for Prometheus. Labels come from closed lists only, never from users."""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

#: Buckets for the lag of a fire, in seconds: from the timer's milliseconds to cron's seconds to catching up.
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


class WorkerMetrics:
    """What a worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fires = Counter("cronkeeper_fires", "Decisions about fires", ["trigger", "outcome"], registry=registry)
        self.lag = Histogram(
            "cronkeeper_fire_lag_seconds", "From fire time to start", buckets=LAG_BUCKETS, registry=registry
        )
        self.claims = Counter("cronkeeper_claims", "Claims by fence", ["fence", "outcome"], registry=registry)
        self.runs = Counter("cronkeeper_runs", "Runs ended, by state", ["state"], registry=registry)
        self.tasks = Gauge("cronkeeper_worker_tasks", "Tasks installed on this node", registry=registry)
        self.running = Gauge("cronkeeper_worker_running", "Runs in progress", registry=registry)
        self.spool = Gauge("cronkeeper_spool_depth", "Decisions not yet in MySQL", registry=registry)
        self.zookeeper = Gauge("cronkeeper_zookeeper_connected", "1 while the session is connected", registry=registry)
        self.mysql = Gauge("cronkeeper_mysql_reachable", "1 while the ledger answers", registry=registry)
        self.clock_offset = Gauge(
            "cronkeeper_clock_offset_seconds", "This clock minus the database's", registry=registry
        )
        self.looks = Counter("cronkeeper_looks", "Calls of cronkeeper-fire from cron", registry=registry)
        self.cron_silent = Gauge(
            "cronkeeper_worker_cron_silent", "1 while this node's cron does not call us", registry=registry
        )
        self.refused = Counter("cronkeeper_tasks_refused", "Tasks not installed", ["reason"], registry=registry)


class ManagerMetrics:
    """What a manager counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leading = Gauge("cronkeeper_leading", "1 while this manager leads", registry=registry)
        self.moves = Counter("cronkeeper_moves", "Moves applied", ["kind", "reason"], registry=registry)
        self.workers = Gauge("cronkeeper_workers", "Workers by state", ["state"], registry=registry)
        self.tasks = Gauge("cronkeeper_tasks", "Tasks by placement", ["placement"], registry=registry)
        self.step_seconds = Histogram("cronkeeper_leader_step_seconds", "One turn of the loop", registry=registry)
        self.healed = Counter("cronkeeper_znodes_healed", "Task znodes put right", registry=registry)
        self.lost_runs = Counter("cronkeeper_runs_lost", "Runs given up with their worker", registry=registry)
        self.zookeeper = Gauge("cronkeeper_zookeeper_connected", "1 while the session is connected", registry=registry)
        self.paused = Counter(
            "cronkeeper_manager_jobs_paused", "Jobs paused after failures in a row", registry=registry
        )
        self.trail_broken = Gauge(
            "cronkeeper_manager_trail_broken", "1 once the audit trail was found altered", registry=registry
        )
        self.audited = Counter(
            "cronkeeper_manager_audited", "Expected fires decided about, by outcome", ["outcome"], registry=registry
        )
        self.missed = Counter(
            "cronkeeper_manager_missed", "Fires found missed, by reason", ["reason"], registry=registry
        )
        self.unexpected = Counter(
            "cronkeeper_manager_unexpected", "Rows for fires that no version of the job asked for", registry=registry
        )
        self.phantoms = Counter(
            "cronkeeper_manager_phantoms",
            "Rows of the ledger that no worker can have written",
            registry=registry,
        )
        self.altered = Counter(
            "cronkeeper_manager_altered",
            "Rows that were changed past the API",
            ["of"],
            registry=registry,
        )
        self.holidays_ending = Gauge(
            "cronkeeper_manager_holidays_ending", "Jobs that run out of holidays in 18 months", registry=registry
        )
        self.audit_lag = Gauge(
            "cronkeeper_manager_audit_lag_seconds", "How far the auditor is behind the present", registry=registry
        )


def serve_metrics(address: str, registry: CollectorRegistry) -> WSGIServer | None:
    """Serve `/metrics` on `host:port` in a thread; an empty address serves nothing."""
    if not address:
        return None
    host, _, port = address.rpartition(":")
    server, _thread = start_http_server(int(port), addr=host or "127.0.0.1", registry=registry)
    return server
