"""What an API server counts. Labels come from closed lists: route templates, methods, statuses."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
#: prometheus_client reads it when it is imported: with it, the processes of one server share their numbers.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class ApiMetrics:
    """The metrics of one process, or of all processes of a server when they share a folder."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cronkeeper_api_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "cronkeeper_api_request_seconds",
            "From the request to the first byte of its answer",
            ["route", "method"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.zookeeper = Gauge(
            "cronkeeper_zookeeper_connected",
            "1 while the session is connected",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.followers = Gauge(
            "cronkeeper_api_followers", "Live tails", registry=self.registry, multiprocess_mode="livesum"
        )

    def expose(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        if SHARED_FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
