"""The one known hole of the protocol: every kind in which the searches show it, and the shortest ways to the first.

One of two starts was made by a worker that was isolated from both fences (autonomous), or had been declared lost and
had not looked at both stores since (outdated); the other one by a fence that it did not ask. No kind has two
rightful starts, and none two starts by MySQL's row: such a pair is no hole, but a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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


class Way(NamedTuple):
    """A shortest way to a kind with one fire: the troubles that it takes, of each of KINDS, and its steps."""

    troubles: tuple[int, ...]
    steps: Sequence[str]


#: With three troubles, the first six, and with four. None comes with fewer.
DEEPER: Mapping[str, Way] = {
    "I2 autonomous and outdated_mysql": Way(
        (0, 0, 1, 2, 0),
        [
            "fire 1 falls due",
            "worker 0 is paused",
            "worker 0 is declared lost",
            "worker 0 goes on",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 0 claims fire 1 attempt 1 in MySQL",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it,; ZooKeeper does not answer",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 zookeeper and autonomous": Way(
        (0, 2, 0, 1, 0),
        [
            "fire 1 falls due",
            "worker 0 is cut from MySQL",
            "worker 0 is cut from ZooKeeper",
            "worker 0 claims fire 1 attempt 1 without any fence",
            "worker 0 starts fire 1 attempt 1",
            "worker 0 is declared lost",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 zookeeper and outdated_autonomous": Way(
        (0, 2, 0, 1, 0),
        [
            "fire 1 falls due",
            "worker 0 is cut from MySQL",
            "worker 0 is cut from ZooKeeper",
            "worker 0 is declared lost",
            "worker 0 claims fire 1 attempt 1 without any fence",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 zookeeper and outdated_zookeeper": Way(
        (0, 0, 1, 2, 0),
        [
            "fire 1 falls due",
            "worker 0 is paused",
            "worker 0 is declared lost",
            "worker 0 goes on",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 0 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 0 starts fire 1 attempt 1",
            "worker 0 reports",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 outdated_mysql and outdated_autonomous": Way(
        (0, 2, 1, 0, 0),
        [
            "fire 1 falls due",
            "worker 0 is cut from MySQL",
            "worker 0 is cut from ZooKeeper",
            "worker 0 is declared lost",
            "worker 0 claims fire 1 attempt 1 without any fence",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 1 is paused",
            "worker 1 is declared lost",
            "worker 1 goes on",
            "worker 1 claims fire 1 attempt 1 in MySQL",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 outdated_mysql and outdated_zookeeper": Way(
        (0, 0, 2, 1, 0),
        [
            "fire 1 falls due",
            "worker 0 is paused",
            "worker 0 is declared lost",
            "worker 0 goes on",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 0 claims fire 1 attempt 1 in MySQL",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 is paused",
            "worker 1 is declared lost",
            "worker 1 goes on",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 autonomous and outdated_zookeeper": Way(
        (0, 2, 0, 2, 0),
        [
            "fire 1 falls due",
            "worker 0 is cut from MySQL",
            "worker 0 is cut from ZooKeeper",
            "worker 0 is declared lost",
            "worker 0 has ZooKeeper again",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 0 claims fire 1 attempt 1 in ZooKeeper",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it,; ZooKeeper does not answer",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 outdated_zookeeper and outdated_autonomous": Way(
        (0, 2, 1, 1, 0),
        [
            "fire 1 falls due",
            "worker 0 is cut from MySQL",
            "worker 0 is cut from ZooKeeper",
            "worker 0 is declared lost",
            "worker 0 claims fire 1 attempt 1 without any fence",
            "worker 0 starts fire 1 attempt 1",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 1 is paused",
            "worker 1 is declared lost",
            "worker 1 goes on",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
    "I2 outdated_zookeeper": Way(
        (0, 0, 2, 2, 0),
        [
            "fire 1 falls due",
            "worker 0 is paused",
            "worker 0 is declared lost",
            "worker 0 goes on",
            "worker 1 is assigned",
            "worker 1 takes over",
            "worker 0 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 0 starts fire 1 attempt 1",
            "worker 0 reports",
            "worker 1 is paused",
            "worker 1 is declared lost",
            "worker 1 goes on",
            "worker 1 claims fire 1 attempt 1; MySQL never hears it, in ZooKeeper",
            "worker 1 starts fire 1 attempt 1",
        ],
    ),
}
HOLE = frozenset({*SHORTEST, *DEEPER})
#: With four troubles two more come, which are no part of it. Both workers may be without any fence: that is the hole,
#: too, but with fewer troubles it would tell of a fence that is not asked, so it is not taken for it.
BOTH_ALONE = frozenset({"I2 autonomous", "I2 autonomous and outdated_autonomous"})
#: And a second attempt may be granted by each fence: by MySQL to who was told to run a lost run again, and by ZooKeeper
#: to who knows from its own node's death that the first one is lost, and is not heard by MySQL. No fence knows of both.
SECOND_ATTEMPT = "I2 mysql and zookeeper"
SECOND_ATTEMPT_WAY = Way(
    (2, 0, 0, 1, 1),
    [
        "fire 1 falls due",
        "worker 0 claims fire 1 attempt 1 in MySQL",
        "worker 0 starts fire 1 attempt 1",
        "the daemon of worker 0 dies",
        "worker 0 is declared lost",
        "worker 0 starts again",
        "worker 1 is assigned",
        "worker 1 takes over",
        "worker 1 is revoked",
        "worker 1 claims fire 1 attempt 2 in MySQL",
        "worker 1 lets go",
        "worker 0 is assigned",
        "worker 0 says yes again",
        "the node of worker 0 dies",
        "worker 0 starts again",
        "worker 0 claims fire 1 attempt 2; MySQL never hears it, in ZooKeeper",
        "worker 0 starts fire 1 attempt 2",
        "worker 1 starts fire 1 attempt 2",
    ],
)


def is_hole(kind: str) -> bool:
    """Say whether a violation is the known one."""
    return kind in HOLE
