"""From Kubernetes CronJobs, as `kubectl get cronjobs -o yaml` prints them, to jobs. PURE."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_CONCURRENCY = {"Allow": "allow", "Forbid": "forbid", "Replace": "replace"}


@dataclass(frozen=True, slots=True)
class Converted:
    """One CronJob and the job that it becomes; without a job, the notes say why."""

    name: str
    job: dict[str, Any] | None
    notes: tuple[str, ...]
    #: It is suspended: the job is to be paused once it is there.
    suspended: bool = False


@dataclass(slots=True)
class _Notes:
    found: list[str] = field(default_factory=list)

    def add(self, note: str) -> None:
        if note not in self.found:
            self.found.append(note)


def cron_jobs(documents: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the CronJobs of documents: items by themselves, or Lists of them. Raises ValueError for anything else."""
    for document in documents:
        if not isinstance(document, Mapping):
            raise ValueError("a document is not a mapping")
        kind = document.get("kind")
        if isinstance(kind, str) and kind.endswith("List"):
            yield from cron_jobs(document.get("items") or [])
        elif kind == "CronJob":
            yield document
        else:
            raise ValueError(f"a document is of kind {kind!r}; CronJob or a List of them is wanted")


def convert(item: Mapping[str, Any], *, source: str) -> Converted:
    """Return the job for a CronJob. Whatever cannot be kept is noted; what cannot be run is refused."""
    metadata, spec = _mapping(item, "metadata"), _mapping(item, "spec")
    name = str(metadata.get("name") or "")
    notes = _Notes()
    template = _mapping(_mapping(spec, "jobTemplate"), "spec")
    pod = _mapping(_mapping(template, "template"), "spec")
    containers = pod.get("containers") or []
    if len(containers) != 1:
        return Converted(name, None, (f"it has {len(containers)} containers; one is needed",))
    container = containers[0]
    words = [str(word) for word in (container.get("command") or [])]
    args = [str(word) for word in (container.get("args") or [])]
    if not words:
        return Converted(name, None, ("it runs what its image says; give it a `command`",))
    schedule, timezone = _schedule(str(spec.get("schedule") or ""), spec.get("timeZone"), notes)
    job: dict[str, Any] = {
        "name": name,
        "namespace": str(metadata.get("namespace") or "default"),
        "type": "command",
        "schedule": schedule,
        "timezone": timezone,
        **_command(words, args),
        "concurrency": _CONCURRENCY.get(str(spec.get("concurrencyPolicy") or "Allow"), "allow"),
        "labels": {**_labels(metadata.get("labels"), notes), "imported-from": source},
    }
    notes.add(f"the image {container.get('image', '?')} is not used: the command runs on the node itself")
    job.update(_limits(spec, template, notes))
    env = _environment(container.get("env") or [], notes)
    if env:
        job["env"] = env
    for key in ("initContainers", "volumes", "nodeSelector", "affinity", "tolerations", "serviceAccountName"):
        if pod.get(key):
            notes.add(f"{key} is not kept" + ("; see `selector`" if key in ("nodeSelector", "affinity") else ""))
    for key in ("envFrom", "volumeMounts", "workingDir", "resources", "securityContext"):
        if container.get(key):
            notes.add(f"{key} is not kept")
    return Converted(name, job, tuple(notes.found), suspended=bool(spec.get("suspend")))


def _schedule(text: str, zone: Any, notes: _Notes) -> tuple[str, str]:
    for prefix in ("CRON_TZ=", "TZ="):
        if text.startswith(prefix):
            zone, _, text = text.removeprefix(prefix).partition(" ")
    if not zone:
        notes.add("it names no timeZone: UTC is taken, as most control planes run in it")
    return text.strip().replace("?", "*"), str(zone or "UTC")


def _command(words: list[str], args: list[str]) -> dict[str, Any]:
    is_shell = len(words) == 3 and words[0].rsplit("/", 1)[-1] == "sh" and words[1] == "-c"
    if is_shell and not args and "\n" not in words[2]:
        return {"executable": words[2]}
    # The arguments travel as they are: no shell reads them again.
    return {"executable": shlex.quote(words[0]), "args": [*words[1:], *args]}


def _limits(spec: Mapping[str, Any], template: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        found["grace_s"] = int(deadline)
    else:
        notes.add("it has no startingDeadlineSeconds: a fire may start up to an hour late (grace_s)")
    if (active := template.get("activeDeadlineSeconds")) is not None:
        found["timeout_s"] = int(active)
    limit = template.get("backoffLimit")
    found["retry"] = {"limit": 6 if limit is None else min(int(limit), 100), "backoff_s": 10, "max_backoff_s": 360}
    if (template.get("completions") or 1) != 1 or (template.get("parallelism") or 1) != 1:
        notes.add("completions and parallelism are not kept; see `shards`")
    return found


def _environment(variables: Sequence[Mapping[str, Any]], notes: _Notes) -> dict[str, str]:
    found = {}
    for one in variables:
        if "valueFrom" in one:
            notes.add(f"the variable {one.get('name')} comes from a secret or a field: set it by hand")
        else:
            found[str(one.get("name"))] = str(one.get("value") or "")
    return found


def _labels(labels: Any, notes: _Notes) -> dict[str, str]:
    from cronkeeper.domain.labels import check_labels

    found = {str(key): str(value) for key, value in (labels or {}).items()}
    bad = [key for key, value in found.items() if check_labels({key: value})]
    for key in bad:
        notes.add(f"the label {key!r} is not kept: its form is not ours")
    return {key: value for key, value in found.items() if key not in bad}


def _mapping(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    return value if isinstance(value, Mapping) else {}
