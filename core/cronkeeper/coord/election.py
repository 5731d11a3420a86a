"""Who leads: ephemeral sequential candidates, of which the lowest leads.

A candidate's name carries a token of its process, so that one whose creation was never answered is recognised. To be
the leader is never remembered for longer than half a second: it is read, and every leader write checks the candidate in
its own transaction.
"""

from __future__ import annotations

import logging
import threading
import uuid
from dataclasses import dataclass

from cronkeeper.coord import paths
from cronkeeper.coord.reads import Reads
from cronkeeper.coord.requests import Create, Delete, Fault, Node, Put, Refused, Session
from cronkeeper.errors import UnavailableError, WireFormatError
from cronkeeper.ports import Leadership
from cronkeeper.runtime.clock import Clock
from cronkeeper.wire.znodes import LeaderNote, decode_leader, encode_leader

log = logging.getLogger(__name__)

#: For so long an answer of the server about who leads is believed.
BELIEVE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: str
    session_id: int
    note: bytes


@dataclass(frozen=True, slots=True)
class _Seen:
    leadership: Leadership | None
    at_s: float
    candidate: _Candidate


class Election:
    """One process's part in the election. Safe to use from several threads."""

    def __init__(self, session: Session, reads: Reads, clock: Clock) -> None:
        self._session = session
        self._reads = reads
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._candidate: _Candidate | None = None
        self._seen: _Seen | None = None

    def campaign(self, note: LeaderNote) -> None:
        """Stand with this session. Costs nothing while standing. Raises UnavailableError; safe to repeat."""
        raw = encode_leader(note)
        with self._lock:
            session_id = self._session.session_id
            current = self._candidate
            if current is not None and current.session_id == session_id and current.note == raw:
                return
            if session_id == 0:
                raise UnavailableError("ZooKeeper: no session to stand for leadership with")
            path = self._adopt(session_id)
            if path is not None:
                answer = self._reads.write([Put(path, raw)])[0]
            else:
                answer = self._reads.write(
                    [Create(paths.candidate_prefix(self._token), raw, ephemeral=True, sequence=True)]
                )[0]
                path = answer if isinstance(answer, str) else None
            if isinstance(answer, Refused) or path is None:
                raise UnavailableError("ZooKeeper: the tree changes while we stand for leadership")
            self._candidate, self._seen = _Candidate(path, session_id, raw), None

    def leadership(self) -> Leadership | None:
        """Return the proof if this session leads now. Raises UnavailableError when that cannot be read."""
        with self._lock:
            candidate = self._candidate
            if candidate is None or candidate.session_id != self._session.session_id:
                return None
            if self._session.silence_s() > self._session.timeout_s * 2 / 3:
                return None
            now_s = self._clock.boot_s()
            seen = self._seen
            if seen is None or seen.candidate is not candidate or not 0 <= now_s - seen.at_s <= BELIEVE_S:
                self._seen = seen = _Seen(self._look(candidate), now_s, candidate)
            return seen.leadership

    def resign(self) -> None:
        """Withdraw. Raises UnavailableError; the session's end withdraws as well."""
        with self._lock:
            candidate, self._candidate, self._seen = self._candidate, None, None
            if candidate is not None and candidate.session_id == self._session.session_id:
                self._reads.write([Delete(candidate.path)])

    def rivals(self) -> list[LeaderNote]:
        """Return the other candidates' notes, in their order. Raises UnavailableError."""
        with self._lock:
            own = None if self._candidate is None else paths.name(self._candidate.path)
        names = [name for name in _standing(self._reads.children([paths.LEADER])[0] or ()) if name != own]
        nodes = self._reads.nodes([paths.join(paths.LEADER, name) for name in names])
        notes = [_decoded(name, node) for name, node in zip(names, nodes, strict=True) if node is not None]
        return [note for note in notes if note is not None]

    def leader(self) -> LeaderNote | None:
        """Return the lowest candidate's note."""
        for _ in range(5):
            names = _standing(self._reads.children([paths.LEADER])[0] or ())
            if not names:
                return None
            node = self._reads.nodes([paths.join(paths.LEADER, names[0])])[0]
            if node is not None:
                return _decoded(names[0], node)
        raise UnavailableError("ZooKeeper: the leaders change while we look")

    def _look(self, candidate: _Candidate) -> Leadership | None:
        names = _standing(self._reads.children([paths.LEADER])[0] or ())
        own = paths.name(candidate.path)
        if own not in names:
            log.warning("our candidacy is gone", extra={"event": "election.gone", "path": candidate.path})
            self._candidate = None
            return None
        place = names.index(own)
        ahead = candidate.path if place == 0 else paths.join(paths.LEADER, names[place - 1])
        own_stat, _ = self._reads.stats([candidate.path])[0], self._reads.stats([ahead], watch=True)
        if place > 0 or own_stat is None or own_stat.owner != candidate.session_id:
            return None
        return Leadership(candidate.path, own_stat.czxid)

    def _adopt(self, session_id: int) -> str | None:
        """Return the candidate that this session has already, and remove those of our earlier sessions."""
        names = self._reads.children([paths.LEADER])[0]
        if names is None:
            self._session.ensure_root()
            answer = self._reads.write([Create(paths.LEADER)])[0]
            if isinstance(answer, Refused) and answer.fault is not Fault.NODE_EXISTS:
                raise UnavailableError(f"ZooKeeper: cannot create {paths.LEADER}: {answer.fault}")
            return None
        ours = [
            paths.join(paths.LEADER, name) for name in _standing(names) if paths.candidate_token(name) == self._token
        ]
        mine = None
        for path, stat in zip(ours, self._reads.stats(ours), strict=True):
            if stat is None:
                continue
            if mine is None and stat.owner == session_id:
                mine = path
            else:
                self._reads.write([Delete(path)])
        return mine


def _decoded(name: str, node: Node) -> LeaderNote | None:
    try:
        return decode_leader(node.data)
    except WireFormatError as exc:
        log.warning(
            "a candidate's znode cannot be read",
            extra={"event": "zookeeper.undecodable", "path": name, "error": str(exc)},
        )
        return None


def _standing(names: tuple[str, ...]) -> list[str]:
    """Return the candidates' names, the leader's first; other names are left out."""
    orders = {}
    for name in names:
        try:
            orders[name] = paths.candidate_order(name)
        except ValueError:
            log.warning("a foreign znode under /leader", extra={"event": "zookeeper.foreign", "path": name})
    return sorted(orders, key=orders.__getitem__)
