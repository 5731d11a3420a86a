"""The protocol's model compiled: builds protocol.c, asks it, and says its answers in the words of the Python model."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tests.unit.protocol_deep import KINDS
from tests.unit.protocol_model import NOBODY, Entry, Grant, Mode, Phase, Row, RowState, Rules, State, Worker

SOURCE = Path(__file__).with_name("protocol.c")
RUNS, MOST_STEPS, MOST_BROKEN = 6, 64, 128
FLAGS = (
    "reads_back", "refuses_lost", "waits_for_release", "catches_up", "asks_zookeeper", "orders_expire", "carries_home",
    "trusts_ledger", "looks_for_lost", "hints_are_certain", "hints_by_ledger", "tells_unstarted", "gives_up_doubtful",
)  # fmt: skip
_BROKEN = {
    0: "",
    1: "I4",
    2: "I3",
    3: "I15 a fire without a decision",
    4: "I11 a fire that nobody runs",
    5: "I13 not one owner",
    6: "I12 a claim on which nobody acts",
}
_WHEN_LOST, _TWICE = 16, 64


class CRules(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("at_most_once", ctypes.c_int32),
        ("fires", ctypes.c_int32),
        ("most", ctypes.c_int32 * len(KINDS)),
        ("troubles", ctypes.c_int32),
        *((flag, ctypes.c_int32) for flag in FLAGS),
    ]


class CPacked(ctypes.Structure):
    _fields_: ClassVar[Any] = [("shared", ctypes.c_uint64), ("workers", ctypes.c_uint64 * 2)]


@functools.cache
def library() -> Any:
    """Compile, and load what came of it. Raises FileNotFoundError where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("the deep search of the protocol is compiled: install a C compiler (Debian: gcc)")
    with tempfile.TemporaryDirectory(prefix="protocol-") as folder:
        built = Path(folder) / "protocol.so"
        command = [compiler, "-O3", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(built), str(SOURCE)], check=True)
        found = ctypes.CDLL(str(built))
    found.search_deep.restype = ctypes.c_uint64
    return found


def as_c(rules: Rules) -> CRules:
    flags = {flag: int(getattr(rules, flag)) for flag in FLAGS}
    most = (ctypes.c_int32 * len(KINDS))(*(getattr(rules, kind) for kind in KINDS))
    return CRules(int(rules.at_most_once), rules.fires, most, rules.troubles, *flags.values())


