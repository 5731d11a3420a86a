"""Shapes of answers, for the OpenAPI document and its tests. The answers themselves are made in `render`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from cronkeeper.domain.job import JobStatus, JobType
from cronkeeper.domain.run import Reason, RunState, Trigger
from cronkeeper.ports import Role
from cronkeeper_api.models import Day, Instant, JobInput
from cronkeeper_manager.auditor import MissReason, Outcome
from cronkeeper_manager.service import By

SelectorText = Annotated[str | None, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})]


class Shape(BaseModel):
    """The base of all answers. More fields may come; none of these may go."""

    model_config = ConfigDict(extra="allow")


class ArtifactAnswer(Shape):
    key: str
    url: str
    sha256: str
    size: int
    filename: str


class LastRunAnswer(Shape):
    id: str
    fire_time: Instant
    state: RunState
    ended_at: Instant | None


class RetryAnswer(Shape):
    limit: int
    backoff_s: int
    max_backoff_s: int
    jitter_s: int
    elsewhere: bool


class DatesAnswer(Shape):
    exclude: list[str]
    include: list[str]


class Job(JobInput):
    """A job: its spec as given or defaulted, and what the server knows of it."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=True)

    id: str
    status: JobStatus
    status_reason: str | None = Field(description="Why it was paused, where nobody asked for that.")
    executable: str = Field(description="The command line, or the URL of the file in the object store.")
    type: JobType
    schedule: str = Field(description="As given; of several, the one text in which they are saved.")
    holiday_dates: dict[str, list[Day]] = Field(description="The days of the calendar's holidays, by region.")
    named_dates: dict[str, DatesAnswer] = Field(description="The days of the calendars that it names, as copied.")
    secret_versions: dict[str, int] = Field(description="Which version of each secret of `env` its runs get.")
    spread: str = Field(description="What H is resolved for in a job without a name; empty in all others.")
    selector: SelectorText = None
    artifact: ArtifactAnswer | None = Field(default=None, description="The file, pinned by content.")
    generation: int = Field(description="Grows with every change.")
    created_at: Instant
    updated_at: Instant
    next_fire: Instant | None = Field(description="Null while paused or finished, or when no fire time is left.")
    last_run: LastRunAnswer | None
    workers: list[str] = Field(description="The workers that have its tasks.")


class Run(Shape):
    """One recorded start of a task for one fire time."""

    id: str
    job_id: str
    fire_time: Instant = Field(description="When it was due. Never rounded from when it ran.")
    attempt: int
    shard: int
    trigger: Trigger
    state: RunState
    reason: Reason | None
    worker: str | None
    claimed_at: Instant | None
    started_at: Instant | None
    ended_at: Instant | None
    exit_code: int | None
    signal: int | None
    autonomous: bool = Field(description="Started while no fence could be reached.")
    output_tail: str
    output_bytes: int
    cancel_requested: bool


class ExistingRun(Shape):
    run_id: str = Field(description="The newest attempt.")
    fire_time: Instant
    shard: int
    state: RunState
    reason: Reason | None


class Backfill(Shape):
    """What was (or would be) done to make up for the past."""

    dry_run: bool
    created: list[Run] = Field(description="The new runs, oldest first.")
    existing: list[ExistingRun] = Field(description="What has a row already, and is left alone.")
    unsettled: list[Instant] = Field(description="Fires whose grace is not over: they are left to the schedule.")


class Forecast(Shape):
    next: list[Instant]
    words: str
    notes: list[str]


class BucketAnswer(Shape):
    at: Instant
    fires: float = Field(description="Expected starts; a fire with jitter counts in parts.")
    load: float = Field(description="How many runs are in progress on average.")


class HerdSchedule(Shape):
    schedule: str
    timezone: str
    tasks: int


class HerdAnswer(Shape):
    at: Instant
    fires: float
    schedules: list[HerdSchedule] = Field(description="What fires then, most tasks first; five at most.")


