"""What to do next, for each reason, in plain English."""

from __future__ import annotations

from cronkeeper_manager.auditor import MissReason

_RUN_NOW = "Run the job now if this fire matters (cronkeeper run JOB)."

ADVICE: dict[MissReason, str] = {
    MissReason.PAUSED: f"Resume the job to have it fire again. {_RUN_NOW}",
    MissReason.NOT_YET_STARTED: "Nothing is to be done, unless starts_at is wrong.",
    MissReason.ENDED: "Nothing is to be done; resume the job, or move ends_at, if it should go on.",
    MissReason.OVERLAP: "The run before was still in progress. Give the job another concurrency (queue, allow, "
    "replace), a longer interval, or a timeout_s.",
    MissReason.CALENDAR: "Nothing is to be done, unless its calendar or blackouts are wrong.",
    MissReason.NO_WORKER_FITS: "Compare the job's selector with the labels of the workers (cronkeeper workers); "
    f"uncordon one, or add one. {_RUN_NOW}",
    MissReason.WORKER_LOST: "See why the worker died (its log, its node), and whether others may take its jobs. "
    + _RUN_NOW,
    MissReason.ISOLATED: "The node could not reach the stores. See its network; what it did is recorded once it is "
    "back.",
    MissReason.FENCE_REFUSED: "Another worker had claimed the fire. Look at its run.",
    MissReason.LATE: "It was found after its grace_s was over, or a newer fire took its place. Raise grace_s, or set "
    "misfire to all, if late fires are worth running.",
    MissReason.ARTIFACT_MISSING: "The job's file could not be fetched. See whether the object store answers and still "
    "has it.",
    MissReason.CRON_SILENT: "Neither the node's cron nor the daemon fired. See both services on the node.",
    MissReason.PLATFORM_DOWN: "No manager was working then. See why (the managers' logs, MySQL, ZooKeeper). "
    + _RUN_NOW,
    MissReason.UNKNOWN: "Look at the events (cronkeeper events) and the worker's log of that time; report it, "
    "if they do not explain it.",
}
