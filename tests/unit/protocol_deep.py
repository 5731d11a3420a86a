"""The same search as in protocol_search.py, for many more states, and without the traces.

What makes them fewer, and why nothing that could break is left out:
- *Workers are alike.* No rule says which of them is worker 0: of two states that are mirror images one is visited.
- *Who has more troubles left can do all that the other can.* So a state is visited again only when what was spent on
  the way is not at least as much of every kind as at an earlier visit. What cost least is visited first.

And what makes them cheap: a step of a worker reads and writes its own part and the common part, and reads of the other
one only whether it `owns` the task. So parts are numbered, a state is one number made of three, and the steps of a pair
of parts are computed by `steps_of` once: it is the same model. The tests compare what both searches find.
"""

from __future__ import annotations

import gc
import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from tests.unit.protocol_model import NOBODY, Grant, Row, Rules, State, Worker, begin, looked
from tests.unit.protocol_search import Found, healed, missing, next_calm
from tests.unit.protocol_steps import steps_of

KINDS = ("crashes", "cuts", "pauses", "lost_answers", "moves")
#: More than any step spends.
PLENTY = 9
_BITS = 22
_PART = (1 << _BITS) - 1
#: So many pairs of parts are remembered with their steps.
_REMEMBERED = 300_000

T = TypeVar("T", bound=Hashable)


def bounded(fires: int, *most: int, at_most_once: bool = False) -> Rules:
    """Return rules under which so many troubles of each of KINDS may come together."""
    limits = dict(zip(KINDS, most, strict=True))
    return replace(Rules(fires=fires, troubles=sum(most), at_most_once=at_most_once), **limits)  # type: ignore[arg-type]


class Shared(NamedTuple):
    """What both workers read and write: the first part of a `State`."""

    due: int
    assigned: int
    hint: int
    rows: tuple[Row | None, ...]
    znodes: tuple[int, ...]
    starts: tuple[Grant, ...]


class Change(NamedTuple):
    """A step of one worker: the parts after it, and its price by `_Prices.costs`."""

    shared: int
    worker: int
    price: int
    broken: str


