"""Reading many znodes at once, and not again what is known to be unchanged.

A watch that has not fired says that what was read still stands: the server tells of a change before it shows the new
state. So with `watch=True` an answer is kept until its watch fires, the connection breaks, or a minute has passed, and
a loop that looks at everything each second asks only for what has changed. Without `watch` the server is always asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cronkeeper.coord import paths
from cronkeeper.coord.requests import (
    Answer,
    Check,
    Children,
    Exists,
    Fault,
    Get,
    Multi,
    Node,
    Refused,
    Session,
    Stat,
    Write,
)
from cronkeeper.errors import UnavailableError
from cronkeeper.runtime.clock import Clock

#: Even if a watch were lost, the truth is read again after this long.
KEEP_S = 60.0
#: How often a znode that comes and goes while we look is looked at again.
TRIES = 5

#: So many znodes are asked for before something is made of them: what comes in is large, what is made of it is not.
PIECE = 500

Kind = type[Get] | type[Children] | type[Exists]
#: Whose answers are kept apart: those of one kind as they came, and what one name stands for.
View = Kind | str
K = TypeVar("K")
T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    """A kept answer, or the place for one while the question is under way (`read_s` is None)."""

    #: As it came, or what was made of it; of a place, what stood there before.
    answer: Any = None
    read_s: float | None = None
    #: The change of the znode that something was made of.
    mzxid: int = 0


class Reads:
    """Reads over one session. A missing znode is None. `on_change` is called after each change of what was watched."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[View, dict[str, _Entry]] = {}
        self._swept_s = clock.boot_s()
        self._wake: Callable[[], None] = lambda: None
        session.listen(self._on_event)

    def on_change(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def nodes(self, wanted: Sequence[str], *, watch: bool = False) -> list[Node | None]:
        """Return the znodes' data and stat, in order."""
        return [answer if isinstance(answer, Node) else None for answer in self._read(Get, wanted, watch)]

    def children(self, wanted: Sequence[str], *, watch: bool = False) -> list[tuple[str, ...] | None]:
        """Return the names in each folder, in order."""
        return [answer if isinstance(answer, tuple) else None for answer in self._read(Children, wanted, watch)]

    def stats(self, wanted: Sequence[str], *, watch: bool = False) -> list[Stat | None]:
        """Return the znodes' stats, in order."""
        return [answer if isinstance(answer, Stat) else None for answer in self._read(Exists, wanted, watch)]

    def made(self, view: str, kind: Kind, wanted: Mapping[str, K], make: Callable[[K, Any], T | None]) -> dict[K, T]:
        """Return what `make` makes of each znode, watched, by the key of its path; what it makes None of is left out.

        It is given a Node or a folder's names, once for each change, and only what it makes is kept. A view must always
        come with a `make` that means the same: the name stands for it.
        """

        def made_of(place: _Entry, path: str, answer: Answer) -> tuple[Any, int]:
            if answer is None:
                return None, 0
            mzxid = answer.stat.mzxid if isinstance(answer, Node) else 0
            if mzxid and mzxid == place.mzxid:
                return place.answer, mzxid
            return make(wanted[path], answer), mzxid

        known = self._watched(view, kind, list(wanted), made_of)
        return {key: found for path, key in wanted.items() if (found := known[path]) is not None}

    def write(self, requests: Sequence[Write | Multi]) -> list[Answer]:
        """Send writes, and forget what is kept of the znodes they touch, so that we see our own writes at once."""
        try:
            return self._session.run(requests)
        finally:
            ops = [op for request in requests for op in (request.ops if isinstance(request, Multi) else (request,))]
            touched = {op.path for op in ops if not isinstance(op, Check)}
            self._drop(touched | {paths.parent(path) for path in touched})

    def forget(self, wanted: Iterable[str]) -> None:
        """Ask the server for these the next time, whatever is kept of them."""
        self._drop(wanted)

    def _read(self, kind: Kind, wanted: Sequence[str], watch: bool) -> list[Answer]:
        if not watch:
            return [_or_none(answer, path) for answer, path in zip(self._ask(kind, wanted, watch), wanted, strict=True)]
        known = self._watched(kind, kind, wanted, lambda _place, _path, answer: (answer, 0))
        return [known[path] for path in wanted]

    def _watched(
        self, view: View, kind: Kind, wanted: Sequence[str], made_of: Callable[[_Entry, str, Answer], tuple[Any, int]]
    ) -> dict[str, Any]:
        if not self._session.connected:
            raise UnavailableError("ZooKeeper: not connected")
        # In silence, what was told before may not stand any more, and its change may be unable to reach us.
        silent = self._session.silence_s() > self._session.timeout_s * 2 / 3
        known = {} if silent else self._take(view, wanted)
        todo = [path for path in dict.fromkeys(wanted) if path not in known]
        for _ in range(TRIES):
            if not todo:
                return known
            pieces = [todo[first : first + PIECE] for first in range(0, len(todo), PIECE)]
            todo = [path for piece in pieces for path in self._learn(view, kind, piece, known, made_of)]
        raise UnavailableError(f"ZooKeeper: {todo[0]} comes and goes")

    def _learn(
        self,
        view: View,
        kind: Kind,
        wanted: list[str],
        known: dict[str, Any],
        made_of: Callable[[_Entry, str, Answer], tuple[Any, int]],
    ) -> list[str]:
        """Ask for these with watches, add what stands to `known`, and return what must be asked again."""
        places = self._reserve(view, wanted)
        answers = dict(zip(wanted, self._ask(kind, wanted, True), strict=True))
        missing = [path for path, answer in answers.items() if isinstance(answer, Refused)]
        for path in missing:
            answers[path] = _or_none(answers[path], path)
        # Only this kind of watch can be left on a znode that is not there.
        appeared = set()
        if kind is not Exists and missing:
            stats = self._ask(Exists, missing, True)
            appeared = {path for path, stat in zip(missing, stats, strict=True) if stat is not None}
        made = {path: made_of(places[path], path, answer) for path, answer in answers.items() if path not in appeared}
        self._keep(view, made, places)
        known.update({path: answer for path, (answer, _) in made.items()})
        return [path for path in wanted if path in appeared]

    def _ask(self, kind: Kind, wanted: Sequence[str], watch: bool) -> list[Answer]:
        return self._session.run([kind(path, watch) for path in wanted])

    def _take(self, view: View, wanted: Sequence[str]) -> dict[str, Any]:
        now_s = self._clock.boot_s()
        with self._lock:
            if now_s - self._swept_s > KEEP_S:
                self._swept_s = now_s
                self._sweep(now_s)
            entries = self._kept.get(view, {})
            kept = {path: entries.get(path) for path in wanted}
        return {path: entry.answer for path, entry in kept.items() if entry is not None and _stands(entry, now_s)}

    def _sweep(self, now_s: float) -> None:
        """Forget what nobody has asked for again. What was made may serve once more, if its znode is the same still."""
        for view, entries in self._kept.items():
            keep_s = 2 * KEEP_S if isinstance(view, str) else KEEP_S
            self._kept[view] = {path: entry for path, entry in entries.items() if _stands(entry, now_s, keep_s)}

    def _reserve(self, view: View, wanted: Sequence[str]) -> dict[str, _Entry]:
        with self._lock:
            entries = self._kept.setdefault(view, {})
            before = ((path, entries.get(path)) for path in wanted)
            places = {
                path: _Entry() if old is None or old.read_s is None else _Entry(old.answer, None, old.mzxid)
                for path, old in before
            }
            entries.update(places)
        return places

    def _keep(self, view: View, made: dict[str, tuple[Any, int]], places: dict[str, _Entry]) -> None:
        now_s = self._clock.boot_s()
        with self._lock:
            entries = self._kept.get(view, {})
            for path, (answer, mzxid) in made.items():
                # A place that is no longer ours was cleared by a change since we asked: what we heard may be old.
                if entries.get(path) is places[path]:
                    place = places[path]
                    place.answer, place.mzxid, place.read_s = answer, mzxid, now_s

    def _on_event(self, path: str | None) -> None:
        if path is None:
            with self._lock:
                self._kept.clear()
        else:
            self._drop([path])
        self._wake()

    def _drop(self, touched: Iterable[str]) -> None:
        with self._lock:
            for path in touched:
                for entries in self._kept.values():
                    entries.pop(path, None)


def _stands(entry: _Entry, now_s: float, keep_s: float = KEEP_S) -> bool:
    return entry.read_s is not None and now_s - entry.read_s <= keep_s


def _or_none(answer: Answer, path: str) -> Answer:
    if not isinstance(answer, Refused):
        return answer
    if answer.fault is Fault.NO_NODE:
        return None
    raise UnavailableError(f"ZooKeeper: {path}: {answer.fault}")
