"""Steady throughput: 300 jobs that fire every second on three workers for five minutes.

Held is what the ledger has as succeeded, a second; lag is from the fire time to the first act of the job's program.
Nothing may be missing: every second, every job has one start and one row.
"""

from __future__ import annotations

import time

from bench.kit.figures import Figure, Options, percentile
from bench.kit.stamps import Stamps
from bench.kit.town import fill, fleet, job, stores
from tests.harness.folders import make_folder, remove_folder

_GOAL_PER_S = 300
_SETTLE_S = 15


def run(options: Options) -> list[Figure]:
    """Measure one stretch; with `quick` 60 jobs for 20 s."""
    jobs, seconds = (60, 20) if options.quick else (_GOAL_PER_S, 300)
    folder = make_folder("steady")
    try:
        with stores() as on, fleet(on, workers=3) as cluster:
            stamps = Stamps(folder)
            fill(cluster, jobs, lambda n: job(f"s-{n}", stamps.command(f"s-{n}"), "* * * * * *", concurrency="allow"))
            time.sleep(_SETTLE_S)
            from_s = int(time.time()) + 2
            time.sleep(from_s + seconds + _SETTLE_S - time.time())
            window = f"`fire_ms` >= {from_s * 1000} AND `fire_ms` < {(from_s + seconds) * 1000}"
            counted = f"SELECT COUNT(*) FROM `runs` WHERE `state` = 'succeeded' AND {window}"
            recorded = int(str(on.mariadb.execute(counted, cluster.database)[0][0]))
            lags = [
                stamp.at_s - stamp.fire_s
                for stamp in stamps.read()
                if stamp.fire_s is not None and from_s <= stamp.fire_s < from_s + seconds
            ]
    finally:
        remove_folder(folder)
    what = f"{jobs} fires a second, three workers, {seconds} s"
    return [
        Figure(f"{what}: recorded a second", "", (recorded / seconds,), float(jobs), at_least=True),
        Figure(f"{what}: lag, median", "s", (percentile(lags, 0.5),)),
        Figure(f"{what}: lag, p99", "s", (percentile(lags, 0.99),), 1.0),
        Figure(f"{what}: lag, last", "s", (max(lags),)),
        Figure(f"{what}: starts missing or doubled", "", (abs(len(lags) - jobs * seconds),), 0),
    ]
