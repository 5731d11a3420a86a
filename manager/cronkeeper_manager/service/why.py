"""Why a fire ran, was skipped, was missed, or is not known yet. The questions to the store are at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cronkeeper.domain.exclusion import excluded
from cronkeeper.domain.instants import rfc3339
from cronkeeper.domain.job import JobState
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.ports import AuditMark, Event, Fate, Fire, JobVersion, Missed, Store
from cronkeeper.runtime.clock import Clock
from cronkeeper_manager.auditor import MissReason, Outcome, Span, known_outcome, settle_delay_ms, spans
from cronkeeper_manager.service.why_words import ADVICE

#: True of a job whose schedule is over, and of one whose fires no clock tells.
_NONE_FOLLOWS = "No fire follows that is known beforehand."
#: Of a job with several shards the worst is told.
_WORST = (Outcome.MISSED, Outcome.PENDING, Outcome.SKIPPED, Outcome.RUN)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instant lies among a job's fires. Instants are epoch milliseconds, UTC."""

    at_ms: int
    #: The fire that is spoken of: at the instant itself, or the one before. None: there is none.
    fire_ms: int | None
    due: bool
    version: JobVersion | None
    previous_ms: int | None
    next_ms: int | None
    #: Why nothing is due around the instant.
    idle: tuple[MissReason, str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to "why". `reason` is a MissReason, or None where there is nothing to be explained."""

    fire_ms: int
    due: bool
    decision: Outcome
    reason: MissReason | None
    words: str
    runs: tuple[Run, ...]
    previous_ms: int | None
    next_ms: int | None


@dataclass(frozen=True, slots=True)
class Records:
    """What the store says of one fire."""

    runs: Sequence[Run]
    missed: Sequence[Missed]
    mark: AuditMark


# ---------------------------------------------------------------------------------------------------------- where: PURE


def locate(versions: Sequence[JobVersion], at_ms: int) -> Place:
    """Return where the instant lies. Raises ValueError for a schedule that cannot be read any more."""
    of_job = spans(versions)
    previous_ms, next_ms = _previous(of_job, at_ms), _next(of_job, at_ms)
    for span in of_job:
        if span.fires(at_ms - 1, at_ms, limit=1):
            return Place(at_ms, at_ms, True, span.version, previous_ms, next_ms)
    current = next((span for span in reversed(of_job) if span.version.since_ms < at_ms), None)
    idle = _idle(of_job, current, at_ms)
    if idle is not None:
        return Place(at_ms, None, False, None, previous_ms, next_ms, idle)
    before = next((s for s in reversed(of_job) if previous_ms and s.fires(previous_ms - 1, previous_ms, limit=1)), None)
    version = None if before is None else before.version
    return Place(at_ms, previous_ms, False, version, previous_ms, next_ms)


def _previous(of_job: Sequence[Span], at_ms: int) -> int | None:
    for span in reversed(of_job):
        end_ms = at_ms - 1 if span.end_ms is None else min(at_ms - 1, span.end_ms)
        low, high = span.version.spec.due_between(span.begin_ms, end_ms)
        if span.version.state is JobState.ACTIVE and high > low:
            newest, _ = span.version.spec.parsed_schedule().latest_fires(low, high, keep=1)
            if newest:
                return newest[-1]
    return None


def _next(of_job: Sequence[Span], at_ms: int) -> int | None:
    found = [fire_ms for span in of_job if (fire_ms := span.next_fire(at_ms)) is not None]
    return min(found, default=None)


def _idle(of_job: Sequence[Span], current: Span | None, at_ms: int) -> tuple[MissReason, str] | None:
    """Return why the job was not firing at all at that instant, or None."""
    if current is None:
        first = of_job[0].version
        said = "was created" if first.generation == 1 else "is known"
        return MissReason.NOT_YET_STARTED, f"The job {said} only since {rfc3339(first.since_ms)}."
    version, spec = current.version, current.version.spec
    since = rfc3339(version.since_ms)
    until = "" if current.end_ms is None else f" until {rfc3339(current.end_ms)}"
    if version.state is JobState.PAUSED:
        return MissReason.PAUSED, f"The job was paused from {since}{until}."
    if version.state is JobState.FINISHED:
        return MissReason.ENDED, f"The job was finished at {since}{until and ', and stayed so' + until}."
    if spec.starts_at_ms is not None and at_ms < spec.starts_at_ms:
        return MissReason.NOT_YET_STARTED, f"The job starts at {rfc3339(spec.starts_at_ms)} (starts_at)."
    if spec.ends_at_ms is not None and at_ms >= spec.ends_at_ms:
        return MissReason.ENDED, f"The job ended at {rfc3339(spec.ends_at_ms)} (ends_at)."
    closed = excluded(spec, at_ms)
    return None if closed is None else (MissReason.CALENDAR, f"Its schedule alone would fire then, but: {closed}.")


# ----------------------------------------------------------------------------------------------------------- why: PURE


@dataclass(frozen=True, slots=True)
class _Told:
    outcome: Outcome
    reason: MissReason | None
    words: str


def explain(place: Place, records: Records, now_ms: int) -> Answer:
    """Return the answer for a place, with what is recorded of its fire (or of the instant itself, if there is none)."""
    fire_ms = place.at_ms if place.fire_ms is None else place.fire_ms
    if place.version is None or place.fire_ms is None:
        told = _nothing_due(place, records)
    else:
        shards = [
            _of_shard(place.version, fire_ms, shard, records, now_ms) for shard in range(place.version.spec.shards)
        ]
        told = min(shards, key=lambda item: _WORST.index(item.outcome))
        if len(shards) > 1:
            alike = [shard for shard, item in enumerate(shards) if item.outcome is told.outcome]
            told = _Told(told.outcome, told.reason, f"{_of_shards(alike, len(shards))} {told.words}")
    words = [told.words] if place.due or place.fire_ms is None else [_not_due(place), told.words]
    if told.reason is not None and told.outcome in (Outcome.MISSED, Outcome.SKIPPED):
        words.append(ADVICE[told.reason])
    runs = tuple(sorted(records.runs, key=lambda run: run.key))
    return Answer(
        fire_ms, place.due, told.outcome, told.reason, " ".join(words), runs, place.previous_ms, place.next_ms
    )


def _of_shards(alike: Sequence[int], count: int) -> str:
    named = ", ".join(map(str, alike[:10])) + (", …" if len(alike) > 10 else "")
    return f"{len(alike)} of its {count} shards (shard {named}):"


def _nothing_due(place: Place, records: Records) -> _Told:
    if records.runs:
        newest = max(records.runs, key=lambda run: run.key.attempt)
        how = "a run that no version of the job asked for"
        if newest.trigger is Trigger.MANUAL:
            how = "a run on demand"
        elif newest.key.task.of_node:
            how = f"the start of node {newest.worker}"
        said = f"Nothing was due then; this is {how}: {newest.state}."
        return _Told(Outcome.RUN, None, said)
    later = _NONE_FOLLOWS if place.next_ms is None else f"The next is due at {rfc3339(place.next_ms)}."
    if place.idle is None:
        return _Told(Outcome.PENDING, None, f"Nothing was due then, and nothing before. {later}")
    reason, said = place.idle
    return _Told(Outcome.SKIPPED, reason, f"Nothing was due at {rfc3339(place.at_ms)}. {said} {later}")


def _not_due(place: Place) -> str:
    previous = "" if place.previous_ms is None else f" The fire before was due at {rfc3339(place.previous_ms)};"
    later = "no fire follows" if place.next_ms is None else f"the next is due at {rfc3339(place.next_ms)}"
    return f"Nothing was due at {rfc3339(place.at_ms)}.{previous} {later}. Of the fire before:"


def _of_shard(version: JobVersion, fire_ms: int, shard: int, records: Records, now_ms: int) -> _Told:
    rows = [run for run in records.runs if run.key.task.shard == shard and run.trigger is not Trigger.MANUAL]
    rows.sort(key=lambda run: run.key.attempt)
    row = rows[-1] if rows else None
    known = None if row is None else known_outcome(_fate(row), now_ms)
    if row is not None and known is not None:
        if known.outcome is Outcome.RUN:
            return _Told(Outcome.RUN, None, _ran(rows))
        if known.outcome is Outcome.SKIPPED:
            given = row.reason.value if row.reason is not None else "none given"
            return _Told(Outcome.SKIPPED, known.reason, f"Worker {row.worker} skipped it (reason: {given}).")
        return _Told(Outcome.PENDING, None, f"It is about to run: {known.detail}.")
    noted = next((item for item in records.missed if item.fire.task.shard == shard), None)
    if noted is not None:
        reason = MissReason(noted.reason) if noted.reason in set(MissReason) else MissReason.UNKNOWN
        if noted.held:
            return _Told(Outcome.PENDING, reason, f"There is no verdict yet: {noted.detail}.")
        return _Told(Outcome.MISSED, reason, f"It was missed ({reason}): {noted.detail}.")
    if row is not None:
        return _Told(
            Outcome.PENDING, None, f"Its row says {row.state}, and there is no sign of life; look again later."
        )
    return _unrecorded(version, fire_ms, records.mark, now_ms)


def _unrecorded(version: JobVersion, fire_ms: int, mark: AuditMark, now_ms: int) -> _Told:
    decide_ms = fire_ms + settle_delay_ms(version.spec)
    if now_ms < fire_ms:
        return _Told(Outcome.PENDING, None, f"It is due in the future, at {rfc3339(fire_ms)}.")
    if now_ms < decide_ms:
        said = f"Nothing is known of it yet. Its grace_s is {version.spec.grace_s}: it may still run"
        return _Told(Outcome.PENDING, None, f"{said}; by {rfc3339(decide_ms)} its fate has to be known.")
    if mark.decided_ms < decide_ms:
        behind_s = (now_ms - mark.decided_ms) // 1000
        how = f"is {behind_s} s behind" if mark.decided_ms else "has not begun"
        return _Told(Outcome.PENDING, None, f"There is no row, and no verdict yet: the auditor {how}.")
    if fire_ms < mark.known_from_ms:
        said = (
            f"Nothing can be told of fires before {rfc3339(mark.known_from_ms)}: auditing began later, or the rows of"
        )
        return _Told(Outcome.PENDING, MissReason.UNKNOWN, f"{said} that time were removed.")
    for begin_ms, end_ms in mark.gaps:
        if begin_ms <= fire_ms <= end_ms:
            said = f"It was missed: no leader worked from {rfc3339(begin_ms)} to {rfc3339(end_ms)}."
            return _Told(Outcome.MISSED, MissReason.PLATFORM_DOWN, said)
    return _Told(
        Outcome.MISSED, MissReason.UNKNOWN, "It was missed: there is no row, and it was one of too many to list."
    )


def _ran(attempts: Sequence[Run]) -> str:
    """Say how a fire ran, by its newest attempt that was not left out."""
    *before, run = attempts
    if run.state is RunState.SKIPPED and before:
        return f"{_ran(before)} Attempt {run.key.attempt} was skipped (reason: {run.reason})."
    return f"It ran on {run.worker or 'no worker'}: {_state_words(run)}."


def _state_words(run: Run) -> str:
    code = "" if run.exit_code is None else f", exit code {run.exit_code}"
    reason = "" if run.reason is None else f" ({run.reason})"
    again = "" if run.key.attempt == 1 else f", attempt {run.key.attempt}"
    return f"{run.state}{reason}{code}{again}"


def _fate(run: Run) -> Fate:
    fire = Fire(run.key.task, run.key.fire_ms)
    return Fate(fire, run.key.attempt, run.state, run.trigger, run.worker, run.generation, run.reason, run.claimed_ms)


def with_pause_reason(answer: Answer, versions: Sequence[JobVersion], reason: str) -> Answer:
    """Return the answer with why the job is paused now (`reason`, may be empty), if it speaks of this very pause."""
    if answer.reason is not MissReason.PAUSED or not reason:
        return answer
    active = [span for span in spans(versions) if span.version.state is JobState.ACTIVE]
    if active and active[-1].begin_ms >= answer.fire_ms:
        # The job was resumed since.
        return answer
    return replace(answer, words=f"{answer.words} It was {reason}.")


# ------------------------------------------------------------------------------------------------------------ use cases


class Answers:
    """What people may ask about the past."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def why(self, job_id: int, *, at_ms: int | None = None) -> Answer:
        """Return what became of the job's fire at that instant (now, unless told), or of the last one before it.

        Raises NotFoundError. The ledger has the last word: a row that has arrived since counts at once.
        """
        now_ms = self._clock.now_ms()
        asked_ms = now_ms if at_ms is None else at_ms
        job = self._store.jobs.get(job_id)
        versions = self._store.audit.versions([job_id]) or [
            JobVersion(job.id, job.generation, job.state, job.updated_ms, job.effective_from_ms, job.spec)
        ]
        place = locate(versions, asked_ms)
        reason = job.state_reason if job.state is JobState.PAUSED else ""
        runs = [] if place.due else self._store.runs.at(job_id, asked_ms)
        if runs:
            place = Place(asked_ms, None, False, None, place.previous_ms, place.next_ms)
            return explain(place, Records(runs, (), AuditMark()), now_ms)
        answer = explain(place, self._records(job_id, place.fire_ms), now_ms)
        return with_pause_reason(answer, versions, reason)

    def missed(self, job_id: int, *, limit: int) -> list[Missed]:
        """Return the job's missed fires, newest first. NotFoundError for a job that does not exist."""
        found = self._store.audit.missed_of(job_id, limit=limit)
        if not found:
            self._store.jobs.get(job_id)
        return found

    def events(self, *, limit: int, kind: str | None = None, subject: str | None = None) -> list[Event]:
        """Return events, newest first."""
        return self._store.events.latest(limit=limit, kind=kind, subject=subject)

    def _records(self, job_id: int, fire_ms: int | None) -> Records:
        if fire_ms is None:
            return Records((), (), AuditMark())
        # The mark before the rows: a fire that is decided about between the two must not look forgotten.
        mark = self._store.audit.mark()
        missed = self._store.audit.missed_at(job_id, fire_ms)
        return Records(self._store.runs.at(job_id, fire_ms), missed, mark)