class FleetForecast(Shape):
    """What the fleet is expected to do."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    begin: Instant = Field(alias="from")
    end: Instant = Field(alias="to")
    by: By
    jobs: int
    tasks: int
    unmeasured: int = Field(description="Tasks without a load, as their job's last run has no known duration.")
    buckets: list[BucketAnswer] = Field(description="Each minute or hour (UTC).")
    herds: list[HerdAnswer] = Field(
        description="Minutes with three times the mean or more, fullest first; five at most."
    )
    quietest: list[BucketAnswer] = Field(description="The minutes or hours with the fewest starts.")
    quiet_minutes: list[int] = Field(description="The minutes of the hour with the fewest starts: for new jobs.")


class Why(Shape):
    """What became of a fire."""

    fire_time: Instant = Field(description="The fire that is spoken of; the instant itself where there is none.")
    due: bool = Field(description="Whether it was due at the very instant that was asked for.")
    decision: Outcome = Field(description="`pending` is: not known yet.")
    reason: MissReason | None
    words: str = Field(description="What happened, and what to do next.")
    runs: list[Run]
    previous_fire: Instant | None
    next_fire: Instant | None


class Missed(Shape):
    """A fire that was due, and has no run and no skip."""

    job_id: str
    shard: int
    fire_time: Instant
    reason: MissReason
    detail: str
    noted_at: Instant


class Event(Shape):
    """Something a person may want to know later."""

    at: Instant
    kind: str
    subject: str
    detail: str


class Worker(Shape):
    id: str
    host: str
    state: Literal["up", "cordoned", "draining", "lost"]
    labels: dict[str, str]
    capacity: int
    tasks: int
    version: str
    last_seen: Instant | None
    clock_offset_ms: int | None


class MoveAnswer(Shape):
    model_config = ConfigDict(extra="allow", populate_by_name=True)

    task: str
    source: str | None = Field(alias="from")
    to: str | None
    reason: str


class Moves(Shape):
    moves: list[MoveAnswer]


class Plan(Moves):
    unplaced: dict[str, str] = Field(description="Tasks that would have no worker, and why.")
    load: dict[str, float] = Field(description="Expected fires a minute of each worker afterwards.")


class QuotasAnswer(Shape):
    max_jobs: int | None
    max_fires_per_minute: float | None
    min_interval_s: int | None
    max_artifact_bytes: int | None
    max_creates_per_minute: int | None


class UsageAnswer(Shape):
    jobs: int
    fires_per_minute: float
    artifact_bytes: int


class Namespace(Shape):
    """What is allowed in a namespace, and what it holds."""

    name: str
    run_as: list[str] | None
    quotas: QuotasAnswer
    usage: UsageAnswer = Field(description="Of the jobs that are not finished.")
    updated_at: Instant | None = Field(description="When it was decided; null: never.")


class Token(Shape):
    id: str
    name: str
    role: Role
    namespaces: list[str] = Field(description="The namespaces that it is good for; `*` for all of them.")
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None


class NewToken(Token):
    token: str = Field(description="The secret. It is shown this once.")


class Secret(Shape):
    """A secret, without its value."""

    name: str
    namespace: str
    version: int = Field(description="Grows with each new value.")
    updated_at: Instant
    updated_by: str = Field(description="The name of the token that set it.")


class SavedSecret(Secret):
    changed_jobs: list[str] = Field(description="The ids of the jobs that got the new value.")


class FieldChange(Shape):
    before: Any = Field(alias="from")
    to: Any


class ChangeAnswer(Shape):
    name: str
    id: str | None
    fields: dict[str, FieldChange] | None = None
    next_before: list[Instant] | None = None
    next_after: list[Instant] | None = None


class NamedJob(Shape):
    name: str
    id: str


class Applied(Shape):
    dry_run: bool
    created: list[ChangeAnswer]
    changed: list[ChangeAnswer]
    unchanged: list[NamedJob]
    pruned: list[ChangeAnswer]


class NamedCalendar(Shape):
    namespace: str
    name: str
    description: str
    exclude: list[str] = Field(description="In order; three days and more in a row are a range.")
    include: list[str]
    generation: int = Field(description="Grows with every change.")
    created_at: Instant
    updated_at: Instant


class AffectedJob(Shape):
    id: str
    name: str | None
    next_before: list[Instant]
    next_after: list[Instant] = Field(description="Empty: the job would never fire again.")


class CalendarChange(Shape):
    calendar: NamedCalendar
    dry_run: bool
    created: bool
    changed: int = Field(description="How many jobs were saved anew, or would be.")
    remaining: int = Field(description="How many are left: the same request again goes on with them.")
    jobs: list[AffectedJob] = Field(description="Up to 20 of them.")


class CalendarRefresh(Shape):
    dry_run: bool
    looked: int = Field(description="How many jobs were looked at.")
    changed: int = Field(description="How many of them were saved anew, or would be.")
    jobs: list[AffectedJob] = Field(description="Up to 20 of them.")
    left: list[str] = Field(description="Jobs that need years of a region that is known no longer.")
    after: str | None = Field(description="Where the next page begins; null after the last.")


class Health(Shape):
    status: str


class FieldFault(Shape):
    field: str
    message: str
    hint: str


class Problem(Shape):
    """RFC 9457. `type` is stable; /docs explains each."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="The request's id, also in X-Request-Id.")
    errors: list[FieldFault]


COMPONENTS: tuple[type[BaseModel], ...] = (
    Job,
    Run,
    Backfill,
    Forecast,
    FleetForecast,
    Why,
    Missed,
    Event,
    Worker,
    Moves,
    Plan,
    Namespace,
    Token,
    NewToken,
    Secret,
    SavedSecret,
    Applied,
    NamedCalendar,
    CalendarChange,
    CalendarRefresh,
    Health,
    Problem,
)
