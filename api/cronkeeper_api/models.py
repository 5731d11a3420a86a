"""Shapes of requests: what a job or a question may look like. Meaning is checked by the use cases' rules.

Strict: "5" is no number, true is no number, an unknown field is an error. These models are the source of the OpenAPI
document, too, so every field says what it is.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from cronkeeper.domain.calendars import MAX_BLACKOUTS, MAX_DATES, MAX_REGIONS, OnExcluded, Weekday
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.job import (
    DEFAULT_GRACE_S,
    DEFAULT_NAMESPACE,
    MAX_SHARDS,
    Concurrency,
    Delivery,
    JobType,
    Misfire,
    OnWorkerLoss,
)
from cronkeeper.domain.labels import KEY, VALUE
from cronkeeper.domain.named_calendars import MAX_DAYS, MAX_NAMED
from cronkeeper.domain.schedule import MAX_SCHEDULE_LENGTH, MAX_SCHEDULES, Fold, Gap
from cronkeeper.domain.secret_env import MAX_VALUE_BYTES
from cronkeeper_api.env_values import EnvValue
from cronkeeper_manager.service import rules
from cronkeeper_manager.service.backfill import MAX_PARALLEL

DAY_S = 86_400
MAX_JOBS = 10_000

Text = Annotated[str, StringConstraints(max_length=rules.MAX_TEXT_BYTES)]
Seconds = Annotated[int, Field(ge=1, le=31 * DAY_S)]


def _instant(text: str) -> str:
    try:
        parse_rfc3339(text)
    except ValueError as exc:
        raise PydanticCustomError("instant", "{fault}", {"fault": str(exc)}) from exc
    return text


def _selector(value: Any) -> Any:
    """Turn an object of equalities into the string form; anything else is left to the next check."""
    if not isinstance(value, dict):
        return value
    if not value:
        raise PydanticCustomError("selector", "is empty: an empty selector selects nothing", {"hint": "leave it out"})
    for key, item in value.items():
        # Checked before they are put together: a comma in a value would make a second requirement of it.
        if not KEY.fullmatch(key) or not isinstance(item, str) or not VALUE.fullmatch(item):
            raise PydanticCustomError(
                "selector",
                "{key} is not a label with its value",
                {"key": rules.shown(key), "hint": 'write {"zone": "eu"}'},
            )
    return ",".join(f"{key}={item}" for key, item in sorted(value.items()))


def _several(value: Any) -> Any:
    """Write a list of schedules as the one text that they are saved as."""
    if isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value):
        return "; ".join(text.strip() for text in value)
    return value


def _day(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError as exc:
        raise PydanticCustomError("day", "is not a day", {"hint": "write it as 2026-12-24"}) from exc
    return text


Day = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", max_length=10),
    AfterValidator(_day),
    WithJsonSchema({"type": "string", "format": "date"}),
]
Span = Annotated[str, StringConstraints(max_length=21), WithJsonSchema({"type": "string", "maxLength": 21})]
Schedule = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_SCHEDULE_LENGTH),
    BeforeValidator(_several),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_SCHEDULE_LENGTH},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "maxItems": MAX_SCHEDULES,
                },
            ]
        }
    ),
]
Instant = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Selector = Annotated[
    Text,
    BeforeValidator(_selector),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
            ]
        }
    ),
]


class Model(BaseModel):
    """The base of all requests."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RetryInput(Model):
    """What happens after a failed attempt."""

    limit: int = Field(default=0, ge=0, le=100, description="How many retries may follow the first attempt.")
    backoff_s: int = Field(default=10, ge=1, le=DAY_S, description="Seconds before the first retry; doubles with each.")
    max_backoff_s: int | None = Field(
        default=None,
        ge=1,
        le=7 * DAY_S,
        description="The longest wait, in seconds; 3600 (or backoff_s, if more) unless given.",
    )
    jitter_s: int = Field(
        default=0,
        ge=0,
        le=DAY_S,
        description="Up to so many seconds are added to each wait, so that what failed together is not tried together.",
    )
    elsewhere: bool = Field(
        default=False, description="Move the task to another worker that fits, if there is one, before the retry."
    )


class DstInput(Model):
    """What happens when the clock is changed; Debian cron's way unless given."""

    gap: Annotated[Gap | None, Field(strict=False)] = Field(
        default=None, description="A local time that does not exist: run when the gap ends, or skip."
    )
    fold: Annotated[Fold | None, Field(strict=False)] = Field(
        default=None, description="A local time that exists twice: the first, the second, or both."
    )


