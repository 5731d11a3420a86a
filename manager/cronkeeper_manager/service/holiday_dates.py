"""What is settled when a job is saved: the dates of its holidays, and what `H` is resolved for.

The library knows the holidays of today's law. Their dates are copied into the job, so that a newer library changes
nothing for jobs that are there: a year that was copied once stays as it is for as long as the job names the region.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from cronkeeper.domain.instants import from_ms
from cronkeeper.domain.job import JobSpec

#: Holidays are copied from last year up to so many years ahead …
YEARS_AHEAD = 10
#: … and more years are added by the next save once fewer than this are left.
YEARS_LEFT = 5


def settle(spec: JobSpec, before: JobSpec | None, *, now_ms: int, job_id: int | None) -> JobSpec:
    """Return the spec with its holidays' dates, and with what `H` needs. `before` is the spec that it replaces.

    `job_id` is None for a job that has none yet: its `H` is settled by `with_id`. The spec must have passed the rules.
    """
    regions = () if spec.calendar is None else spec.calendar.holidays
    if not (regions or spec.holiday_dates or spec.spread):
        # As most are: a copy would cost more than all else here.
        return spec if job_id is None else with_id(spec, job_id)
    known = {} if before is None else before.holiday_dates
    year = from_ms(now_ms).year
    dates = {region: _topped_up(region, tuple(known.get(region, ())), year) for region in regions}
    settled = spec.evolve(holiday_dates=dates, spread="")
    return settled if job_id is None else with_id(settled, job_id)


def with_id(spec: JobSpec, job_id: int) -> JobSpec:
    """Return the spec of a job that now has an id: where it has no name, `H` is resolved for the id."""
    if spec.name is None and spec.parsed_schedule().spread:
        return spec.evolve(spread=str(job_id))
    return spec


def region_fault(region: str) -> tuple[str, str] | None:
    """Return what is wrong with a region's name, and a hint; None for one that the library knows."""
    country, _, subdivision = region.partition("-")
    known = _regions()
    if country not in known:
        close = difflib.get_close_matches(country.upper()[:8], known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "write an ISO 3166 code such as DE, or DE-BY"
        return f"{region[:16]!a} is no country whose holidays are known", hint
    if (subdivision or "-" in region) and subdivision not in known[country]:
        listed = ", ".join(f"{country}-{one}" for one in known[country][:12])
        return f"{region[:16]!a} is no region whose holidays are known", f"known are {listed or country}"
    return None


def _topped_up(region: str, known: Sequence[date], year: int) -> tuple[date, ...]:
    last = max(known).year if known else None
    if last is not None and last >= year + YEARS_LEFT:
        return tuple(known)
    first = year - 1 if last is None else last + 1
    return (*known, *_holidays(region, first, year + YEARS_AHEAD))


@lru_cache(maxsize=1)
def _regions() -> dict[str, list[str]]:
    # Imported when somebody asks: most jobs have no calendar, and no service needs the library to start.
    import holidays

    return holidays.list_supported_countries(include_aliases=False)


@lru_cache(maxsize=256)
def _holidays(region: str, first: int, last: int) -> tuple[date, ...]:
    import holidays

    country, _, subdivision = region.partition("-")
    found = holidays.country_holidays(country, subdiv=subdivision or None, years=range(first, last + 1))
    # A holiday may be observed in the year before or after its own.
    return tuple(sorted(day for day in found if first <= day.year <= last))
