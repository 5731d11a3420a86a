"""Examples for the OpenAPI document. A test checks each against its schema."""

from __future__ import annotations

from typing import Any

NEW_JOB = {"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}

AUDIT_ENTRY: dict[str, Any] = {
    "seq": 12,
    "at": "2026-03-01T12:04:07.215Z",
    "actor": {"token": "2", "name": "ci", "role": "operator"},
    "source": "192.0.2.7",
    "request_id": "0b7ff2b1-6f8e-4f6c-a7c6-7c0b6a3b1f11",
    "action": "job.changed",
    "object": "job/1",
    "namespace": "default",
    "old": {"generation": 1, "state": "active", "schedule": "5 * * * *"},
    "new": {"generation": 2, "state": "active", "schedule": "10 * * * *"},
    "nonce": "5f0c63d0b3e14bbf9f6a0d8a5b2f7e11",
    "prev_hash": "9d3f2c0f4b7a1e5d8c6b0a9f8e7d6c5b4a39281706f5e4d3c2b1a0f9e8d7c6b5",
    "hash": "1b2a39485766758493a2b1c0dfeefdfc0b1a29384756657483920a1b2c3d4e5f",
}
AUDIT_CHECK: dict[str, Any] = {
    "checked": 12,
    "through": 12,
    "hash": AUDIT_ENTRY["hash"],
    "done": True,
    "broken": None,
    "anchor": {"seq": 11, "hash": AUDIT_ENTRY["prev_hash"], "at": "2026-03-01T12:04:00Z", "floor": 1},
}

LAST_RUN = {
    "id": "1-0-1772366700000-1",
    "fire_time": "2026-03-01T12:05:00Z",
    "state": "succeeded",
    "ended_at": "2026-03-01T12:05:00.412Z",
}

JOB: dict[str, Any] = {
    "id": "1",
    "status": "scheduled",
    "status_reason": None,
    **NEW_JOB,
    "namespace": "default",
    "name": None,
    "description": "",
    "owner": "",
    "timezone": "UTC",
    "args": [],
    "env": {},
    "run_as": None,
    "timeout_s": None,
    "retry": {"limit": 0, "backoff_s": 10, "max_backoff_s": 3600, "jitter_s": 0, "elsewhere": False},
    "pause_after_failures": None,
    "concurrency": "forbid",
    "misfire": "latest",
    "grace_s": 3600,
    "delivery": "at_least_once",
    "on_worker_loss": "rerun",
    "dst": {"gap": None, "fold": None},
    "jitter_s": 0,
    "starts_at": None,
    "ends_at": None,
    "calendar": None,
    "blackouts": [],
    "holiday_dates": {},
    "named_dates": {},
    "secret_versions": {},
    "spread": "",
    "selector": None,
    "shards": 1,
    "limits": {"cpu": None, "memory_mb": None, "output_kb": 1024},
    "labels": {},
    "filename": None,
    "artifact": None,
    "generation": 1,
    "created_at": "2026-03-01T11:58:21.003Z",
    "updated_at": "2026-03-01T11:58:21.003Z",
    "next_fire": "2026-03-01T13:05:00Z",
    "last_run": LAST_RUN,
    "workers": ["node-3"],
}

RUN: dict[str, Any] = {
    "id": "1-0-1772366700000-1",
    "job_id": "1",
    "fire_time": "2026-03-01T12:05:00Z",
    "attempt": 1,
    "shard": 0,
    "trigger": "timer",
    "state": "succeeded",
    "reason": None,
    "worker": "node-3",
    "claimed_at": "2026-03-01T12:05:00.004Z",
    "started_at": "2026-03-01T12:05:00.011Z",
    "ended_at": "2026-03-01T12:05:00.412Z",
    "exit_code": 0,
    "signal": None,
    "autonomous": False,
    "output_tail": "total 0\n",
    "output_bytes": 8,
    "cancel_requested": False,
}

WHY: dict[str, Any] = {
    "fire_time": "2026-03-01T12:05:00Z",
    "due": True,
    "decision": "run",
    "reason": None,
    "words": "It ran on node-3: succeeded, exit code 0.",
    "runs": [RUN],
    "previous_fire": "2026-03-01T11:05:00Z",
    "next_fire": "2026-03-01T13:05:00Z",
}

MISSED = {
    "job_id": "1",
    "shard": 0,
    "fire_time": "2026-03-01T11:05:00Z",
    "reason": "no_worker_fits",
    "detail": "no worker that takes new tasks matches zone=mars",
    "noted_at": "2026-03-01T12:06:01.118Z",
}

EVENT = {
    "at": "2026-03-01T12:06:01.118Z",
    "kind": "fire.missed",
    "subject": "1/0",
    "detail": "2026-03-01T11:05:00Z: no_worker_fits: no worker that takes new tasks matches zone=mars",
}

PENDING_RUN: dict[str, Any] = {
    **RUN,
    "id": "1-0-1772366712345-1",
    "fire_time": "2026-03-01T12:05:12.345Z",
    "trigger": "manual",
    "state": "pending",
    "worker": None,
    "claimed_at": None,
    "started_at": None,
    "ended_at": None,
    "exit_code": None,
    "output_tail": "",
    "output_bytes": 0,
}

BACKFILL: dict[str, Any] = {
    "dry_run": False,
    "created": [{**PENDING_RUN, "id": "1-0-1772190300000-1", "fire_time": "2026-02-27T11:05:00Z"}],
    "existing": [
        {
            "run_id": "1-0-1772193900000-1",
            "fire_time": "2026-02-27T12:05:00Z",
            "shard": 0,
            "state": "succeeded",
            "reason": None,
        }
    ],
    "unsettled": [],
}

FORECAST = {
    "next": ["2026-03-29T00:05:00Z", "2026-03-29T01:05:00Z"],
    "words": "At 5 minutes past every hour (Europe/Berlin)",
    "notes": ["The clock in Europe/Berlin goes forward by 1 hour at 2026-03-29T01:00:00Z."],
}

FLEET_FORECAST = {
    "from": "2026-03-01T12:00:00Z",
    "to": "2026-03-01T14:00:00Z",
    "by": "hour",
    "jobs": 210,
    "tasks": 212,
    "unmeasured": 3,
    "buckets": [
        {"at": "2026-03-01T12:00:00Z", "fires": 204.0, "load": 1.7},
        {"at": "2026-03-01T13:00:00Z", "fires": 212.0, "load": 2.1},
    ],
    "herds": [
        {
            "at": "2026-03-01T13:00:00Z",
            "fires": 120.0,
            "schedules": [{"schedule": "0 * * * *", "timezone": "UTC", "tasks": 120}],
        }
    ],
    "quietest": [{"at": "2026-03-01T12:00:00Z", "fires": 204.0, "load": 1.7}],
    "quiet_minutes": [7, 13, 22, 38, 51],
}

WORKER = {
    "id": "node-3",
    "host": "node-3.example.net",
    "state": "up",
    "labels": {"zone": "eu"},
    "capacity": 10000,
    "tasks": 42,
    "version": "0.1.0",
    "last_seen": "2026-03-01T12:05:11.870Z",
    "clock_offset_ms": -3,
}

MOVES = {"moves": [{"task": "1/0", "from": "node-3", "to": "node-7", "reason": "reassign"}]}
PLAN = {**MOVES, "unplaced": {"9/0": "no worker matches gpu"}, "load": {"node-7": 12.5}}

SECRET = {
    "name": "pg",
    "namespace": "default",
    "version": 3,
    "updated_at": "2026-03-01T11:00:00Z",
    "updated_by": "ci",
}
SAVED_SECRET = {**SECRET, "changed_jobs": ["1", "7"]}

CALENDAR_INPUT = {
    "description": "Days on which the banks are closed.",
    "exclude": ["2026-12-24/2026-12-26", "2027-01-01"],
    "include": ["2026-12-27"],
}
CALENDAR = {
    "namespace": "default",
    "name": "bank-days",
    **CALENDAR_INPUT,
    "generation": 2,
    "created_at": "2026-03-01T11:00:00Z",
    "updated_at": "2026-03-01T12:00:00Z",
}
_AFFECTED = {
    "id": "1",
    "name": "listing",
    "next_before": ["2026-12-24T09:00:00Z"],
    "next_after": ["2026-12-27T09:00:00Z"],
}
CALENDAR_CHANGE = {
    "calendar": CALENDAR,
    "dry_run": False,
    "created": False,
    "changed": 1,
    "remaining": 0,
    "jobs": [_AFFECTED],
}
CALENDAR_REFRESH = {"dry_run": False, "looked": 210, "changed": 1, "jobs": [_AFFECTED], "left": [], "after": None}
NAMESPACE = {
    "name": "team-a",
    "run_as": ["nobody", "reports"],
    "quotas": {
        "max_jobs": 500,
        "max_fires_per_minute": 100.0,
        "min_interval_s": 30,
        "max_artifact_bytes": None,
        "max_creates_per_minute": 60,
    },
    "usage": {"jobs": 42, "fires_per_minute": 7.25, "artifact_bytes": 104_208},
    "updated_at": "2026-03-01T11:00:00Z",
}

TOKEN = {
    "id": "2",
    "name": "ci",
    "role": "operator",
    "namespaces": ["*"],
    "created_at": "2026-03-01T11:00:00Z",
    "expires_at": None,
    "revoked_at": None,
}
NEW_TOKEN = {**TOKEN, "token": "ck_…"}
RESIGNED = {"key": "mfzgsytbnzsgc3tp", "signed": 498, "current": 2, "refused": [], "next": "517"}
DENIAL = {"id": "7", "identity": "https://login.example.net#4711", "denied_at": "2026-03-01T11:00:00Z"}

APPLY = {"jobs": [{"name": "listing", **NEW_JOB}], "namespace": "default"}
APPLIED = {
    "dry_run": True,
    "created": [],
    "changed": [
        {
            "name": "listing",
            "id": "1",
            "fields": {"schedule": {"from": "0 * * * *", "to": "5 * * * *"}},
            "next_before": ["2026-03-01T13:00:00Z"],
            "next_after": ["2026-03-01T12:05:00Z"],
        }
    ],
    "unchanged": [],
    "pruned": [],
}
