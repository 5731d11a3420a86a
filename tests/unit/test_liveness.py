"""Who is alive: two witnesses, a grace, a hold-off and a brake, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from cronkeeper.domain.placement import Lease
from cronkeeper_manager.liveness import (
    TICK_S,
    UNDECIDED_S,
    Judgement,
    LivenessSettings,
    Memory,
    Sighting,
    Verdict,
    begin,
    check_settings,
    hold_off,
    judge,
    next_look_s,
    spare,
)

_SETTINGS = LivenessSettings()
_START_S = 1000.0


def lease(worker: str, age_s: float, *, lost: bool = False) -> Lease:
    return Lease(worker, f"{worker}-epoch", int(age_s * 1000), lost, 0)


class Leader:
    """A leader's memory, and a clock."""

    def __init__(self, sessions: Iterable[str] = (), *, settled: bool = True) -> None:
        self.now_s = _START_S
        self.memory: Memory = begin(self.now_s, _SETTINGS)
        self.mysql_ok_s = self.now_s
        if settled:
            self.look(sessions, dict.fromkeys(sessions, 0.0))
            self.now_s += 20
            self.look(sessions, dict.fromkeys(sessions, 0.0))

    def look(
        self,
        sessions: Iterable[str],
        leases: Mapping[str, float | Lease] | None,
        *,
        known: Iterable[str] = (),
        later_s: float = 0.0,
    ) -> Judgement:
        """Look `later_s` later. `leases` gives ages in seconds; None is a MySQL that does not answer."""
        self.now_s += later_s
        rows = None
        if leases is not None:
            self.mysql_ok_s = self.now_s
            rows = {w: age if isinstance(age, Lease) else lease(w, age) for w, age in leases.items()}
        everybody = set(known) | set(rows or ()) | set(sessions)
        judgement = judge(self.memory, Sighting(self.now_s, set(sessions), everybody, rows, self.mysql_ok_s), _SETTINGS)
        self.memory = judgement.memory
        return judgement


def test_worker_with_a_session_is_up_whatever_its_lease_says() -> None:
    leader = Leader(["a"])

    assert leader.look(["a"], {"a": 999.0}, later_s=60).verdicts == {"a": Verdict.UP}
    assert leader.look(["a"], None, later_s=60).verdicts == {"a": Verdict.UP}


def test_worker_is_lost_when_neither_witness_has_seen_it() -> None:
    leader = Leader(["a", "b"])

    assert leader.look(["b"], {"a": 5.0, "b": 1.0}, later_s=1).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look(["b"], {"a": 7.0, "b": 1.0}, later_s=2).verdicts["a"] is Verdict.LOST


def test_fresh_lease_keeps_a_worker_without_a_session() -> None:
    leader = Leader(["a"])
    for _ in range(20):
        assert leader.look([], {"a": 1.0}, later_s=10).verdicts == {"a": Verdict.UNDECIDED}


def test_stale_lease_does_not_shorten_the_grace() -> None:
    leader = Leader(["a"])

    assert leader.look([], {"a": 60.0}, later_s=1).verdicts == {"a": Verdict.UNDECIDED}
    assert leader.look([], {"a": 61.0}, later_s=1.9).verdicts == {"a": Verdict.UNDECIDED}
    assert leader.look([], {"a": 62.0}, later_s=0.2).verdicts == {"a": Verdict.LOST}


def test_session_that_comes_back_within_the_grace_starts_the_grace_anew() -> None:
    leader = Leader(["a"])
    leader.look([], {"a": 60.0}, later_s=1)
    leader.look(["a"], {"a": 0.0}, later_s=1)

    assert leader.look([], {"a": 60.0}, later_s=1).verdicts == {"a": Verdict.UNDECIDED}
    assert leader.look([], {"a": 60.0}, later_s=1).verdicts == {"a": Verdict.UNDECIDED}


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("has no lease", {}),
        ("has a lease that was declared lost", {"a": lease("a", 0.5, lost=True)}),
    ],
)
def test_worker_that_is_gone_is_lost_after_the_grace_when_it(case: str, rows: Mapping[str, float | Lease]) -> None:
    leader = Leader(["a"])
    leader.look([], rows, later_s=1, known=["a"])

    assert leader.look([], rows, later_s=2, known=["a"]).verdicts["a"] is Verdict.LOST, case


def test_mysql_that_is_away_counts_as_silent_after_fifteen_seconds() -> None:
    leader = Leader(["a", "b"])

    assert leader.look(["b"], None, later_s=10).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look(["b"], None, later_s=4.9).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look(["b"], None, later_s=0.2).verdicts["a"] is Verdict.LOST


def test_mysql_away_moves_nobody_who_has_a_session() -> None:
    leader = Leader(["a", "b"])

    assert set(leader.look(["a", "b"], None, later_s=3600).verdicts.values()) == {Verdict.UP}