class LimitsInput(Model):
    """What a run may use."""

    cpu: int | None = Field(default=None, ge=1, le=31 * DAY_S, description="Processor seconds.")
    memory_mb: int | None = Field(default=None, ge=1, le=4_194_304, description="Memory of each process, in MiB.")
    output_kb: int = Field(default=1024, ge=1, le=65_536, description="Output that is kept, in KiB.")


class CalendarInput(Model):
    """Days without fires, in the job's zone."""

    holidays: list[Annotated[str, StringConstraints(max_length=16)]] = Field(
        default=[],
        max_length=MAX_REGIONS,
        description="Countries and regions whose public holidays are excluded, such as DE-BY.",
    )
    exclude: list[Day] = Field(default=[], max_length=MAX_DATES, description="Days that are excluded.")
    exclude_weekdays: list[Annotated[Weekday, Field(strict=False)]] = Field(
        default=[], max_length=7, description="Days of the week that are excluded."
    )
    include: list[Day] = Field(
        default=[], max_length=MAX_DATES, description="Days that are allowed, whatever excludes them."
    )
    on_excluded: Annotated[OnExcluded, Field(strict=False)] = Field(
        default=OnExcluded.SKIP,
        description="What becomes of a fire on an excluded day: dropped, or moved to the next or previous allowed one.",
    )
    named: list[Annotated[str, StringConstraints(max_length=128)]] = Field(
        default=[], max_length=MAX_NAMED, description="Calendars of the job's namespace, by name (see /calendars)."
    )


class BlackoutInput(Model):
    """A time in which nothing is due."""

    begin: Instant = Field(alias="from", description="The first instant without fires.")
    end: Instant = Field(alias="to", description="The first instant with fires again.")


class JobInput(Model):
    """A job. Only executable, schedule and type are required."""

    executable: str = Field(
        min_length=1,
        description="A command line; or, for a script or binary, the file in BASE64 (with filename) or its URL in the "
        "object store.",
        examples=["ls -la"],
    )
    schedule: Schedule = Field(
        description="A crontab expression of 5 fields (6 with seconds first), @hourly and the like, @every 30s, or "
        "@at 2027-01-01T00:00:00Z; several of them as a list, or in one text with '; ' between them. "
        "Or @reboot: once at each start of each node that fits.",
        examples=["5 * * * *"],
    )
    type: Annotated[JobType, Field(strict=False)] = Field(description="What the executable is.", examples=["command"])
    filename: str | None = Field(
        default=None, max_length=128, description="The name of a script or binary on the node."
    )
    name: str | None = Field(default=None, min_length=1, max_length=128, description="Unique in its namespace.")
    namespace: str = Field(
        default=DEFAULT_NAMESPACE, min_length=1, max_length=63, description="Where the name is unique."
    )
    description: Text = Field(default="", description="For people; may have several lines.")
    owner: str = Field(default="", max_length=256, description="Whom to ask about the job.")
    timezone: str = Field(
        default="UTC", min_length=1, max_length=64, description="An IANA zone, such as Europe/Berlin."
    )
    args: list[Text] = Field(default=[], max_length=rules.MAX_ARGS, description="Arguments; no shell reads them.")
    env: dict[str, EnvValue] = Field(
        default={},
        max_length=rules.MAX_ENV,
        description='Environment variables: texts, or {"secret": "name"}; with "as": "file" the path of a file.',
    )
    run_as: str | None = Field(default=None, min_length=1, max_length=64, description="The account on the node.")
    timeout_s: Seconds | None = Field(default=None, description="A run is ended after so many seconds.")
    retry: RetryInput = Field(default=RetryInput(), description="Retries of failed runs.")
    pause_after_failures: int | None = Field(
        default=None, ge=1, le=1000, description="The job is paused after so many failed fire times in a row."
    )
    concurrency: Annotated[Concurrency, Field(strict=False)] = Field(
        default=Concurrency.FORBID, description="What a fire does while an earlier run is active."
    )
    misfire: Annotated[Misfire, Field(strict=False)] = Field(
        default=Misfire.LATEST, description="What becomes of fires that are late but within their grace."
    )
    grace_s: Seconds = Field(default=DEFAULT_GRACE_S, description="How late a fire may start, in seconds.")
    delivery: Annotated[Delivery, Field(strict=False)] = Field(
        default=Delivery.AT_LEAST_ONCE, description="What decides while no fence can be reached."
    )
    on_worker_loss: Annotated[OnWorkerLoss, Field(strict=False)] | None = Field(
        default=None,
        description="What becomes of a run whose worker was lost; `hold` under `at_most_once`, `rerun` otherwise.",
    )
    dst: DstInput = Field(default=DstInput(), description="The rule for clock changes.")
    jitter_s: int = Field(
        default=0, ge=0, le=DAY_S, description="Each run starts up to so many seconds late, evenly spread."
    )
    starts_at: Instant | None = Field(default=None, description="No fire before this instant.")
    ends_at: Instant | None = Field(default=None, description="No fire at or after this instant.")
    calendar: CalendarInput | None = Field(default=None, description="Days without fires; none unless given.")
    blackouts: list[BlackoutInput] = Field(
        default=[], max_length=MAX_BLACKOUTS, description="Times in which nothing is due."
    )
    selector: Selector | None = Field(
        default=None, description="Which workers may have it, such as zone=eu,disk in (ssd,nvme)."
    )
    shards: int = Field(default=1, ge=1, le=MAX_SHARDS, description="How many tasks the job has, each on its own.")
    limits: LimitsInput = Field(default=LimitsInput(), description="Bounds of each run.")
    labels: dict[str, Annotated[str, StringConstraints(max_length=63)]] = Field(
        default={}, max_length=rules.MAX_LABELS, description="For finding jobs."
    )


