"""Which fires had to be, and which were allowed to be: from what a user asked, and what is known of the answers.

After each operation a job is in one of several versions; in just one while every answer is known. A fire is required
where only one version was possible, far enough from any change; it is allowed where some version might have had it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.faults.checker.evaluator import due
from tests.faults.checker.history import History, Op, OpKind, OpResult
from tests.faults.checker.policy import Window

#: One fire of one task: the job's name in the trial, the shard, the fire time in epoch ms.
Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Version:
    """What a job may be. Without `active`, it is paused."""

    spec: Mapping[str, Any]
    active: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """After an operation: possible from `possible_s` on, known to be so from `certain_s` on (None: never known)."""

    possible_s: float
    certain_s: float | None
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A fire that is allowed, and whether it has to be."""

    key: Key
    spec: Mapping[str, Any]
    required: bool

    @property
    def due_s(self) -> float:
        return self.key[2] / 1000

    @property
    def jitter_s(self) -> float:
        return float(self.spec["jitter_s"])

    @property
    def grace_s(self) -> float:
        return float(self.spec["grace_s"])

    @property
    def at_most_once(self) -> bool:
        return bool(self.spec["delivery"] == "at_most_once")

    @property
    def reruns_lost(self) -> bool:
        return self.spec["on_worker_loss"] == "rerun" and not self.at_most_once


def targets(history: History, windows: Sequence[Window]) -> dict[Key, Target]:
    """Return every fire that is allowed before the history was read."""
    found: dict[Key, Target] = {}
    for name, steps in timelines(history).items():
        for index, step in enumerate(steps):
            following = steps[index + 1] if index + 1 < len(steps) else None
            for target in _of_step(name, step, following, history, windows):
                known = found.get(target.key)
                if known is None or target.required or not known.required:
                    found[target.key] = target
    return found


def timelines(history: History) -> dict[str, list[Step]]:
    """Return what each job may have been after each operation that may have had an effect."""
    found: dict[str, list[Step]] = {}
    for op in sorted(history.ops, key=lambda one: one.invoked_s):
        if op.result is OpResult.FAIL or op.op is OpKind.RUN:
            continue
        steps = found.setdefault(op.name, [])
        before = steps[-1].versions if steps else ()
        after = _applied(op, before)
        if op.result is OpResult.OK:
            steps.append(Step(op.invoked_s, op.completed_s, after))
        else:
            steps.append(Step(op.invoked_s, None, tuple(_distinct([*before, *after]))))
    return found


def _applied(op: Op, before: Sequence[Version]) -> tuple[Version, ...]:
    match op.op:
        case OpKind.CREATE:
            return (Version(op.spec or {}),)
        case OpKind.REPLACE:
            spec = op.spec or {}
            return tuple(_distinct([Version(spec, version.active) for version in before]))
        case OpKind.PAUSE:
            return tuple(_distinct([replace(version, active=False) for version in before]))
        case OpKind.RESUME:
            return tuple(_distinct([replace(version, active=True) for version in before]))
    return ()


def _distinct(versions: Sequence[Version]) -> list[Version]:
    found: list[Version] = []
    for version in versions:
        if version not in found:
            found.append(version)
    return found


def _of_step(
    name: str, step: Step, following: Step | None, history: History, windows: Sequence[Window]
) -> list[Target]:
    plan = history.plan
    start_s = step.possible_s - plan.bounds.skew_s
    end_s = plan.read_s
    if following is not None:
        end_s = min(end_s, _known_everywhere(following, history, windows) or following.possible_s)
    certain_s = _known_everywhere(step, history, windows)
    sure = certain_s is not None and len(step.versions) == 1
    until_s = plan.read_s if following is None else following.possible_s - plan.bounds.propagation_s
    found = []
    for version in step.versions:
        if not version.active:
            continue
        for fire_ms in due(version.spec, start_s, end_s):
            required = sure and certain_s is not None and certain_s < fire_ms / 1000 < until_s
            found += [
                Target((name, shard, fire_ms), version.spec, required) for shard in range(int(version.spec["shards"]))
            ]
    return found


def _known_everywhere(step: Step, history: History, windows: Sequence[Window]) -> float | None:
    """Return when news of a step has come everywhere, also to those that a fault kept from hearing it."""
    if step.certain_s is None:
        return None
    heard_s = step.certain_s + history.plan.bounds.propagation_s
    for window in windows:
        if window.start_s <= heard_s and window.end_s >= step.possible_s:
            heard_s = max(heard_s, window.end_s)
    return heard_s
