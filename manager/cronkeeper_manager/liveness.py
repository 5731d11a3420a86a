"""Who is alive: from what the two witnesses say now, and what they said before, to a verdict on every worker. PURE.

A worker's witnesses are its ZooKeeper session and its lease row in MySQL. It is lost only when neither has seen it: its
znode has been gone for a grace, and its lease is stale. MySQL counts as silent too once this leader has been unable to
ask it for 15 s. ZooKeeper cannot be silent for a leader: one that cannot ask ZooKeeper leads nothing. A false alarm
costs a move, never a double.

Seconds are boot-clock seconds of this leader; ages of leases are measured by the database's own clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cronkeeper.domain.placement import LEASE_EVERY_S, START_WITHIN_S, Lease

#: A lease of this age was never renewed so long ago: the worker has said goodbye (`LeaseStore.release`).
GOODBYE_S = 365 * 86_400.0
#: ZooKeeper ends a session up to one tick after its timeout; this is its default tick, and the longest in use.
TICK_S = 2.0
#: What a worker left undecided when it died, because a store was just going away, is not older than this.
UNDECIDED_S = 10.0


@dataclass(frozen=True, slots=True)
class LivenessSettings:
    """When somebody is given up. The defaults have a dead node's fire run elsewhere within 10 s."""

    session_s: float = 6.0
    #: How long a znode must be gone.
    grace_s: float = 2.0
    #: From this age on a lease is stale.
    lease_stale_s: float = 6.0
    #: Unable to ask MySQL for so long, this leader counts it as silent.
    mysql_silent_s: float = 15.0
    #: More than this part of the fleet, and at least so many workers, gone within the window: failover pauses.
    brake_share: float = 1 / 3
    brake_least: int = 3
    brake_window_s: float = 60.0
    brake_pause_s: float = 120.0

    @property
    def hold_off_s(self) -> float:
        """For so long after a fresh look at ZooKeeper an absent znode says nothing: everybody may be coming back."""
        return self.session_s + self.grace_s


def check_settings(settings: LivenessSettings) -> list[str]:
    """Return what does not add up, in sentences that name the setting; an empty list when all is well."""
    faults = []
    if settings.grace_s < 1:
        faults.append("grace_s: use at least 1 second, or a worker that reconnects is taken for dead")
    if settings.lease_stale_s < 3 * LEASE_EVERY_S:
        faults.append(
            f"lease_stale_s: use at least {3 * LEASE_EVERY_S:g} seconds: leases are renewed every {LEASE_EVERY_S:g} s"
        )
    # A lease says so by itself: 6 s are more than 4. While MySQL is away, the session alone decides.
    if settings.session_s + settings.grace_s < START_WITHIN_S + 1:
        faults.append(
            f"grace_s: use at least {START_WITHIN_S + 1 - settings.session_s:g} seconds with a session timeout of"
            f" {settings.session_s:g} s: a worker that is cut off may start something for {START_WITHIN_S:g} s more"
        )
    if settings.mysql_silent_s < settings.session_s + settings.lease_stale_s:
        faults.append(
            f"mysql_silent_s: use at least {settings.session_s + settings.lease_stale_s:g} seconds"
            " (the session timeout and lease_stale_s), or a short failure of MySQL takes away a witness"
        )
    if not 0 < settings.brake_share <= 1:
        faults.append("lost_brake_share: use a part of the fleet, more than 0 and at most 1")
    if settings.brake_least < 2:
        faults.append("lost_brake_least: use at least 2: the loss of one worker is what failover is for")
    if settings.brake_pause_s < settings.brake_window_s:
        faults.append("lost_brake_pause_s: use at least lost_brake_window_s, or the same losses stop failover twice")
    return faults