def words(broken: int) -> str:
    """Return the Python model's name for what is broken."""
    if broken >= _TWICE:
        grants = sorted({Grant((broken - _TWICE) // 8), Grant((broken - _TWICE) % 8)})
        return "I2 " + " and ".join(grant.name.lower() for grant in grants)
    return "Z " + Grant(broken - _WHEN_LOST).name.lower() if broken >= _WHEN_LOST else _BROKEN[broken]


# -- states as numbers


def packed(state: State) -> CPacked:
    """Return the three numbers that stand for a state, without what may still go wrong."""
    shared = 0
    for row in reversed(_padded(state.rows, None)):
        shared = shared << 4 | (0 if row is None else 1 + 4 * row.owner + row.state)
    for znode in reversed(_padded(state.znodes, NOBODY)):
        shared = shared << 2 | (znode + 1)
    for start in reversed(_padded(state.starts, Grant.NOT)):
        shared = shared << 3 | start
    shared = shared << 6 | state.due | (state.assigned + 1) << 2 | state.hint << 4
    return CPacked(shared, (ctypes.c_uint64 * 2)(*map(_worker_number, state.workers)))


def unpacked(numbers: CPacked, left: tuple[int, ...], fires: int) -> State:
    """Return the state for which these numbers stand."""
    shared = numbers.shared
    due, assigned, hint, shared = shared & 3, (shared >> 2 & 3) - 1, shared >> 4 & 3, shared >> 6
    starts = tuple(Grant(shared >> 3 * run & 7) for run in range(2 * fires))
    shared >>= 3 * RUNS
    znodes = tuple((shared >> 2 * run & 3) - 1 for run in range(2 * fires))
    shared >>= 2 * RUNS
    rows = tuple(_row(shared >> 4 * run & 15) for run in range(2 * fires))
    one, two = (_worker(number, fires) for number in numbers.workers)
    return State(due, assigned, hint, rows, znodes, starts, (one, two), *left)


def _padded(values: tuple[Any, ...], filler: Any) -> tuple[Any, ...]:
    return (*values, *(filler for _ in range(RUNS - len(values))))


def _row(number: int) -> Row | None:
    return Row((number - 1) // 4, RowState((number - 1) % 4)) if number else None


def _worker_number(worker: Worker) -> int:
    number = (
        worker.mode | worker.has_task << 2 | worker.owns << 3 | worker.no_mysql << 4 | worker.no_zookeeper << 5
        | worker.cursor << 6 | worker.seen << 8 | worker.outdated << 10
    )  # fmt: skip
    for entry in reversed(_padded(worker.runs, Entry())):
        number = number << 8 | entry.phase | entry.grant << 4 | entry.dirty << 7
    return int(number)


def _worker(number: int, fires: int) -> Worker:
    runs = []
    for run in range(2 * fires):
        byte = number >> 8 * run & 255
        runs.append(Entry(Phase(byte & 15), Grant(byte >> 4 & 7), bool(byte >> 7)))
    head = number >> 8 * RUNS
    has_task, owns, no_mysql, no_zookeeper, outdated = (bool(head >> bit & 1) for bit in (2, 3, 4, 5, 10))
    cursor, seen = head >> 6 & 3, head >> 8 & 3
    return Worker(
        Mode(head & 3), has_task, owns, no_mysql, no_zookeeper, cursor, seen, outdated, tuple(runs)
    )  # fmt: skip


# -- questions


def left_of(state: State) -> tuple[int, ...]:
    return (*(getattr(state, kind) for kind in KINDS), state.troubles)


def steps_after(state: State, rules: Rules) -> list[tuple[State, str]]:
    """Return what may happen next and what it breaks, in the order of `protocol_steps.steps`."""
    after, broken = (CPacked * MOST_STEPS)(), (ctypes.c_uint8 * MOST_STEPS)()
    size = len(KINDS) + 1
    lefts = (ctypes.c_uint8 * (MOST_STEPS * size))()
    left = (ctypes.c_uint8 * size)(*left_of(state))
    count = library().steps_after(
        ctypes.byref(as_c(rules)), ctypes.byref(packed(state)), left, after, lefts, broken
    )  # fmt: skip
    return [
        (unpacked(after[i], tuple(lefts[i * size : (i + 1) * size]), rules.fires), words(broken[i]))
        for i in range(count)
    ]


def silence_of(state: State, rules: Rules) -> str:
    """Return what is missing once everything has healed and come to rest."""
    return words(library().silence_of(ctypes.byref(as_c(rules)), ctypes.byref(packed(state))))


_TOLD = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_uint64, ctypes.c_uint64)


def search_deep(
    rules: Rules, *, slots_log2: int = 24, told: Callable[[int, int, int], None] = lambda *_: None
) -> tuple[int, dict[str, State]]:
    """Search as `DeepSearch` does; return the number of states, and a state before each kind of violation.

    `told` hears after each number of troubles how many states were found and looked at. Raises MemoryError when there
    are more states than fit: 26 bytes each, 40 where there are more than 16 ways to have spent the troubles.
    """
    is_found, found = (ctypes.c_uint8 * MOST_BROKEN)(), (CPacked * MOST_BROKEN)()
    states = library().search_deep(ctypes.byref(as_c(rules)), slots_log2, is_found, found, _TOLD(told))
    if not states:
        raise MemoryError(f"more states than 7/8 of 2**{slots_log2}, or more than memory has room for: {rules}")
    nothing = (0,) * (len(KINDS) + 1)
    kinds = {words(i): unpacked(found[i], nothing, rules.fires) for i in range(MOST_BROKEN) if is_found[i]}
    return states, kinds
