"""What can be done to a fleet, each with its way back.

An `Operation` is a value: a kind of fault, the hosts that it hits, and how. `strike` does it to a fleet and returns
what takes it back.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from tests.faults.checker.history import FaultKind
from tests.faults.fleet import Fleet
from tests.faults.nemesis_nodes import exhaust_files, fill_disk, slow_disk, step_clock, use_up_inodes
from tests.faults.operation import Healing, Operation
from tests.faults.parts import Part, galera_of, machine, part, runner_pids
from tests.harness.network import Fault
from tests.harness.processes import ServerError

__all__ = ["STRIKES", "Healing", "Operation", "bridge", "majority_ring", "random_half", "strike", "wait_well"]

_HEALTHY_S = 60.0
_QUORUM_S = 10.0


def strike(fleet: Fleet, operation: Operation) -> Fault:
    """Do it. The calling thread must be in the fleet's network, and be the one that outlives the fault's processes."""
    return STRIKES[operation.kind](fleet, operation)


# ------------------------------------------------------------------------------------------------ processes


def _kill(fleet: Fleet, operation: Operation) -> Fault:
    return _down([part(fleet, name) for name in operation.targets])


def _pause(fleet: Fleet, operation: Operation) -> Fault:
    return _paused([part(fleet, name) for name in operation.targets])


def _down_or_paused(fleet: Fleet, operation: Operation) -> Fault:
    """`kill` or `pause`."""
    return _pause(fleet, operation) if operation.how == "pause" else _kill(fleet, operation)


def _kill_node(fleet: Fleet, operation: Operation) -> Fault:
    return _down([machine(fleet, name) for name in operation.targets])


def _pause_node(fleet: Fleet, operation: Operation) -> Fault:
    return _paused([machine(fleet, name) for name in operation.targets])


def _kill_runner(fleet: Fleet, operation: Operation) -> Fault:
    """kill -9 the process that starts and watches the runs; the daemon starts another one."""
    for name in operation.targets:
        for pid in runner_pids(fleet.cluster.nodes[name]):
            os.kill(pid, signal.SIGKILL)
    return Healing()


def _kill_everything(fleet: Fleet, operation: Operation) -> Fault:
    """Power loss: all nodes, managers, API servers and stores at once; the start is in a random order."""
    machines = [machine(fleet, name) for name in fleet.workers]
    others = [part(fleet, name) for name in (*fleet.managers, *fleet.apis, *fleet.stores)]
    everything = [*machines, *others]
    for one in everything:
        one.kill()
    order = list(everything)
    random.Random(operation.seed).shuffle(order)
    return Healing(*(one.start for one in order), lambda: wait_stores(fleet))


def _down(parts: Sequence[Part]) -> Fault:
    parts = [one for one in parts if one.running]
    for one in parts:
        one.kill()
    return Healing(*(one.start for one in parts))


def _paused(parts: Sequence[Part]) -> Fault:
    for one in parts:
        one.pause()
    return Healing(*(one.resume for one in parts))


# --------------------------------------------------------------------------------------------------- network


def _cut_zookeeper(fleet: Fleet, operation: Operation) -> Fault:
    """Both ways; `replies` or `requests`: that way only."""
    return _cut(fleet, operation, fleet.zookeepers)


def _cut_mysql(fleet: Fleet, operation: Operation) -> Fault:
    """Both ways; `replies` or `requests`: that way only."""
    return _cut(fleet, operation, fleet.databases)


def _cut_replies(fleet: Fleet, operation: Operation) -> Fault:
    """What the stores answer gets lost; `zookeeper` or `mysql`: what this one answers."""
    stores = {"": fleet.stores, "zookeeper": fleet.zookeepers, "mysql": fleet.databases}[operation.how]
    return fleet.network.cut(operation.targets, stores, requests=False)


def _cut_all(fleet: Fleet, operation: Operation) -> Fault:
    return _cut(fleet, operation, fleet.network.hosts)


def _partition(fleet: Fleet, operation: Operation) -> Fault:
    """Between the targets and all others; `ring` or `bridge`: among all hosts, see `majority_ring` and `bridge`."""
    names, chance = sorted(fleet.network.hosts), random.Random(operation.seed)
    if operation.how == "ring":
        pairs = majority_ring(names, chance)
    elif operation.how == "bridge":
        pairs = bridge(names, chance)
    else:
        pairs = [(a, b) for a in operation.targets for b in names if b not in operation.targets]
    cuts = [fleet.network.cut([a], [b]) for a, b in pairs]
    return Healing(*(cut.heal for cut in cuts))


def _latency(fleet: Fleet, operation: Operation) -> Fault:
    """200 ms and up to 100 ms more to every store; `loss`: and 5 % of the packets get lost."""
    slow = fleet.network.slow(operation.targets, fleet.stores, delay_s=0.2, jitter_s=0.1, seed=operation.seed)
    if operation.how != "loss":
        return slow
    loss = fleet.network.cut(operation.targets, fleet.stores, probability=0.05)
    return Healing(loss.heal, slow.heal)


def _cut(fleet: Fleet, operation: Operation, peers: Iterable[str]) -> Fault:
    ways = {"": (True, True), "replies": (False, True), "requests": (True, False)}
    requests, replies = ways[operation.how]
    return fleet.network.cut(operation.targets, list(peers), requests=requests, replies=replies)


def random_half(names: Sequence[str], chance: random.Random) -> list[str]:
    """Return one half of the names; the other half is what is left."""
    return sorted(chance.sample(list(names), len(names) // 2))


def majority_ring(names: Sequence[str], chance: random.Random) -> list[tuple[str, str]]:
    """Return the pairs to cut so that every host sees a majority, and no two see the same one."""
    ring = list(names)
    chance.shuffle(ring)
    size = len(ring)
    reach = next(steps for steps in range(size) if 2 * steps + 1 > size / 2)
    return [(ring[a], ring[b]) for a in range(size) for b in range(a + 1, size) if min(b - a, size - (b - a)) > reach]


def bridge(names: Sequence[str], chance: random.Random) -> list[tuple[str, str]]:
    """Return the pairs to cut so that two halves see each other through one host only."""
    order = list(names)
    chance.shuffle(order)
    rest = order[1:]  # the first one is the bridge
    left = rest[: len(rest) // 2]
    return [(a, b) for a in left for b in rest if b not in left]


# ---------------------------------------------------------------------------------------------------- stores


def _lose_quorum(fleet: Fleet, operation: Operation) -> Fault:
    """Kill a majority, the targets; `pause`: stop them."""
    fault = _down_or_paused(fleet, operation)
    return Healing(fault.heal, lambda: _wait_quorum(fleet))


def _wipe_zookeeper(fleet: Fleet, operation: Operation) -> Fault:
    """All members lose their data, sessions and all; they are down from the strike to its healing."""
    members = [part(fleet, name) for name in fleet.zookeepers]
    for member in members:
        member.kill()
    fleet.zookeeper.forget()
    return Healing(*(member.start for member in members), lambda: _wait_quorum(fleet))


def _wait_quorum(fleet: Fleet) -> None:
    """Wait a while for the ensemble; another fault may keep it down."""
    with contextlib.suppress(ServerError):
        fleet.zookeeper.wait_healthy(_QUORUM_S)


def _stop_mysql(fleet: Fleet, operation: Operation) -> Fault:
    """`kill` or `pause`."""
    fault = _down_or_paused(fleet, Operation(operation.kind, ("mysql",), operation.how))
    return Healing(fault.heal, fleet.mariadb.wait_started)


def _stop_galera_member(fleet: Fleet, operation: Operation) -> Fault:
    """`kill` or `pause`; a killed one has joined again once it is healed."""
    fault = _down_or_paused(fleet, operation)
    return Healing(fault.heal, *_synced(fleet, operation.targets))


def _lose_primary(fleet: Fleet, operation: Operation) -> Fault:
    """Part all members from each other, so that none has a majority and every statement is refused."""
    members = fleet.members
    cuts = [fleet.network.cut([a], [b]) for a in members for b in members if a < b]
    return Healing(*(cut.heal for cut in cuts), *_synced(fleet, members))


def _synced(fleet: Fleet, names: Iterable[str]) -> list[Callable[[], None]]:
    galera = galera_of(fleet)
    return [partial(galera.wait_synced, fleet.members.index(name)) for name in names]


def _stop_s3(fleet: Fleet, operation: Operation) -> Fault:
    """`kill` or `pause`; with a liar in front `error`, `slow`, `truncate` or `flip`."""
    if operation.how not in ("", "kill", "pause"):
        fleet.objects.lie(operation.how)
        return Healing(partial(fleet.objects.lie, ""))
    return _down_or_paused(fleet, Operation(operation.kind, ("s3",), operation.how))


def wait_stores(fleet: Fleet) -> None:
    """Return when all stores answer."""
    fleet.zookeeper.wait_healthy(_HEALTHY_S)
    fleet.mariadb.wait_started()
    fleet.objects.wait_started()


def wait_well(fleet: Fleet, timeout_s: float = _HEALTHY_S) -> None:
    """Return when the API is ready, a manager leads, and every worker is up; raise `ServerError` if that fails."""
    deadline = time.monotonic() + timeout_s
    seen: object = None
    while time.monotonic() < deadline:
        try:
            leader, up = fleet.leader(), sorted(fleet.cluster.workers_up())
            if up == fleet.workers:
                return
            seen = (leader, up)
        except (OSError, LookupError, ValueError) as exc:
            seen = exc
        time.sleep(0.25)
    raise ServerError(f"the fleet is not well after {timeout_s:g} s: {seen!r}")


# ------------------------------------------------------------------------------------------------------ cron


def _kill_cron(fleet: Fleet, operation: Operation) -> Fault:
    nodes = [fleet.cluster.nodes[name] for name in operation.targets]
    for node in nodes:
        node.kill_cron()
    return Healing(*(node.start_cron for node in nodes))


def _pause_cron(fleet: Fleet, operation: Operation) -> Fault:
    nodes = [fleet.cluster.nodes[name] for name in operation.targets]
    for node in nodes:
        node.pause_cron()
    return Healing(*(node.resume_cron for node in nodes))


STRIKES: dict[FaultKind, Callable[[Fleet, Operation], Fault]] = {
    FaultKind.WORKER_KILLED: _kill,
    FaultKind.NODE_KILLED: _kill_node,
    FaultKind.WORKER_PAUSED: _pause,
    FaultKind.NODE_PAUSED: _pause_node,
    FaultKind.RUNNER_KILLED: _kill_runner,
    FaultKind.LEADER_KILLED: _kill,
    FaultKind.MANAGER_PAUSED: _pause,
    FaultKind.API_KILLED: _kill,
    FaultKind.EVERYTHING_KILLED: _kill_everything,
    FaultKind.CUT_ZOOKEEPER: _cut_zookeeper,
    FaultKind.CUT_MYSQL: _cut_mysql,
    FaultKind.CUT_REPLIES: _cut_replies,
    FaultKind.CUT_ALL: _cut_all,
    FaultKind.PARTITION: _partition,
    FaultKind.LATENCY: _latency,
    FaultKind.ZOOKEEPER_MEMBER_DOWN: _down_or_paused,
    FaultKind.ZOOKEEPER_QUORUM_LOST: _lose_quorum,
    FaultKind.ZOOKEEPER_WIPED: _wipe_zookeeper,
    FaultKind.MYSQL_DOWN: _stop_mysql,
    FaultKind.GALERA_MEMBER_DOWN: _stop_galera_member,
    FaultKind.GALERA_NO_PRIMARY: _lose_primary,
    FaultKind.S3_DOWN: _stop_s3,
    FaultKind.CRON_DEAD: _kill_cron,
    FaultKind.CRON_PAUSED: _pause_cron,
    FaultKind.CLOCK_STEPPED: step_clock,
    FaultKind.CLOCK_SKEWED: step_clock,
    FaultKind.DISK_FULL: fill_disk,
    FaultKind.INODES_FULL: use_up_inodes,
    FaultKind.SLOW_DISK: slow_disk,
    FaultKind.FILES_EXHAUSTED: exhaust_files,
}

if __name__ == "__main__":
    from tests.faults.random_schedule import main

    sys.exit(main())
