"""Breadth-first search through the protocol's model: every interleaving, the shortest way to each kind of violation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.unit.protocol_model import (
    NOBODY,
    Mode,
    Phase,
    RowState,
    Rules,
    State,
    begin,
    looked,
    put,
)
from tests.unit.protocol_steps import restarted, steps


@dataclass(slots=True)
class Found:
    """What a search found. `violations` maps each kind to its shortest trace."""

    states: int = 0
    violations: dict[str, list[str]] = field(default_factory=dict)

    def words(self) -> str:
        lines = [f"{self.states} states"]
        for kind, trace in sorted(self.violations.items()):
            lines += [f"{kind}:", *(f"  {number}. {step}" for number, step in enumerate(trace, 1))]
        return "\n".join(lines)


def search(rules: Rules, *, most: int = 3_000_000) -> Found:
    """Visit every reachable state. What lies behind a violation is not looked at. Raises when there are too many."""
    first = begin(rules)
    came: dict[State, tuple[State, str] | None] = {first: None}
    todo = deque([first])
    found = Found()
    rests: dict[State, str] = {}
    while todo:
        state = todo.popleft()
        kind = _silence(state, rules, rests)
        if kind and kind not in found.violations:
            found.violations[kind] = _trace(came, state)
        for name, after, broken in steps(state, rules):
            if broken:
                if broken not in found.violations:
                    found.violations[broken] = [*_trace(came, state), name]
            elif after not in came:
                came[after] = (state, name)
                todo.append(after)
        if len(came) > most:
            raise AssertionError(f"more than {most} states: {rules}")
    found.states = len(came)
    return found


def _trace(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names = []
    while (before := came[state]) is not None:
        state, name = before
        names.append(name)
    return names[::-1]


# -- nothing is silent: from every state, once all heals and everybody does its work, each due fire is decided


def _silence(state: State, rules: Rules, rests: dict[State, str]) -> str:
    """Return what is missing once everything has healed and come to rest; empty when nothing is."""
    way = []
    calm = healed(state, rules)
    while calm not in rests:
        way.append(calm)
        after = next_calm(calm, rules)
        if after is None:
            rests[calm] = missing(calm, rules)
            break
        calm = after
    for passed in way:
        rests[passed] = rests[calm]
    return rests[calm]


def healed(state: State, rules: Rules) -> State:
    """No more accidents, and the ones that were are over."""
    for index, worker in enumerate(state.workers):
        worker = restarted(worker, rules) if worker.mode is Mode.DOWN else worker._replace(mode=Mode.UP)
        state = looked(put(state, index, worker._replace(no_mysql=False, no_zookeeper=False)), index)
    return state._replace(crashes=0, cuts=0, pauses=0, lost_answers=0, moves=0, troubles=0)


def next_calm(state: State, rules: Rules) -> State | None:
    """Return the state after the first thing that is to be done; fires to come are not waited for."""
    for name, after, _ in steps(state, rules):
        if not name.endswith(("falls due", "too late", "declared lost")):
            return after
    return None


def missing(state: State, rules: Rules) -> str:
    """Judge a state at rest: I1 and I15, each due fire has its decision; who rerun must have an attempt that ended."""
    for fire in range(state.due):
        rows = [row.state for row in state.rows[fire * 2 : fire * 2 + 2] if row is not None]
        if not rows:
            return "I15 a fire without a decision"
        ran = any(
            worker.runs[run].phase in (Phase.STARTED, Phase.OVER)
            for worker in state.workers
            for run in (2 * fire, 2 * fire + 1)
        )
        if not rules.at_most_once and not ran and rows[1:] != [RowState.LOST]:
            return "I11 a fire that nobody runs"
    if any(row is not None and row.state is RowState.CLAIMED for row in state.rows):
        return "I12 a claim on which nobody acts"
    if state.assigned == NOBODY or [worker.has_task for worker in state.workers].count(True) != 1:
        return "I13 not one owner"
    return ""


def kinds(found: Found, prefix: str = "") -> Sequence[str]:
    return sorted(kind for kind in found.violations if kind.startswith(prefix))