class ApplyInput(Model):
    """Jobs to be brought to these specs, by name."""

    jobs: list[dict[str, Any]] = Field(max_length=MAX_JOBS, description="Jobs as for POST /jobs, each with a name.")
    namespace: str = Field(
        default=DEFAULT_NAMESPACE, min_length=1, max_length=63, description="Where all of them live."
    )
    prune: Selector | None = Field(
        default=None,
        description="Finish named jobs that match this selector over their labels and are not in the list.",
    )


class RunInput(Model):
    """A run on demand."""

    shard: int | None = Field(default=None, ge=0, lt=MAX_SHARDS, description="Only this shard; all unless given.")


class BackfillInput(Model):
    """A wish to make up for the past."""

    begin: Instant = Field(alias="from", description="The first instant of the range.")
    end: Instant = Field(alias="to", description="The first instant after the range.")
    max_parallel: int = Field(
        default=1,
        ge=1,
        le=MAX_PARALLEL,
        description="How many runs of each shard may go at once; more than 1 takes a job whose concurrency is allow.",
    )
    rerun_skipped: bool = Field(default=False, description="Run what was skipped, too, as the next attempt.")
    dry_run: bool = Field(default=False, description="Only show what would be created.")


class ReassignInput(Model):
    """A wish to move a job."""

    worker: str = Field(min_length=1, max_length=63, description="The worker to move to.")
    dry_run: bool = Field(default=False, description="Only show the moves.")


class DrainInput(Model):
    """A wish to empty a worker."""

    dry_run: bool = Field(default=False, description="Only show the moves.")


class NewWorkerInput(Model):
    """A worker that might join."""

    labels: dict[str, Annotated[str, StringConstraints(max_length=63)]] = Field(default={}, max_length=rules.MAX_LABELS)
    capacity: int = Field(default=10_000, ge=1, le=10_000_000, description="Fires a minute that it may take.")


class PlanInput(Model):
    """What if …?"""

    lose: list[str] = Field(default=[], max_length=1000, description="Workers that die.")
    drain: list[str] = Field(default=[], max_length=1000, description="Workers that are drained.")
    add: list[NewWorkerInput] = Field(default=[], max_length=1000, description="Workers that join.")


class SecretInput(Model):
    """A secret's new value."""

    value: str = Field(
        min_length=1, max_length=MAX_VALUE_BYTES, description="The value, without NUL; up to 4096 bytes of UTF-8."
    )


class NamedCalendarInput(Model):
    """A calendar. Days are written as 2026-12-24, or 2026-12-24/2027-01-02 for all from the first to the last."""

    description: Text = Field(default="", description="For people; may have several lines.")
    exclude: list[Span] = Field(default=[], max_length=MAX_DAYS, description="Days on which jobs do not fire.")
    include: list[Span] = Field(
        default=[], max_length=MAX_DAYS, description="Days that are allowed although something excludes them."
    )
