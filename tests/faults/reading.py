"""Reads what a trial leaves behind: the truth in files, the system's own words over its API, the nodes' crontabs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from cronkeeper.domain.instants import parse_rfc3339
from tests.faults.fleet import Fleet
from tests.harness.cluster import Answer, Cluster

_PAGE = 5000
_PATIENCE_S = 30.0
_MORE = re.compile(r"^# tasks .* and (\d+) more$", re.MULTILINE)
_TASK = re.compile(r" (\d+/\d+)(?= |$)", re.MULTILINE)


def truth_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines that the probes have written, oldest first; a line that is being written is left out."""
    lines: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        whole = [text for text in path.read_text().splitlines(keepends=True) if text.endswith("}\n")]
        lines += [json.loads(text) for text in whole]
    return sorted(lines, key=lambda line: float(line["wall_s"]))


def truth(folder: Path, *, before_s: float) -> list[dict[str, Any]]:
    """Return the truth of all runs that began before an instant (epoch s), in the shape of the history."""
    found: list[dict[str, Any]] = []
    tokens = set()
    for line in truth_lines(folder):
        if line["edge"] == "start" and line["wall_s"] < before_s:
            tokens.add(line["token"])
            fire_time = line.pop("fire_time")
            found.append(
                {
                    **line,
                    "fire_ms": parse_rfc3339(fire_time),
                    "attempt": int(line["attempt"]),
                    "shard": int(line["shard"]),
                    "pid": int(line["pid"]),
                }
            )
        elif line["edge"] == "end" and line["token"] in tokens:
            found.append(line)
    return found


def ledger(cluster: Cluster, job_ids: Iterable[str], *, before_s: float) -> list[dict[str, Any]]:
    """Return every run of these jobs whose fire time is before an instant (epoch s), as the API shows it."""
    found: list[dict[str, Any]] = []
    for job_id in job_ids:
        found += pages(cluster, f"/jobs/{job_id}/runs?limit={_PAGE}")
    return [run for run in found if parse_rfc3339(run["fire_time"]) < before_s * 1000]


def missed(cluster: Cluster, job_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return the auditor's verdicts on these jobs."""
    return [
        {key: line[key] for key in ("job_id", "shard", "fire_time", "reason")}
        for job_id in job_ids
        for line in pages(cluster, f"/jobs/{job_id}/missed?limit={_PAGE}")
    ]


def jobs(cluster: Cluster, job_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return these jobs; one that is gone is left out."""
    answers = [patiently(cluster, f"/jobs/{job_id}") for job_id in job_ids]
    return [answer.json() for answer in answers if answer.status == 200]


def patiently(cluster: Cluster, path: str) -> Answer:
    """Get something, and again for a while if nobody is there to ask: what is read is judged, not the reading.

    A light fleet has one API server. HAProxy takes it for dead when two of its checks come late, on a busy machine.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while (answer := cluster.get(path)).status == 503 and time.monotonic() < deadline:
        time.sleep(0.5)
    return answer


def pages(cluster: Cluster, path: str) -> list[dict[str, Any]]:
    """Return all elements of a list of the API, page by page; a list that is not there is empty."""
    found: list[dict[str, Any]] = []
    while True:
        answer = patiently(cluster, path)
        if answer.status == 404:
            return found
        assert answer.status == 200, (path, answer.body)
        found += answer.json()
        following = re.search(r"<([^>]*)>; *rel=\"?next", answer.headers.get("link", ""))
        if following is None:
            return found
        path = "/" + following[1].split("://", 1)[-1].partition("/")[2] if "://" in following[1] else following[1]


def events(cluster: Cluster, *, since_s: float) -> list[dict[str, Any]]:
    """Return the events since an instant (epoch s), oldest first, straight from the table."""
    rows = cluster.mariadb.execute(
        f"SELECT at_ms, kind, subject, detail FROM events WHERE at_ms >= {int(since_s * 1000)} ORDER BY id",
        cluster.database,
    )
    return [dict(zip(("at_ms", "kind", "subject", "detail"), row, strict=True)) for row in rows]


def assigned(fleet: Fleet) -> dict[str, list[str]]:
    """Return the tasks that ZooKeeper has assigned to each worker."""
    hosts, _, chroot = fleet.cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
    client = KazooClient(hosts=hosts, auth_data=[("digest", fleet.cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])])
    client.start(timeout=10)
    try:
        found = {}
        for worker in fleet.workers:
            base = f"/{chroot}/assign/{worker}"
            tasks = []
            try:
                for bucket in client.get_children(base):
                    tasks += client.get_children(f"{base}/{bucket}")
            except NoNodeError:
                pass  # nothing was ever assigned to it
            found[worker] = sorted(task.replace(".", "/") for task in tasks)
        return found
    finally:
        client.stop()
        client.close()


def crontabs(fleet: Fleet, given: Mapping[str, Iterable[str]] | None = None) -> dict[str, list[str]]:
    """Return the tasks that the comments in each node's crontab files name.

    A comment names a few dozen and counts the rest: with `given` (see `assigned`) those count as named whose number is
    just that of the rest.
    """
    found = {}
    for worker in fleet.workers:
        text = fleet.cluster.crontab(worker)
        named = set(tasks_named(text))
        rest = set((given or {}).get(worker, ())) - named
        found[worker] = sorted(named | rest if len(rest) == tasks_counted(text) else named)
    return found


def tasks_counted(text: str) -> int:
    """Return how many tasks the comments of a crontab leave unnamed."""
    return sum(int(number) for number in _MORE.findall(text))


def tasks_named(text: str) -> list[str]:
    """Return the tasks that are named in comments of a crontab."""
    return [task for line in text.splitlines() if line.startswith("# tasks") for task in _TASK.findall(line)]
