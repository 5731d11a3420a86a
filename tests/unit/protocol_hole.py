"""The one known hole of the protocol: every kind in which the searches show it, and the shortest ways to the first.

One of two starts was made by a worker that was isolated from both fences (autonomous), or had been declared lost and
had not looked at both stores since (outdated); the other one by a fence that it did not ask. No kind has two
rightful starts, and none two starts by MySQL's row: such a pair is no hole, but a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: With two troubles, and one fire: the shortest way to each kind.
SHORTEST: Mapping[str, Sequence[str]] = {
    "I2 mysql and autonomous": [
        "fire 1 falls due",
        "worker 0 is cut from MySQL",
        "worker 0 is cut from ZooKeeper",
        "worker 0 claims fire 1 attempt 1 without any fence",
        "worker 0 starts fire 1 attempt 1",
        "worker 0 is declared lost",
        "worker 1 is assigned",
        "worker 1 takes over",
        "worker 1 claims fire 1 attempt 1 in MySQL",
        "worker 1 starts fire 1 attempt 1",
    ],
    "I2 mysql and outdated_autonomous": [
        "fire 1 falls due",
        "worker 0 is cut from MySQL",
        "worker 0 is cut from ZooKeeper",
        "worker 0 is declared lost",
        "worker 0 claims fire 1 attempt 1 without any fence",
        "worker 0 starts fire 1 attempt 1",
        "worker 1 is assigned",
        "worker 1 takes over",
        "worker 1 claims fire 1 attempt 1 in MySQL",
        "worker 1 starts fire 1 attempt 1",
    ],
    "I2 mysql and outdated_zookeeper": [
        "fire 1 falls due",
        "the daemon of worker 0 dies",
        "worker 0 is declared lost",
        "worker 0 starts again",
        "worker 1 is assigned",
        "worker 1 takes over",
        "worker 0 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
        "worker 0 starts fire 1 attempt 1",
        "worker 1 claims fire 1 attempt 1 in MySQL",
        "worker 1 starts fire 1 attempt 1",
    ],
    "I2 zookeeper and outdated_mysql": [
        "fire 1 falls due",
        "the daemon of worker 0 dies",
        "worker 0 is declared lost",
        "worker 0 starts again",
        "worker 1 is assigned",
        "worker 1 takes over",
        "worker 0 claims fire 1 attempt 1 in MySQL",
        "worker 0 starts fire 1 attempt 1",
        "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
        "worker 1 starts fire 1 attempt 1",
    ],
    "Z outdated_autonomous": [
        "fire 1 falls due",
        "worker 0 is cut from MySQL",
        "worker 0 claims fire 1 attempt 1 in ZooKeeper",
        "worker 0 is cut from ZooKeeper",
        "worker 0 is declared lost",
        "worker 0 claims fire 1 attempt 1 without any fence",
        "worker 0 starts fire 1 attempt 1",
    ],
    "Z outdated_zookeeper": [
        "fire 1 falls due",
        "worker 0 claims fire 1 attempt 1 in MySQL",
        "the daemon of worker 0 dies",
        "worker 0 is declared lost",
        "worker 0 starts again",
        "worker 0 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
        "worker 0 starts fire 1 attempt 1",
    ],
}
#: With three troubles and more.
DEEPER = frozenset(
    {
        "I2 autonomous and outdated_mysql",
        "I2 autonomous and outdated_zookeeper",
        "I2 outdated_mysql and outdated_autonomous",
        "I2 outdated_mysql and outdated_zookeeper",
        "I2 outdated_zookeeper",
        "I2 outdated_zookeeper and outdated_autonomous",
        "I2 zookeeper and autonomous",
        "I2 zookeeper and outdated_autonomous",
        "I2 zookeeper and outdated_zookeeper",
    }
)
HOLE = frozenset({*SHORTEST, *DEEPER})


def is_hole(kind: str) -> bool:
    """Say whether a violation is the known one."""
    return kind in HOLE
