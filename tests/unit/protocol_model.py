"""The claim and handover protocol as a small pure model: one job, two workers, a few fires, and all that hurts.

Here are its values; protocol_steps.py says what may happen next. There is no clock: what time forbids is a condition.
- Somebody is declared lost only while neither witness sees it: it is down, or paused, or cut from both stores.
- Losing somebody makes its unused grants stale: the last sign of life is over 6 s old then, and an order is good for
  4 s after it (START_WITHIN_S). The runner refuses a stale one, and the claim is asked again.
- Declaring lost, giving the runs up and clearing the znodes is one step: the leader does them in one turn.
- Timers are exact, and a worker looks before it lets go of a task: whoever is up and has the task decides at once.
Not in the model: overlap, retries of failed runs, several leaders; the machines over the real code have those.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

NOBODY = -1


class Kind(IntEnum):
    """States are hashed a great deal: as numbers, not by name as enums are."""

    __hash__ = int.__hash__


class Mode(Kind):
    UP = 0
    PAUSED = 1
    DOWN = 2


class Phase(Kind):
    """How far a worker is with a run."""

    NONE = 0
    DECIDED = 1
    WAITING = 2
    GRANTED = 3
    #: Granted, but too long ago to start.
    STALE = 4
    #: A process was started; it may have ended, but nobody has told so yet.
    STARTED = 5
    #: Its process died with the node, and nobody has noticed yet.
    DEAD = 6
    REFUSED = 7
    SKIPPED = 8
    LOST = 9
    #: Its process has ended, and MySQL knows.
    OVER = 10


class RowState(Kind):
    CLAIMED = 0
    ENDED = 1
    SKIPPED = 2
    LOST = 3


class Grant(Kind):
    """Which fence granted a run. Outdated: to a worker that did not know yet that it had been declared lost."""

    NOT = 0
    MYSQL = 1
    ZOOKEEPER = 2
    AUTONOMOUS = 3
    OUTDATED_MYSQL = 4
    OUTDATED_ZOOKEEPER = 5
    OUTDATED_AUTONOMOUS = 6


class Entry(NamedTuple):
    phase: Phase = Phase.NONE
    grant: Grant = Grant.NOT
    #: MySQL has not heard the latest.
    dirty: bool = False


class Row(NamedTuple):
    owner: int
    state: RowState


class Worker(NamedTuple):
    mode: Mode
    #: It has the task in its journal, and fires it.
    has_task: bool
    #: Its yes stands in ZooKeeper.
    owns: bool
    no_mysql: bool
    no_zookeeper: bool
    #: The newest decided fire; 0 is none.
    cursor: int
    #: The newest fire that it decided while a witness saw it.
    seen: int
    #: It was declared lost, and has not looked at both stores since.
    outdated: bool
    #: By run, see `run_of`.
    runs: tuple[Entry, ...]


class State(NamedTuple):
    due: int
    assigned: int
    #: Up to this fire the earlier owner decided, as the leader knows (`since_ms`).
    hint: int
    rows: tuple[Row | None, ...]
    znodes: tuple[int, ...]
    #: The first start of each run.
    starts: tuple[Grant, ...]
    workers: tuple[Worker, Worker]
    #: What may still go wrong.
    crashes: int
    cuts: int
    pauses: int
    lost_answers: int
    moves: int
    #: …and how much of it altogether.
    troubles: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol as it is built; each flag that is turned off takes one of its rules away."""

    at_most_once: bool = False
    fires: int = 3
    crashes: int = 2
    cuts: int = 2
    pauses: int = 1
    lost_answers: int = 1
    moves: int = 1
    #: How many of all these may come together.
    troubles: int = 4
    #: A write whose answer was lost is read back, and the nonce compared.
    reads_back: bool = True
    #: A row of ours that is lost is not ours.
    refuses_lost: bool = True
    #: A task is given away only once its release was seen.
    waits_for_release: bool = True
    #: Who takes a task over decides the fires since the last recorded one.
    catches_up: bool = True
    asks_zookeeper: bool = True
    #: The runner refuses orders whose claim is too old.
    orders_expire: bool = True
    #: Claims that stand in ZooKeeper alone get their rows before anybody else decides about the task.
    carries_home: bool = True
    #: Where MySQL answers that nothing is recorded, nothing is decided. The leader's word is for when it is away, and
    #: never for `at_most_once`: what MySQL alone decides may be decided again.
    trusts_ledger: bool = True
    #: Lost runs are looked for at every look, not only by who takes a task over.
    looks_for_lost: bool = True
    #: The leader's word is what an owner surely decided, as it was seen, and not what fell due until the `Revoke`.
    hints_are_certain: bool = True
    #: Who is given a task is told up to which fire MySQL has granted its last owner, by whoever gives it.
    hints_by_ledger: bool = True
    #: Who starts again without a task tells what it had not started of it as lost.
    tells_unstarted: bool = True
    #: Who is refused by ZooKeeper, or lets go of a run that waits, gives the row up as lost that MySQL may have for it.
    gives_up_doubtful: bool = True


class Step(NamedTuple):
    name: str
    state: State
    #: What is broken by this step; empty when all is well.
    broken: str = ""


def run_of(fire: int, attempt: int) -> int:
    """Return the index of a run; fires and attempts count from 1, and there are two attempts."""
    return (fire - 1) * 2 + attempt - 1


def title(run: int) -> str:
    return f"fire {run // 2 + 1} attempt {run % 2 + 1}"


def begin(rules: Rules) -> State:
    """Worker 0 has the task, and all is well."""
    none = (Entry(),) * (2 * rules.fires)
    first = Worker(Mode.UP, True, True, False, False, 0, 0, False, none)
    second = first._replace(has_task=False, owns=False)
    runs = 2 * rules.fires
    return State(
        0, 0, 0, (None,) * runs, (NOBODY,) * runs, (Grant.NOT,) * runs, (first, second),
        rules.crashes, rules.cuts, rules.pauses, rules.lost_answers, rules.moves, rules.troubles,
    )  # fmt: skip


def spend(state: State, what: str) -> State | None:
    """Return the state with one trouble less, or None when there is none left."""
    left = getattr(state, what)
    return state._replace(**{what: left - 1, "troubles": state.troubles - 1}) if left and state.troubles else None


def looked(state: State, index: int) -> State:
    """Have a worker decide what is due. Its timer is exact, and it looks before it lets go of a task."""
    worker = state.workers[index]
    if worker.mode is not Mode.UP or not worker.has_task or worker.cursor == state.due:
        return state
    for fire in range(worker.cursor + 1, state.due + 1):
        run = run_of(fire, 1)
        if worker.runs[run].phase is Phase.NONE:
            worker = change(worker, run, Entry(Phase.DECIDED))
    isolated = worker.no_mysql and worker.no_zookeeper
    seen = worker.seen if isolated else state.due
    return put(state, index, worker._replace(cursor=state.due, seen=seen))


def put(state: State, index: int, worker: Worker) -> State:
    return state._replace(workers=(worker, state.workers[1]) if index == 0 else (state.workers[0], worker))


def change(worker: Worker, run: int, entry: Entry) -> Worker:
    return worker._replace(runs=(*worker.runs[:run], entry, *worker.runs[run + 1 :]))
