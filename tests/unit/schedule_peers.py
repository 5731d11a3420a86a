"""Other people's evaluators of cron expressions, each behind one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from cron_converter import Cron
from croniter import croniter

_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Fields:
    """The five fields of an expression, as written."""

    minute: str
    hour: str
    day: str
    month: str
    weekday: str

    def __str__(self) -> str:
        return f"{self.minute} {self.hour} {self.day} {self.month} {self.weekday}"

    @property
    def all(self) -> tuple[str, ...]:
        """The fields in their order."""
        return self.minute, self.hour, self.day, self.month, self.weekday

    @property
    def both_days(self) -> bool:
        """Whether both day fields say something."""
        return self.day != "*" and self.weekday != "*"

    @property
    def day_star(self) -> bool:
        """Whether a day field starts with a star, which to cron means that both must match."""
        return self.day.startswith("*") or self.weekday.startswith("*")


@dataclass(frozen=True, slots=True)
class Peer:
    """One library: `fires(fields, zone, start_s, until_s)` gives epoch s in (start, until]."""

    name: str
    fires: Callable[[Fields, ZoneInfo, int, int], list[int]]


def _croniter(fields: Fields, zone: ZoneInfo, start_s: int, until_s: int) -> list[int]:
    found = []
    walk = croniter(str(fields), datetime.fromtimestamp(start_s, zone), ret_type=datetime)
    while (at := int(walk.get_next(datetime).timestamp())) <= until_s:
        found.append(at)
    return found


def _cron_converter(fields: Fields, zone: ZoneInfo, start_s: int, until_s: int) -> list[int]:
    found = []
    walk = Cron(str(fields)).schedule(datetime.fromtimestamp(start_s, zone))
    while (at := int(walk.next().timestamp())) <= until_s:
        found.append(at)
    return found


def _apscheduler(fields: Fields, zone: ZoneInfo, start_s: int, until_s: int) -> list[int]:
    trigger = CronTrigger(
        minute=fields.minute,
        hour=fields.hour,
        day=fields.day,
        month=fields.month,
        day_of_week=_named(fields.weekday),
        timezone=zone,
    )
    found: list[int] = []
    previous, after = None, datetime.fromtimestamp(start_s + 1, zone)
    while (at := trigger.get_next_fire_time(previous, after)) is not None and at.timestamp() <= until_s:
        found.append(int(at.timestamp()))
        previous, after = at, datetime.fromtimestamp(at.timestamp() + 1, zone)
    return found


def _named(weekday: str) -> str:
    """Write out a field of weekdays by name: to APScheduler 0 is Monday, which its documents call a mistake."""
    if weekday == "*":
        return "*"
    found: set[int] = set()
    for term in weekday.split(","):
        body, _, step = term.partition("/")
        first, _, last = body.partition("-")
        span = range(7) if body == "*" else range(int(first), int(last or first) + 1)
        found |= {day % 7 for day in span[:: int(step or 1)]}
    return ",".join(_NAMES[day] for day in sorted(found))


CRONITER = Peer("croniter", _croniter)
CRON_CONVERTER = Peer("cron-converter", _cron_converter)
APSCHEDULER = Peer("APScheduler", _apscheduler)
PEERS = {peer.name: peer for peer in (CRONITER, CRON_CONVERTER, APSCHEDULER)}