class Numbered(Generic[T]):
    """Numbers for values, from 0 on."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def __call__(self, value: T) -> int:
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class Prices:
    """What was spent so far, by number; each number also stands for a set of those that are no less, as bits."""

    def __init__(self, rules: Rules) -> None:
        ranges = (range(getattr(rules, kind) + 1) for kind in KINDS)
        self.spent = [one for one in itertools.product(*ranges) if sum(one) <= rules.troubles]
        self._numbers = {one: number for number, one in enumerate(self.spent)}
        self.no_less = [
            sum(1 << n for n, other in enumerate(self.spent) if all(map(int.__ge__, other, one))) for one in self.spent
        ]
        self.costs: Numbered[tuple[int, ...]] = Numbered()
        self._sums: dict[tuple[int, int], int | None] = {}

    def after(self, spent: int, cost: int) -> int | None:
        """Return what is spent after a step; None if that is more than there was."""
        if (spent, cost) not in self._sums:
            total = tuple(map(int.__add__, self.spent[spent], self.costs.values[cost]))
            self._sums[spent, cost] = self._numbers.get(total)
        return self._sums[spent, cost]


class DeepSearch:
    """One search; `run` it once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._prices = Prices(rules)
        self._free = self._prices.costs((0,) * len(KINDS))
        self._shared: Numbered[Shared] = Numbered()
        self._workers: Numbered[Worker] = Numbered()
        idle = begin(rules).workers[1]
        self._others = (idle, idle._replace(owns=True))
        self._mirrored: dict[int, int] = {}
        self._changes: dict[int, list[Change]] = {}
        self._healed: dict[tuple[int, int], int] = {}
        self._rests: dict[int, str] = {}
        self._found = Found()

    def run(self, *, most: int = 30_000_000) -> Found:
        """Visit every reachable state, but not what lies behind a violation. Raises when there are too many."""
        first = self._number(begin(self._rules))
        covered = {first: self._prices.no_less[0]}
        by_spent: defaultdict[int, list[tuple[int, int]]] = defaultdict(list, {0: [(first, 0)]})
        sums = [sum(one) for one in self._prices.spent]
        collecting = gc.isenabled()
        gc.disable()  # Nothing here is a cycle, and there is a great deal of it.
        try:
            for level in range(max(sums) + 1):
                todo = by_spent.pop(level, [])
                while todo:
                    code, spent = todo.pop()
                    for after, cost in self._after(code):
                        price = self._prices.after(spent, cost)
                        if price is None:
                            continue
                        known = covered.get(after)
                        if known is None:
                            self._judge(after)
                            known = 0
                        elif known >> price & 1:
                            continue
                        covered[after] = known | self._prices.no_less[price]
                        (todo if cost == self._free else by_spent[sums[price]]).append((after, price))
                    if len(covered) > most:
                        raise AssertionError(f"more than {most} states: {self._rules}")
                print(f"{level} troubles: {len(covered)} states, {sorted(self._found.violations)}", flush=True)
        finally:
            if collecting:
                gc.enable()
        self._found.states = len(covered)
        return self._found

    # -- states as numbers

    def _number(self, state: State) -> int:
        left, right = state.workers
        return self._pack(self._shared(_shared(state)), self._workers(left), self._workers(right))

    def _pack(self, shared: int, left: int, right: int) -> int:
        one = shared << 2 * _BITS | left << _BITS | right
        return min(one, self._mirror(shared) << 2 * _BITS | right << _BITS | left)

    def _mirror(self, shared: int) -> int:
        found = self._mirrored.get(shared)
        if found is None:
            value = self._shared.values[shared]
            rows = tuple(row and Row(1 - row.owner, row.state) for row in value.rows)
            znodes = tuple(map(_other, value.znodes))
            found = self._shared(value._replace(assigned=_other(value.assigned), rows=rows, znodes=znodes))
            self._mirrored[shared], self._mirrored[found] = found, shared
        return found

    def _state(self, shared: int, left: Worker, right: Worker, troubles: int) -> State:
        return State(*self._shared.values[shared], (left, right), *(troubles,) * (len(KINDS) + 1))

    # -- what may happen next

    def _after(self, code: int) -> Iterator[tuple[int, int]]:
        """Yield the states after each step, and its cost; note what is broken."""
        shared, left, right = code >> 2 * _BITS, code >> _BITS & _PART, code & _PART
        yield from self._time_goes_by(shared, left, right)
        for index, (mine, other) in enumerate(((left, right), (right, left))):
            common = self._mirror(shared) if index else shared
            for change in self._changes_of(common, mine, owns=self._workers.values[other].owns):
                if change.broken:
                    self._note(change.broken, code)
                else:
                    yield self._pack(change.shared, change.worker, other), change.price

    def _time_goes_by(self, shared: int, left: int, right: int) -> Iterator[tuple[int, int]]:
        if self._shared.values[shared].due < self._rules.fires:
            state = self._state(shared, self._workers.values[left], self._workers.values[right], 0)
            yield self._number(looked(looked(state._replace(due=state.due + 1), 0), 1)), self._free

    def _changes_of(self, shared: int, worker: int, *, owns: bool) -> list[Change]:
        """Return the steps of a worker, as if it was worker 0, whose other one owns the task or does not."""
        key = shared << _BITS + 1 | worker << 1 | owns
        found = self._changes.get(key)
        if found is None:
            if len(self._changes) > _REMEMBERED:
                self._changes.clear()
            before = self._state(shared, self._workers.values[worker], self._others[owns], PLENTY)
            found = self._changes[key] = [
                Change(
                    self._shared(_shared(after)),
                    self._workers(after.workers[0]),
                    self._prices.costs(tuple(PLENTY - getattr(after, kind) for kind in KINDS)),
                    broken,
                )
                for _, after, broken in steps_of(before, 0, self._rules)
            ]
        return found

    # -- nothing is silent

    def _judge(self, code: int) -> None:
        """Note what is missing once everything has healed and come to rest."""
        shared, left, right = code >> 2 * _BITS, code >> _BITS & _PART, code & _PART
        calm = self._pack(shared, self._heal(shared, left), self._heal(shared, right))
        way, state = [], None
        while calm not in self._rests:
            way.append(calm)
            if state is None:
                parts = calm >> 2 * _BITS, calm >> _BITS & _PART, calm & _PART
                state = self._state(parts[0], self._workers.values[parts[1]], self._workers.values[parts[2]], 0)
            after = next_calm(state, self._rules)
            if after is None:
                self._rests[calm] = missing(state, self._rules)
                break
            state, calm = after, self._number(after)
        kind = self._rests[calm]
        self._rests.update(dict.fromkeys(way, kind))
        if kind:
            self._note(kind, code)

    def _heal(self, shared: int, worker: int) -> int:
        key = self._shared.values[shared].due, worker
        if key not in self._healed:
            state = self._state(shared, self._workers.values[worker], self._others[0], 0)
            self._healed[key] = self._workers(healed(state, self._rules).workers[0])
        return self._healed[key]

    def _note(self, kind: str, code: int) -> None:
        if kind not in self._found.violations:
            shared, left, right = code >> 2 * _BITS, code >> _BITS & _PART, code & _PART
            parts = self._shared.values[shared], self._workers.values[left], self._workers.values[right]
            self._found.violations[kind] = [str(part) for part in parts]


def _shared(state: State) -> Shared:
    return Shared(state.due, state.assigned, state.hint, state.rows, state.znodes, state.starts)


def _other(worker: int) -> int:
    return worker if worker == NOBODY else 1 - worker