def test_new_leader_holds_off() -> None:
    leader = Leader(settled=False)

    assert leader.look([], {"a": 300.0}).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look([], {"a": 307.0}, later_s=7.9).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look([], {"a": 308.0}, later_s=0.2).verdicts["a"] is Verdict.LOST


def test_leader_whose_view_broke_holds_off_again() -> None:
    leader = Leader(["a"])
    leader.memory = hold_off(leader.memory, leader.now_s, _SETTINGS)

    assert leader.look([], {"a": 60.0}, later_s=7.5).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look([], {"a": 61.0}, later_s=1).verdicts["a"] is Verdict.UNDECIDED
    assert leader.look([], {"a": 62.0}, later_s=1).verdicts["a"] is Verdict.LOST


def test_lost_worker_stays_lost_until_it_has_a_session() -> None:
    leader = Leader(["a"])
    leader.look([], {"a": 60.0}, later_s=1)
    leader.look([], {"a": 60.0}, later_s=3)

    assert leader.look([], {"a": 0.1}, later_s=1).verdicts["a"] is Verdict.LOST
    assert leader.look(["a"], {"a": 0.1}, later_s=1).verdicts["a"] is Verdict.UP
    assert leader.look([], {"a": 0.1}, later_s=1).verdicts["a"] is Verdict.UNDECIDED


def test_worker_whose_lease_was_renewed_at_the_last_moment_is_spared() -> None:
    leader = Leader(["a"])
    leader.look([], {"a": 60.0}, later_s=1)
    judgement = spare(leader.look([], {"a": 60.0}, later_s=3), "a")
    leader.memory = judgement.memory

    assert judgement.verdicts["a"] is Verdict.UNDECIDED
    assert leader.look([], {"a": 1.0}, later_s=1).verdicts["a"] is Verdict.UNDECIDED


def test_last_sign_of_life_is_what_surely_was_one() -> None:
    leader = Leader(["a"])
    gone = leader.look([], {"a": 3.0}, later_s=1).memory.absent["a"]
    by_session = leader.look([], None, later_s=1).memory.absent["a"]

    # Its lease was renewed 3 s ago; the session alone would only say that it lived 6 s ago.
    assert gone.alive_until_s == pytest.approx(gone.since_s - 3.0)
    assert by_session.alive_until_s == gone.alive_until_s


def test_session_alone_tells_of_its_time_out_and_a_tick_before_the_last_look_that_saw_it() -> None:
    leader = Leader(["a"])
    seen_s = leader.now_s
    gone = leader.look([], {}, later_s=4).memory.absent["a"]

    assert gone.alive_until_s == seen_s - _SETTINGS.session_s - TICK_S


def test_last_beat_that_was_read_counts_after_mysql_is_gone() -> None:
    leader = Leader(["a"])
    leader.look(["a"], {"a": 1.5}, later_s=1)
    beat_s = leader.now_s - 1.5
    gone = leader.look([], None, later_s=3).memory.absent["a"]

    assert gone.alive_until_s == beat_s


def test_break_of_zookeeper_prolongs_sessions_and_proves_no_life() -> None:
    leader = Leader(["a"])
    leader.mysql_ok_s = leader.now_s + 60
    broken_s = leader.now_s
    for _ in range(13):
        leader.now_s += 1
        leader.memory = hold_off(leader.memory, leader.now_s, _SETTINGS)
    leader.memory = replace(leader.memory, beats={})
    for _ in range(6):
        leader.look(["a"], None, later_s=1)
    # A second break in the hold-off of the first.
    leader.memory = hold_off(leader.memory, leader.now_s, _SETTINGS)
    for _ in range(7):
        leader.look(["a"], None, later_s=1)
    gone = leader.look([], None, later_s=1).memory.absent["a"]

    assert gone.alive_until_s == broken_s - _SETTINGS.session_s - TICK_S


def test_break_of_long_ago_prolongs_nothing() -> None:
    leader = Leader(["a"])
    leader.memory = replace(hold_off(leader.memory, leader.now_s, _SETTINGS), beats={})
    leader.mysql_ok_s = leader.now_s + 60
    for _ in range(12):
        leader.look(["a"], None, later_s=1)
    seen_s = leader.now_s
    gone = leader.look([], None, later_s=1).memory.absent["a"]

    assert gone.alive_until_s == seen_s - _SETTINGS.session_s - TICK_S


@pytest.mark.parametrize(("silent_s", "before_s"), [(0.0, 0.0), (10.0, 2.0), (60.0, UNDECIDED_S)])
def test_what_was_due_after_mysql_went_away_is_looked_at_again(silent_s: float, before_s: float) -> None:
    leader = Leader(["a"])
    leader.memory = replace(leader.memory, beats={})
    leader.look(["a"], None, later_s=60)
    seen_s = leader.now_s
    leader.mysql_ok_s = seen_s - silent_s
    gone = leader.look([], None, later_s=1).memory.absent["a"]

    assert gone.alive_until_s == seen_s - _SETTINGS.session_s - TICK_S - before_s


