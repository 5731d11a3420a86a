"""What may happen next in the protocol's model: accidents, steps of the leader and of workers, and what they break."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.unit.protocol_model import (
    NOBODY,
    Entry,
    Grant,
    Mode,
    Phase,
    Row,
    RowState,
    Rules,
    State,
    Step,
    Worker,
    change,
    looked,
    put,
    spend,
    title,
)


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Yield everything that may happen next."""
    if state.due < rules.fires:
        later = state._replace(due=state.due + 1)
        for index in range(2):
            later = looked(later, index)
        yield Step(f"fire {later.due} falls due", later)
    for index in range(2):
        yield from steps_of(state, index, rules)


def steps_of(state: State, index: int, rules: Rules) -> Iterator[Step]:
    """Yield what may happen next to one worker. It changes nothing of the other one, and reads only its `owns`."""
    worker = state.workers[index]
    yield from _accidents(state, index, worker, rules)
    yield from _leader_steps(state, index, worker, rules)
    if worker.mode is Mode.UP:
        yield from _worker_steps(state, index, worker, rules)


# -- accidents


def _accidents(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[Step]:
    if worker.mode is not Mode.DOWN and (fewer := spend(state, "cuts")):
        if not worker.no_mysql:
            yield Step(f"worker {index} is cut from MySQL", put(fewer, index, worker._replace(no_mysql=True)))
        if not worker.no_zookeeper:
            yield Step(f"worker {index} is cut from ZooKeeper", put(fewer, index, worker._replace(no_zookeeper=True)))
    if worker.no_mysql:
        yield Step(f"worker {index} has MySQL again", put(state, index, worker._replace(no_mysql=False)))
    if worker.no_zookeeper:
        yield Step(f"worker {index} has ZooKeeper again", put(state, index, worker._replace(no_zookeeper=False)))
    if worker.mode is not Mode.DOWN and (fewer := spend(state, "crashes")):
        yield Step(f"the daemon of worker {index} dies", put(fewer, index, crashed(worker, node=False)))
        if any(entry.phase is Phase.STARTED for entry in worker.runs):
            yield Step(f"the node of worker {index} dies", put(fewer, index, crashed(worker, node=True)))
    if worker.mode is Mode.DOWN:
        yield Step(f"worker {index} starts again", looked(put(state, index, restarted(worker, rules)), index))
    if worker.mode is Mode.UP and (fewer := spend(state, "pauses")):
        yield Step(f"worker {index} is paused", put(fewer, index, worker._replace(mode=Mode.PAUSED)))
    if worker.mode is Mode.PAUSED:
        yield Step(f"worker {index} goes on", looked(put(state, index, worker._replace(mode=Mode.UP)), index))


def crashed(worker: Worker, *, node: bool) -> Worker:
    """What is left in the journal, and in the runner unless the node died."""
    runs = []
    for entry in worker.runs:
        if entry.phase in (Phase.GRANTED, Phase.STALE):
            entry = Entry(Phase.DECIDED)
        elif node and entry.phase is Phase.STARTED:
            entry = entry._replace(phase=Phase.DEAD, dirty=True)
        runs.append(entry)
    outdated = worker.outdated or any(is_outdated(worker, run) for run in range(len(worker.runs)))
    return worker._replace(mode=Mode.DOWN, no_mysql=False, no_zookeeper=False, outdated=outdated, runs=tuple(runs))


def restarted(worker: Worker, rules: Rules) -> Worker:
    """The daemon takes over the journal: what ran and is gone is lost, and told."""
    runs = []
    for entry in worker.runs:
        if entry.phase is Phase.DEAD:
            entry = entry._replace(phase=Phase.LOST, dirty=True)
        elif not worker.has_task and entry.phase is Phase.DECIDED:
            # Perhaps it has the claim, and nobody else may start it then: the next owner runs it again.
            entry = Entry(Phase.LOST, dirty=True) if rules.tells_unstarted else Entry()
        runs.append(entry)
    worker = worker._replace(mode=Mode.UP, runs=tuple(runs))
    for run in range(0, len(runs), 2):
        news = runs[run].phase is Phase.LOST and runs[run].dirty and runs[run + 1].phase is Phase.NONE
        if news and worker.has_task and not rules.at_most_once:
            worker = change(worker, run + 1, Entry(Phase.DECIDED))
    return worker


# -- the leader


def _leader_steps(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[Step]:
    silent = worker.mode is not Mode.UP or (worker.no_mysql and worker.no_zookeeper)
    if silent and (state.assigned == index or worker.owns):
        yield Step(f"worker {index} is declared lost", buried(state, index, rules))
    if state.assigned == index and (fewer := spend(state, "moves")):
        hint = max(state.hint, worker.seen) if rules.hints_are_certain else state.due
        yield Step(f"worker {index} is revoked", fewer._replace(assigned=NOBODY, hint=hint))
    free = not any(other.owns for other in state.workers) or not rules.waits_for_release
    if state.assigned == NOBODY and free and worker.mode is Mode.UP and not worker.no_zookeeper:
        given = state
        if rules.hints_by_ledger:
            given = carried_home(state) if rules.carries_home else state
            given = given._replace(hint=max(given.hint, newest_claimed(given)))
        yield Step(f"worker {index} is assigned", given._replace(assigned=index))


def buried(state: State, index: int, rules: Rules) -> State:
    """Give up the runs of a worker and take its task away."""
    if rules.carries_home:
        state = carried_home(state)
    rows = tuple(
        row._replace(state=RowState.LOST) if row and row.owner == index and row.state is RowState.CLAIMED else row
        for row in state.rows
    )
    worker = state.workers[index]
    runs = tuple(entry._replace(phase=Phase.STALE) if entry.phase is Phase.GRANTED else entry for entry in worker.runs)
    assigned = NOBODY if state.assigned == index else state.assigned
    gone = put(state, index, worker._replace(owns=False, runs=runs, outdated=worker.has_task))
    return gone._replace(rows=rows, assigned=assigned, hint=max(state.hint, worker.seen))


def carried_home(state: State) -> State:
    """Write the rows of claims that stand in ZooKeeper alone."""
    pairs = zip(state.rows, state.znodes, strict=True)
    rows = tuple(Row(owner, RowState.CLAIMED) if row is None and owner != NOBODY else row for row, owner in pairs)
    return state._replace(rows=rows)


# -- a worker


def _worker_steps(state: State, index: int, worker: Worker, rules: Rules) -> Iterator[Step]:
    busy = any(entry.phase is Phase.DECIDED for entry in worker.runs)
    if not worker.no_zookeeper and not busy:
        # The engine has one thread: it does not let go of a task while it is claiming.
        if worker.has_task and state.assigned != index:
            yield Step(f"worker {index} lets go", put(state, index, let_go(worker, rules)))
        elif not worker.has_task and state.assigned == index:
            yield Step(f"worker {index} takes over", taken_over(state, index, rules))
        elif worker.has_task and not worker.owns:
            home = carried_home(state) if rules.carries_home and not worker.no_mysql else state
            yield Step(f"worker {index} says yes again", put(home, index, up_to_date(worker._replace(owns=True))))
        elif worker.has_task and rules.looks_for_lost and not worker.no_mysql:
            home = carried_home(state) if rules.carries_home else state
            again = with_reruns(home, worker, rules)
            if again != worker:
                yield Step(f"worker {index} finds a lost run", put(home, index, again))
    yield from _claims(state, index, rules)
    yield from _starts(state, index, rules)
    yield from _late_and_lost(state, index, rules)
    if not worker.no_mysql and any(entry.dirty for entry in worker.runs):
        yield Step(f"worker {index} reports", reported(state, index))


def _late_and_lost(state: State, index: int, rules: Rules) -> Iterator[Step]:
    """Skip what has waited for too long; run again what this node itself knows to be lost."""
    worker = state.workers[index]
    for run, entry in enumerate(worker.runs):
        if entry.phase is Phase.WAITING:
            late = change(worker, run, Entry(Phase.SKIPPED, dirty=True))
            yield Step(f"worker {index} skips {title(run)}: too late", put(state, index, late))


def let_go(worker: Worker, rules: Rules) -> Worker:
    """Its runs go on to their end; its waiting ones are given up, and MySQL, which may have granted them, is told."""
    runs = tuple(
        Entry(dirty=rules.gives_up_doubtful) if entry.phase is Phase.WAITING else entry for entry in worker.runs
    )
    return worker._replace(has_task=False, owns=False, runs=runs)


def up_to_date(worker: Worker) -> Worker:
    """It has looked at ZooKeeper, and at MySQL if it has that."""
    return worker._replace(outdated=worker.outdated and worker.no_mysql)


def taken_over(state: State, index: int, rules: Rules) -> State:
    """Install the task: its fires are decided up to what the ledger says, or else up to the leader's hint."""
    worker = state.workers[index]
    cursor = 0 if rules.at_most_once and rules.trusts_ledger else state.hint
    if not worker.no_mysql:
        if rules.carries_home:
            state = carried_home(state)
        cursor = newest_claimed(state) or (0 if rules.trusts_ledger else state.hint)
    if not rules.catches_up:
        cursor = state.due
    worker = up_to_date(worker._replace(has_task=True, owns=True, cursor=max(cursor, 0)))
    if not worker.no_mysql:
        worker = with_reruns(state, worker, rules)
    return looked(put(state, index, worker), index)


def newest_claimed(state: State) -> int:
    """Return the newest fire that MySQL has granted: a skip may stand behind fires that wait, and are given up."""
    claimed = [row is not None and row.state is not RowState.SKIPPED for row in state.rows[::2]]
    return max((fire for fire, known in enumerate(claimed, 1) if known), default=0)


def with_reruns(state: State, worker: Worker, rules: Rules) -> Worker:
    """Decide the second attempts of lost runs; not of those that this very node may still have in hand."""
    if rules.at_most_once:
        return worker
    for run in range(0, len(state.rows), 2):
        row, later, mine = state.rows[run], state.rows[run + 1], worker.runs[run]
        lost = row is not None and row.state is RowState.LOST and later is None
        if lost and mine.phase in (Phase.NONE, Phase.REFUSED, Phase.LOST) and worker.runs[run + 1].phase is Phase.NONE:
            worker = change(worker, run + 1, Entry(Phase.DECIDED))
    return worker


def _claims(state: State, index: int, rules: Rules) -> Iterator[Step]:
    """Yield what may come of asking the fences for all runs that want a claim."""
    worker = state.workers[index]
    wanting = (Phase.DECIDED, Phase.WAITING, Phase.STALE) if rules.orders_expire else (Phase.DECIDED, Phase.WAITING)
    wanted = [run for run, entry in enumerate(worker.runs) if entry.phase in wanting]
    if not wanted:
        return
    name = f"worker {index} claims {', '.join(map(title, wanted))}"
    if worker.no_mysql:
        yield from _asks_zookeeper(state, index, wanted, rules, name)
        return
    landed, granted = in_mysql(state, index, wanted, rules)
    yield Step(f"{name} in MySQL", granted)
    if fewer := spend(state, "lost_answers"):
        yield from _asks_zookeeper(fewer, index, wanted, rules, f"{name}; MySQL never hears it,")
        unheard = landed._replace(lost_answers=fewer.lost_answers, troubles=fewer.troubles)
        if rules.reads_back:
            yield from _asks_zookeeper(unheard, index, wanted, rules, f"{name}; the answer is lost,")
        else:
            for run in wanted:
                unheard = put(unheard, index, change(unheard.workers[index], run, Entry(Phase.REFUSED)))
            yield Step(f"{name}; the answer is lost, and taken for a no", unheard)


def is_outdated(worker: Worker, run: int) -> bool:
    entry = worker.runs[run]
    return worker.outdated or entry.phase is Phase.STALE or entry.grant >= Grant.OUTDATED_MYSQL


def in_mysql(state: State, index: int, wanted: Sequence[int], rules: Rules) -> tuple[State, State]:
    """Return the state with the rows written, and with the answer heard as well."""
    worker, rows = state.workers[index], list(state.rows)
    for run in wanted:
        row, outdated = rows[run], is_outdated(worker, run)
        grant = Grant.OUTDATED_MYSQL if outdated else Grant.MYSQL
        ours = row is None or (row.owner == index and (row.state is not RowState.LOST or not rules.refuses_lost))
        rows[run] = row or Row(index, RowState.CLAIMED)
        worker = change(worker, run, Entry(Phase.GRANTED, grant) if ours else Entry(Phase.REFUSED))
    landed = state._replace(rows=tuple(rows))
    return landed, put(landed, index, worker)


def _asks_zookeeper(state: State, index: int, wanted: Sequence[int], rules: Rules, name: str) -> Iterator[Step]:
    """Yield ZooKeeper's answers. MySQL may have been asked before, and have granted the claims unheard."""
    worker = before = state.workers[index]
    if rules.at_most_once:
        for run in wanted:
            worker = change(worker, run, Entry(Phase.WAITING))
        yield Step(f"{name} waits for MySQL", put(state, index, worker))
        return
    alone = worker
    for run in wanted:
        grant = Grant.OUTDATED_AUTONOMOUS if is_outdated(before, run) else Grant.AUTONOMOUS
        alone = change(alone, run, Entry(Phase.GRANTED, grant, dirty=True))
    if worker.no_zookeeper or not rules.asks_zookeeper:
        yield Step(f"{name} without any fence", put(state, index, alone))
        return
    if fewer := spend(state, "lost_answers"):
        yield Step(f"{name}; ZooKeeper does not answer", put(fewer, index, alone))
    znodes = list(state.znodes)
    for run in wanted:
        answer = Entry(Phase.REFUSED, dirty=rules.gives_up_doubtful)
        if znodes[run] in (NOBODY, index):
            znodes[run] = index
            grant = Grant.OUTDATED_ZOOKEEPER if is_outdated(before, run) else Grant.ZOOKEEPER
            answer = Entry(Phase.GRANTED, grant, dirty=True)
        worker = change(worker, run, answer)
    yield Step(f"{name} in ZooKeeper", put(state, index, worker)._replace(znodes=tuple(znodes)))


def _starts(state: State, index: int, rules: Rules) -> Iterator[Step]:
    able = (Phase.GRANTED,) if rules.orders_expire else (Phase.GRANTED, Phase.STALE)
    granted = [run for run, entry in enumerate(state.workers[index].runs) if entry.phase in able]
    broken, after = "", state
    for run in granted:
        worker = after.workers[index]
        entry, first = worker.runs[run], after.starts[run]
        broken = broken or broken_by_start(after, index, run, rules)
        after = put(after, index, change(worker, run, entry._replace(phase=Phase.STARTED, grant=Grant.NOT, dirty=True)))
        if first is Grant.NOT:
            after = after._replace(starts=(*after.starts[:run], entry.grant, *after.starts[run + 1 :]))
    if granted:
        yield Step(f"worker {index} starts {', '.join(map(title, granted))}", after, broken)


def broken_by_start(state: State, index: int, run: int, rules: Rules) -> str:
    """Say which invariant a start breaks: I2 one start, I3 after the attempt before it, I4 once, Z never when lost."""
    first, row, grant = state.starts[run], state.rows[run], state.workers[index].runs[run].grant
    if first is not Grant.NOT:
        kinds = sorted({first, grant})
        return "I2 " + " and ".join(kind.name.lower() for kind in kinds)
    if rules.at_most_once and state.starts[run ^ 1] is not Grant.NOT:
        return "I4"
    if run % 2 == 1:
        before = state.rows[run - 1]
        known = state.workers[index].runs[run - 1].phase is Phase.LOST
        if not known and (before is None or before.state is RowState.CLAIMED):
            return "I3"
    if row is not None and row.owner == index and row.state is RowState.LOST:
        return "Z " + grant.name.lower()
    return ""


def reported(state: State, index: int) -> State:
    """Carry the journal home; a claim in ZooKeeper goes once its run is over and told."""
    worker = state.workers[index]
    rows, znodes, runs = list(state.rows), list(state.znodes), list(worker.runs)
    told = {Phase.STARTED: RowState.ENDED, Phase.SKIPPED: RowState.SKIPPED, Phase.LOST: RowState.LOST}
    for run, entry in enumerate(worker.runs):
        if not entry.dirty:
            continue
        news = told.get(entry.phase, RowState.CLAIMED)
        row = rows[run]
        if entry.phase in (Phase.REFUSED, Phase.NONE):
            if row is not None and row == Row(index, RowState.CLAIMED):
                rows[run] = Row(index, RowState.LOST)
        elif row is None or (row.owner == index and (news is RowState.ENDED or row.state is RowState.CLAIMED)):
            rows[run] = Row(index, news)
        over = entry.phase is Phase.STARTED
        runs[run] = Entry(Phase.OVER) if over else entry._replace(dirty=False)
        if entry.phase in told and znodes[run] == index:
            znodes[run] = NOBODY
    return put(state, index, worker._replace(runs=tuple(runs)))._replace(rows=tuple(rows), znodes=tuple(znodes))
