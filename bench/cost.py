"""Cost of a fire: processor time of the whole system for each of 1,000 fires of one minute, beside bare cron's.

Counted by the kernel's account of all processes: worker, runner, cron and jobs of the node, manager, API, HAProxy,
MariaDB and the three ZooKeeper servers; what they spend in the minute without a fire is taken off. Bare cron's cost
is counted in the same way, in that minute.
"""

from __future__ import annotations

from bench.kit.figures import Figure, Options, ratios
from bench.kit.race import Field, race
from bench.kit.town import stores

_GOAL_MS = 2.5


def run(options: Options) -> list[Figure]:
    """Measure by timer; and, unless it shall be quick, by cron's calls alone."""
    fields = [Field(200)] if options.quick else [Field(1_000), Field(1_000, timers=False)]
    found: list[Figure] = []
    with stores() as on:
        for field in fields:
            done = race(on, field, 1 if options.quick else options.rounds)
            ours, cron = [one.ours.cpu_ms for one in done], [one.cron.cpu_ms for one in done]
            found += [
                Figure(f"{field.words}: processor time a fire", "ms", tuple(ours), _GOAL_MS),
                Figure(f"{field.words}: bare cron's", "ms", tuple(cron)),
                ratios(f"{field.words}: ÷ bare cron's", ours, cron, 1.0),
            ]
    return found