def test_nothing_is_known_of_somebody_whom_this_leader_never_saw() -> None:
    leader = Leader(settled=False)

    assert leader.look([], {}, known=["ghost"]).memory.absent["ghost"].alive_until_s is None


# ---------------------------------------------------------------------------------------------------------- the brake

_TEN = [f"w{n}" for n in range(10)]


def test_mass_loss_pauses_failover_and_is_told_once() -> None:
    leader = Leader(_TEN)
    left = _TEN[4:]
    first = leader.look(left, dict.fromkeys(_TEN, 1.0), later_s=1)
    second = leader.look(left, dict.fromkeys(_TEN, 60.0), later_s=10)

    assert first.braked
    assert not second.braked
    assert second.paused
    assert Verdict.LOST not in second.verdicts.values()


def test_after_the_pause_failover_goes_on() -> None:
    leader = Leader(_TEN)
    left = _TEN[4:]
    leader.look(left, dict.fromkeys(_TEN, 1.0), later_s=1)
    leader.look(left, dict.fromkeys(_TEN, 60.0), later_s=119)
    after = leader.look(left, dict.fromkeys(_TEN, 200.0), later_s=2)

    assert not after.braked
    assert sorted(w for w, verdict in after.verdicts.items() if verdict is Verdict.LOST) == _TEN[:4]


@pytest.mark.parametrize(
    ("case", "fleet", "gone", "braked"),
    [
        ("one of two", 2, 1, False),
        ("two of three", 3, 2, False),
        ("three of four", 4, 3, True),
        ("three of nine is a third and no more", 9, 3, False),
        ("three of eight", 8, 3, True),
        ("four of ten", 10, 4, True),
    ],
)
def test_brake_needs_three_workers_and_more_than_a_third(case: str, fleet: int, gone: int, braked: bool) -> None:
    leader = Leader(_TEN[:fleet])

    assert leader.look(_TEN[gone:fleet], dict.fromkeys(_TEN[:fleet], 1.0), later_s=1).braked is braked, case


def test_losses_that_are_far_apart_do_not_brake() -> None:
    leader = Leader(_TEN)
    for gone in range(1, 6):
        judgement = leader.look(_TEN[gone:], dict.fromkeys(_TEN, 1.0), later_s=31)

        assert not judgement.braked


def test_workers_that_were_gone_long_before_this_leader_do_not_brake() -> None:
    leader = Leader(settled=False)
    judgement = leader.look(_TEN[6:], {w: 0.5 if w in _TEN[6:] else 4000.0 for w in _TEN})

    assert not judgement.braked
    assert leader.look(_TEN[6:], dict.fromkeys(_TEN, 4000.0), later_s=9).verdicts["w0"] is Verdict.LOST


def test_new_leader_brakes_for_workers_that_were_alive_a_moment_ago() -> None:
    leader = Leader(settled=False)

    assert leader.look(_TEN[6:], dict.fromkeys(_TEN, 5.0)).braked


def test_worker_that_said_goodbye_is_lost_without_a_grace() -> None:
    leader = Leader(["a"])

    assert leader.look(["a"], {"a": 1.7e9}, later_s=1).verdicts == {"a": Verdict.UP}
    assert leader.look([], {"a": 1.7e9}, later_s=0.1).verdicts == {"a": Verdict.LOST}


def test_workers_that_said_goodbye_do_not_brake() -> None:
    leader = Leader(_TEN)
    judgement = leader.look(_TEN[6:], {w: 0.5 if w in _TEN[6:] else 1.7e9 for w in _TEN}, later_s=1)

    assert not judgement.braked


# ------------------------------------------------------------------------------------------------------------- timing


def test_next_look_is_when_the_grace_ends() -> None:
    leader = Leader(["a"])
    judgement = leader.look([], {"a": 60.0}, later_s=1)

    assert next_look_s(judgement, leader.now_s, _SETTINGS) == pytest.approx(2.0)
    assert next_look_s(leader.look(["a"], {"a": 0.0}), leader.now_s, _SETTINGS) is None


def test_defaults_add_up() -> None:
    assert check_settings(_SETTINGS) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (replace(_SETTINGS, grace_s=0.5), "grace_s"),
        (replace(_SETTINGS, lease_stale_s=5.0), "lease_stale_s"),
        (replace(_SETTINGS, session_s=2.0), "grace_s"),
        (replace(_SETTINGS, mysql_silent_s=10.0), "mysql_silent_s"),
        (replace(_SETTINGS, brake_share=0.0), "lost_brake_share"),
        (replace(_SETTINGS, brake_least=1), "lost_brake_least"),
        (replace(_SETTINGS, brake_pause_s=30.0), "lost_brake_pause_s"),
    ],
)
def test_settings_that_do_not_add_up_are_named(settings: LivenessSettings, named: str) -> None:
    assert [fault.split(":")[0] for fault in check_settings(settings)] == [named]
