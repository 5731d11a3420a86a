"""PURE: the names of all znodes (DESIGN section 5), relative to the chroot, and back from a name to what it means.

Ids come only from `domain.ids`, so nothing that a user typed ever becomes a path.
"""

from __future__ import annotations

import re

from cronkeeper.domain.ids import RunKey, TaskId, is_worker_id

ROOT = "/"
WORKERS = "/workers"
NODES = "/nodes"
TASKS = "/tasks"
ASSIGN = "/assign"
OWNED = "/owned"
CLAIMS = "/claims"
QUEUE = "/queue"
LEADER = "/leader"
#: Not in DESIGN's table: it exists while a leader vouches that the tree is complete.
READY = "/ready"
#: Not in DESIGN's table either: how long the audit trail is, and the hash of its newest link.
TRAIL = "/trail"

TOP_LEVEL = (WORKERS, NODES, TASKS, ASSIGN, OWNED, CLAIMS, QUEUE, LEADER)
BUCKETS = tuple(f"{n:02x}" for n in range(256))
#: Folders whose buckets exist from the start; those of `/assign` and `/owned` come when they are needed.
BUCKETED = (TASKS, CLAIMS, QUEUE)

_CLAIM = re.compile(r"([0-9]{1,18}\.[0-9]{1,10})@([0-9]{1,15})(?:-([1-9][0-9]{0,4}))?", re.ASCII)
_CANDIDATE = re.compile(r"([0-9a-f]{32})-candidate-([0-9]{10})", re.ASCII)


def parent(path: str) -> str:
    """Return the path of the folder above; the root's is the root."""
    return path.rpartition("/")[0] or ROOT


def name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def ancestors(path: str) -> list[str]:
    """Return the folders above `path`, from the top down, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def depth(path: str) -> int:
    """Return how many names the path has: parents have fewer than their children."""
    return path.count("/")


def join(folder: str, child: str) -> str:
    """Return the path of a child that was found in `folder`."""
    return f"{folder}/{child}"


def worker(worker_id: str) -> str:
    """Return the path of a worker's ephemeral znode. Raises ValueError when this cannot be a worker's id."""
    return f"{WORKERS}/{_checked(worker_id)}"


def node(worker_id: str) -> str:
    return f"{NODES}/{_checked(worker_id)}"


def task(item: TaskId) -> str:
    return f"{TASKS}/{item.bucket}/{item.znode}"


def assigned_folder(worker_id: str) -> str:
    return f"{ASSIGN}/{_checked(worker_id)}"


def assigned(worker_id: str, item: TaskId) -> str:
    return f"{ASSIGN}/{_checked(worker_id)}/{item.bucket}/{item.znode}"


def owned_folder(worker_id: str) -> str:
    return f"{OWNED}/{_checked(worker_id)}"


def owned(worker_id: str, item: TaskId) -> str:
    return f"{OWNED}/{_checked(worker_id)}/{item.bucket}/{item.znode}"


def claim(key: RunKey) -> str:
    """Return `/claims/<bucket>/<task>@<fire time>`; attempts after the first have `-<attempt>` added."""
    suffix = "" if key.attempt == 1 else f"-{key.attempt}"
    return f"{CLAIMS}/{key.task.bucket}/{key.task.znode}@{key.fire_ms}{suffix}"


def claim_key(claim_name: str) -> RunKey:
    """Read a claim's name. Raises ValueError."""
    match = _CLAIM.fullmatch(claim_name)
    if match is None:
        raise ValueError(f"not a claim: {claim_name!r}")
    return RunKey(TaskId.parse(match[1]), int(match[2]), int(match[3] or 1))


def queued(key: RunKey) -> str:
    return f"{QUEUE}/{key.task.bucket}/{key}"


def candidate_prefix(token: str) -> str:
    """Return what a candidate's path begins with; the server adds ten digits. `token`: 32 hex digits."""
    return f"{LEADER}/{token}-candidate-"


def candidate_token(candidate_name: str) -> str:
    """Return the token in a candidate's name. Raises ValueError."""
    return _candidate(candidate_name)[1]


def candidate_order(candidate_name: str) -> int:
    """Return a candidate's place in the queue; the lowest leads. Raises ValueError."""
    return int(_candidate(candidate_name)[2])


def _candidate(text: str) -> re.Match[str]:
    match = _CANDIDATE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a candidate: {text!r}")
    return match


def _checked(worker_id: str) -> str:
    if not is_worker_id(worker_id):
        raise ValueError(f"not a worker id: {worker_id!r}")
    return worker_id