class Verdict(StrEnum):
    """`undecided` keeps what it has and gets nothing new."""

    UP = "up"
    UNDECIDED = "undecided"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What this leader sees now."""

    now_s: float
    #: Workers with a session.
    sessions: Set[str]
    #: Everybody who ever was: workers named by leases, nodes, assignments and ownerships.
    known: Set[str]
    #: None while MySQL cannot be asked.
    leases: Mapping[str, Lease] | None
    #: When MySQL last answered this leader.
    mysql_ok_s: float


@dataclass(frozen=True, slots=True)
class Absence:
    """Somebody without a session."""

    since_s: float
    #: It was alive a moment before: its disappearance is news, and counts for the brake.
    fresh: bool
    #: An instant at which it surely was alive, the latest known; None when this leader cannot tell.
    alive_until_s: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a leader remembers from turn to turn. It begins anew with every leader, with a hold-off."""

    hold_off_until_s: float
    #: The last look before ZooKeeper was away. When it is back it gives every session its whole timeout anew.
    break_s: float
    #: The last look of all.
    looked_s: float
    #: When each worker last beat, by the last leases that were read.
    beats: Mapping[str, float] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    absent: Mapping[str, Absence] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    paused_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts, and what to remember."""

    verdicts: dict[str, Verdict]
    memory: Memory
    #: The brake came on with this look: a person should know.
    braked: bool = False

    @property
    def paused(self) -> bool:
        """Whether the brake is on: nobody is lost until it is off."""
        return self.memory.paused_until_s > 0


def begin(now_s: float, settings: LivenessSettings) -> Memory:
    """Return the memory of a leader that has just been elected.

    It may owe its office to the very break that gave all sessions their timeouts anew, so one is taken for granted.
    """
    return Memory(now_s + settings.hold_off_s, break_s=now_s - settings.hold_off_s, looked_s=now_s)


def hold_off(memory: Memory, now_s: float, settings: LivenessSettings) -> Memory:
    """Return the memory after a break in this leader's own view of ZooKeeper: nobody is lost for a while."""
    # A break in a hold-off prolongs sessions that the last one has prolonged already.
    break_s = memory.break_s if _is_prolonged(memory, memory.looked_s) else memory.looked_s
    until_s = max(memory.hold_off_until_s, now_s + settings.hold_off_s)
    return replace(memory, hold_off_until_s=until_s, break_s=break_s)


def judge(memory: Memory, sighting: Sighting, settings: LivenessSettings) -> Judgement:
    """Return who is up, lost or undecided.

    `lost` is this function's proposal: before acting on one that is newly lost, move its lease by compare-and-set
    (`LeaseStore.declare_lost`) where MySQL answers, and tell `spare` when that fails.
    """
    beats = _beats(memory, sighting)
    absent = _absences(memory, sighting, beats, settings)
    paused_until_s = memory.paused_until_s if memory.paused_until_s > sighting.now_s else 0.0
    braked = not paused_until_s and _is_mass_loss(absent, sighting, settings, memory.lost)
    if braked:
        paused_until_s = sighting.now_s + settings.brake_pause_s
    still_lost = memory.lost - sighting.sessions
    held = paused_until_s > 0 or sighting.now_s < memory.hold_off_until_s
    newly = set() if held else {w for w in absent.keys() - still_lost if _is_lost(w, absent[w], sighting, settings)}
    lost = frozenset(still_lost | newly)
    verdicts = dict.fromkeys(sighting.sessions, Verdict.UP)
    verdicts |= {worker: Verdict.LOST if worker in lost else Verdict.UNDECIDED for worker in absent}
    after = Memory(
        memory.hold_off_until_s,
        memory.break_s,
        sighting.now_s,
        beats,
        frozenset(sighting.sessions),
        absent,
        lost,
        paused_until_s,
    )
    return Judgement(verdicts, after, braked)


def spare(judgement: Judgement, worker: str) -> Judgement:
    """Return the judgement with this worker undecided: its lease was renewed while we judged."""
    memory = replace(judgement.memory, lost=judgement.memory.lost - {worker})
    return replace(judgement, verdicts={**judgement.verdicts, worker: Verdict.UNDECIDED}, memory=memory)


