"""What a fleet has to do while it is hurt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.trial import Trial

#: Long enough for a node's failover, short enough that a trial sees what becomes of a fire that was too late.
GRACE_S = 60
LONG_S = 6.0
_SECONDS = ("*/2 * * * * *", "*/3 * * * * *", "*/5 * * * * *", "1-59/4 * * * * *", "*/10 * * * * *", "7-59/6 * * * * *")
_ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
_EVERY = ("@every 3s", "@every 5s", "@every 7s")


@dataclass(frozen=True, slots=True)
class Planned:
    """A job to post: how long its runs last, how they end, and its fields of `POST /jobs`."""

    name: str
    sleep_s: float = 0
    exit_status: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


def plan_std(jobs: int, seed: int) -> list[Planned]:
    """Return the standard load: of each ten jobs one is long, one fails, one is `at_most_once`, one has two shards,
    one has a minute schedule in some zone, one says `@every`, and four just tick; a third of all run every misfire.

    Ten jobs make about two fires a second.
    """
    chance = random.Random(seed)
    return [_plan(number, chance) for number in range(jobs)]


def _plan(number: int, chance: random.Random) -> Planned:
    fields: dict[str, Any] = {"schedule": chance.choice(_SECONDS), "grace_s": GRACE_S}
    if number % 3 == 0:
        fields["misfire"] = "all"
    match number % 10:
        case 1:
            fields["schedule"] = "*/12 * * * * *"
            return Planned(f"long-{number}", LONG_S, 0, fields)
        case 2:
            return Planned(f"failing-{number}", 0, chance.randint(1, 100), fields)
        case 3:
            fields["delivery"] = "at_most_once"
            return Planned(f"once-{number}", 0, 0, fields)
        case 4:
            fields["shards"] = 2
            return Planned(f"sharded-{number}", 0, 0, fields)
        case 5:
            fields |= {"schedule": "* * * * *", "timezone": chance.choice(_ZONES)}
            return Planned(f"minute-{number}", 0, 0, fields)
        case 6:
            fields["schedule"] = chance.choice(_EVERY)
            return Planned(f"every-{number}", 0, 0, fields)
    return Planned(f"tick-{number}", 0, 0, fields)


def std(trial: Trial, *, jobs: int = 20) -> list[str]:
    """Post the standard load, drawn from the trial's seed; return the names, once every job must be known to all."""
    planned = plan_std(jobs, trial.seed)
    for one in planned:
        trial.post(one.name, sleep_s=one.sleep_s, exit_status=one.exit_status, **one.fields)
    for one in planned:
        trial.owner(one.name)
    trial.settle()
    return [one.name for one in planned]
