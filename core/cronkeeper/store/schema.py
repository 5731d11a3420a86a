"""The tables, as the code of this version expects them. The migrations make them; a test holds the two together.

All instants are epoch milliseconds, UTC. Names compare byte by byte, as they do in ZooKeeper: `a`, `A` and `ä` differ.
(Only spaces at the end do not count in MySQL: no collation that MySQL and MariaDB share counts them.)
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, Table

from cronkeeper.store.columns import TABLE_OPTIONS, ascii_text, long_bytes, long_text, metadata, name_text, row_id
from cronkeeper.store.trail_schema import trail, trail_inbox

#: Defined elsewhere, but part of the schema all the same.
__all__ = ["metadata", "trail", "trail_inbox"]

jobs = Table(
    "jobs",
    metadata,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("namespace", name_text(), nullable=False),
    Column("name", name_text(), nullable=True),
    Column("generation", BigInteger, nullable=False),
    Column("state", ascii_text(16), nullable=False),
    #: Copies of what the leader plans by; `spec` stays the truth.
    Column("schedule", long_text(), nullable=False),
    Column("timezone", ascii_text(64), nullable=False),
    Column("selector", long_text(), nullable=True),
    Column("shards", Integer, nullable=False),
    Column("effective_from_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    #: Name, executable and description, case-folded: what free text is looked for in.
    Column("search", long_text(), nullable=False),
    #: JSON, see cronkeeper.domain.job.spec_to_dict.
    Column("spec", long_text(), nullable=False),
    Column("envelope", long_bytes(), nullable=False),
    #: Whether a leader acts on its failures, for those who report them: see JobSpec.watched.
    Column("watched", Integer, nullable=False, server_default="0"),
    #: The generation that a leader has paused, if it was this one.
    Column("paused_generation", BigInteger, nullable=True),
    Column("state_reason", ascii_text(255), nullable=False, server_default=""),
    Index("jobs_by_name", "namespace", "name", unique=True),
    Index("jobs_by_update", "updated_ms"),
    # Ids of removed jobs are never used again: old runs, znodes and crontabs may still name them.
    sqlite_autoincrement=True,
    **TABLE_OPTIONS,
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", ascii_text(190), primary_key=True),
    Column("value", ascii_text(190), nullable=False),
    Index("job_labels_by_value", "key", "value"),
    **TABLE_OPTIONS,
)

#: Each job's newest run that was started, so that a page of jobs needs no look into the ledger.
job_heads = Table(
    "job_heads",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, nullable=False),
    Column("fire_ms", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", ascii_text(16), nullable=False),
    Column("ended_ms", BigInteger, nullable=True),
    **TABLE_OPTIONS,
)

#: Jobs with a fire that has failed since the leader looked last, of those on whose failures it acts.
failing = Table(
    "failing",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    #: Made anew by each report: whoever has looked removes only what it has seen.
    Column("nonce", ascii_text(32), nullable=False),
    **TABLE_OPTIONS,
)

#: The ledger. Its primary key is the fence: whoever inserts the row owns the start.
runs = Table(
    "runs",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("fire_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("trigger", ascii_text(16), nullable=False),
    Column("state", ascii_text(16), nullable=False),
    Column("worker", ascii_text(63), nullable=False),
    Column("nonce", ascii_text(32), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("reason", ascii_text(32), nullable=True),
    Column("claimed_ms", BigInteger, nullable=True),
    Column("started_ms", BigInteger, nullable=True),
    Column("ended_ms", BigInteger, nullable=True),
    Column("exit_code", Integer, nullable=True),
    Column("signal", Integer, nullable=True),
    Column("autonomous", Integer, nullable=False),
    Column("output_tail", long_text(), nullable=False),
    Column("output_bytes", BigInteger, nullable=False),
    Column("cancel_requested", Integer, nullable=False),
    #: For a job's history over all of its shards.
    Index("runs_by_job", "job_id", "fire_ms"),
    #: For the few rows that are not over: whose, and which.
    Index("runs_by_state", "state", "worker"),
    #: For taking old rows away.
    Index("runs_by_fire", "fire_ms"),
    **TABLE_OPTIONS,
)

run_output = Table(
    "run_output",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("fire_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("data", long_bytes(), nullable=False),
    **TABLE_OPTIONS,
)

leases = Table(
    "leases",
    metadata,
    Column("worker", ascii_text(63), primary_key=True),
    Column("incarnation", ascii_text(64), nullable=False),
    #: The incarnation that the leader declared lost last; it never becomes alive again.
    Column("lost_incarnation", ascii_text(64), nullable=False),
    #: By the database's clock. 0: released.
    Column("beat_ms", BigInteger, nullable=False),
    Column("clock_offset_ms", BigInteger, nullable=False),
    Column("info", long_bytes(), nullable=False),
    **TABLE_OPTIONS,
)

#: One row. Every transaction of a leader moves `beat` where the term is still its own.
term = Table(
    "term",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("term", BigInteger, nullable=False),
    Column("holder", name_text(), nullable=False),
    Column("beat", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

assignments = Table(
    "assignments",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("worker", ascii_text(63), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("reason", ascii_text(32), nullable=False),
    Column("assigned_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

#: An admin's wishes, until the leader has fulfilled or dropped them.
move_requests = Table(
    "move_requests",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("worker", ascii_text(63), nullable=False),
    Column("requested_ms", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

cordons = Table(
    "cordons",
    metadata,
    Column("worker", ascii_text(63), primary_key=True),
    Column("cordoned", Integer, nullable=False),
    Column("draining", Integer, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("name", name_text(), nullable=False),
    Column("role", ascii_text(16), nullable=False),
    Column("digest", ascii_text(64), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=True),
    Column("revoked_ms", BigInteger, nullable=True),
    #: `*`, or namespaces with commas between them.
    Column("namespaces", ascii_text(4000), nullable=False, server_default="*"),
    Index("tokens_by_digest", "digest", unique=True),
    sqlite_autoincrement=True,
    **TABLE_OPTIONS,
)

#: What an administrator allows in a namespace, and its bounds (NULL: none).
namespaces = Table(
    "namespaces",
    metadata,
    Column("name", ascii_text(63), primary_key=True),
    #: JSON: the accounts of run_as. NULL: those of the installation.
    Column("run_as", long_text(), nullable=True),
    Column("max_jobs", BigInteger, nullable=True),
    Column("max_fires_per_minute", Double, nullable=True),
    Column("min_interval_s", BigInteger, nullable=True),
    Column("max_artifact_bytes", BigInteger, nullable=True),
    Column("max_creates_per_minute", BigInteger, nullable=True),
    Column("updated_ms", BigInteger, nullable=False),
    #: Moved by each transaction that is held against the bounds, so that they wait for each other.
    Column("writes", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

#: How many jobs a token has created in a minute of the clock, where that is bounded.
creates = Table(
    "creates",
    metadata,
    Column("namespace", ascii_text(63), primary_key=True),
    Column("token", ascii_text(32), primary_key=True),
    Column("minute", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

idempotency = Table(
    "idempotency",
    metadata,
    #: SHA-256 over scope and key, which may be of any length.
    Column("digest", ascii_text(64), primary_key=True),
    Column("body_digest", ascii_text(128), nullable=False),
    #: Whose beginning this is, when the answer to it was lost.
    Column("nonce", ascii_text(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    #: 0 while the request is under way.
    Column("status", Integer, nullable=False),
    #: The answer. While there is none: empty, or a JSON array of the ids of what the request has saved.
    Column("body", long_bytes(), nullable=False),
    Index("idempotency_by_age", "created_ms"),
    **TABLE_OPTIONS,
)

events = Table(
    "events",
    metadata,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", ascii_text(64), nullable=False),
    Column("subject", name_text(), nullable=False),
    Column("detail", long_text(), nullable=False),
    #: SHA-256 over the rest: the same event told twice is one event.
    Column("digest", ascii_text(64), nullable=False),
    Index("events_by_digest", "digest", unique=True),
    Index("events_by_time", "at_ms"),
    sqlite_autoincrement=True,
    **TABLE_OPTIONS,
)

#: Every save of a job: what was in force at any instant of the past, and so what was due then.
job_history = Table(
    "job_history",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    #: A generation is finished without a new one when its schedule has no fire left.
    Column("state", ascii_text(16), primary_key=True),
    Column("since_ms", BigInteger, nullable=False),
    Column("effective_from_ms", BigInteger, nullable=False),
    Column("spec", long_text(), nullable=False),
    Index("job_history_by_time", "since_ms"),
    **TABLE_OPTIONS,
)

#: Days that jobs share by a name.
calendars = Table(
    "calendars",
    metadata,
    Column("namespace", name_text(), primary_key=True),
    Column("name", name_text(), primary_key=True),
    Column("description", long_text(), nullable=False),
    #: JSON: {"exclude": [days], "include": [days]}, and a digest of it.
    Column("dates", long_text(), nullable=False),
    Column("digest", ascii_text(32), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    #: Moved by each save of a job that names it.
    Column("touched", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

#: Which jobs name which calendars, and the digest of their copies.
job_calendars = Table(
    "job_calendars",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", name_text(), primary_key=True),
    Column("namespace", name_text(), nullable=False),
    Column("digest", ascii_text(32), nullable=False),
    Index("job_calendars_by_name", "namespace", "name"),
    **TABLE_OPTIONS,
)

#: The auditor's word on fires that were due and have no row in the ledger.
missed = Table(
    "missed",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("fire_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", ascii_text(32), nullable=False),
    Column("detail", long_text(), nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
    #: 1 while the verdict waits for a worker to be heard.
    Column("held", Integer, nullable=False),
    Index("missed_by_job", "job_id", "fire_ms"),
    Index("missed_by_held", "held", "noted_ms"),
    Index("missed_by_fire", "fire_ms"),
    **TABLE_OPTIONS,
)

#: Secrets of jobs: boxes that neither the database nor who reads it can open.
secrets = Table(
    "secrets",
    metadata,
    Column("namespace", name_text(), primary_key=True),
    Column("name", name_text(), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("box", long_text(), nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("updated_by", name_text(), nullable=False),
    #: Moved by each save of a job that names it.
    Column("touched", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

#: One row: how far the auditor is.
audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("decided_ms", BigInteger, nullable=False),
    Column("warned_ms", BigInteger, nullable=False),
    Column("checked_job", BigInteger, nullable=False),
    Column("checked_shard", Integer, nullable=False),
    Column("checked_ms", BigInteger, nullable=False),
    Column("beat_ms", BigInteger, nullable=False),
    Column("known_from_ms", BigInteger, nullable=False),
    #: JSON: [[last turn before, first turn after], …].
    Column("gaps", long_text(), nullable=False),
    **TABLE_OPTIONS,
)