def next_look_s(judgement: Judgement, now_s: float, settings: LivenessSettings) -> float | None:
    """Return in how many seconds time alone may change a verdict; None when it cannot."""
    waiting = [absence for w, absence in judgement.memory.absent.items() if judgement.verdicts[w] is Verdict.UNDECIDED]
    if not waiting:
        return None
    instants = [absence.since_s + settings.grace_s for absence in waiting]
    instants += [judgement.memory.hold_off_until_s, judgement.memory.paused_until_s]
    later = [instant - now_s for instant in instants if instant > now_s]
    return min(later) if later else None


def _beats(memory: Memory, sighting: Sighting) -> Mapping[str, float]:
    if sighting.leases is None:
        return memory.beats
    return {w: sighting.now_s - lease.age_ms / 1000 for w, lease in sighting.leases.items()}


def _absences(
    memory: Memory, sighting: Sighting, beats: Mapping[str, float], settings: LivenessSettings
) -> dict[str, Absence]:
    found = {}
    for worker in (sighting.known | memory.absent.keys() | memory.present) - sighting.sessions:
        before = memory.absent.get(worker)
        if before is None:
            seen = worker in memory.present
            before = Absence(sighting.now_s, seen, _heard_s(memory, sighting, settings) if seen else None)
        found[worker] = _with_beat(before, beats.get(worker), sighting, settings)
    return found


def _heard_s(memory: Memory, sighting: Sighting, settings: LivenessSettings) -> float:
    """Return when ZooKeeper surely had heard of a worker whose session has ended since the last look.

    If MySQL was away by then, the last moments are left out: what the worker decided in them, ZooKeeper's claims tell,
    and what it was about to decide, nobody does.
    """
    last_s = memory.break_s if _is_prolonged(memory, memory.looked_s) else memory.looked_s
    heard_s = last_s - settings.session_s - TICK_S
    return min(heard_s, max(sighting.mysql_ok_s, heard_s - UNDECIDED_S))


def _is_prolonged(memory: Memory, at_s: float) -> bool:
    """Say whether a session that lived at this instant may owe it to a break."""
    return at_s < memory.hold_off_until_s + TICK_S


def _with_beat(absence: Absence, beat_s: float | None, sighting: Sighting, settings: LivenessSettings) -> Absence:
    if beat_s is None or sighting.now_s - beat_s > settings.brake_window_s:
        gone = beat_s is not None and sighting.now_s - beat_s > GOODBYE_S
        return replace(absence, fresh=False) if gone else absence
    known_s = absence.alive_until_s
    return Absence(absence.since_s, True, beat_s if known_s is None else max(known_s, beat_s))


def _said_goodbye(lease: Lease) -> bool:
    return lease.age_ms / 1000 > GOODBYE_S


def _is_lost(worker: str, absence: Absence, sighting: Sighting, settings: LivenessSettings) -> bool:
    lease = None if sighting.leases is None else sighting.leases.get(worker)
    if lease is not None and _said_goodbye(lease) and settings.session_s >= START_WITHIN_S + 1:
        # It had stopped before it said so. Should it have begun anew and died before its first beat, its session has
        # outlived whatever it may have been about to start.
        return True
    if sighting.now_s - absence.since_s < settings.grace_s:
        return False
    if sighting.leases is None:
        return sighting.now_s - sighting.mysql_ok_s >= settings.mysql_silent_s
    return lease is None or lease.lost or lease.age_ms >= settings.lease_stale_s * 1000


def _is_mass_loss(
    absent: Mapping[str, Absence], sighting: Sighting, settings: LivenessSettings, lost: Iterable[str]
) -> bool:
    """Say whether too many vanished within the window, with somebody among them who is not given up yet."""
    window_s = sighting.now_s - settings.brake_window_s
    vanished = [worker for worker, absence in absent.items() if absence.fresh and absence.since_s > window_s]
    fleet = len(sighting.sessions) + len(vanished)
    undecided = set(vanished).difference(lost)
    return bool(undecided) and len(vanished) >= settings.brake_least and len(vanished) > settings.brake_share * fleet
