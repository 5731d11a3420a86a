"""The only place where a request goes to kazoo and its answer comes back.

kazoo's own calls wait without any limit while the connection is away, so only their asynchronous forms are used, each
answer with a deadline. kazoo's errors end here: a fact about the tree becomes a `Refused`, a lost or late answer an
`UnavailableError`, a missing right a `ConfigError`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from kazoo import exceptions as kz
from kazoo.handlers.threading import KazooTimeoutError

from cronkeeper.coord import paths
from cronkeeper.coord.requests import (
    Answer,
    Check,
    Children,
    Create,
    Delete,
    Exists,
    Fault,
    Get,
    Multi,
    Node,
    Put,
    Refused,
    Request,
    Stat,
)
from cronkeeper.errors import ConfigError, UnavailableError

log = logging.getLogger(__name__)

#: How many requests are under way at once. More gain nothing: kazoo's one thread is the limit.
WINDOW = 200
#: However many requests one call has, and however slowly the answers drip in.
TOTAL_S = 30.0

_FAULTS: dict[type[Exception], Fault] = {
    kz.NoNodeError: Fault.NO_NODE,
    kz.NodeExistsError: Fault.NODE_EXISTS,
    kz.BadVersionError: Fault.BAD_VERSION,
    kz.NotEmptyError: Fault.NOT_EMPTY,
}
#: What a server says of the operations of a failed multi that were not to blame.
_BYSTANDERS = (kz.RolledBackError, kz.RuntimeInconsistency)
_TASKS = f"{paths.TASKS}/"
_TOLD_MOST = 1000
_FORBIDDEN = (kz.NoAuthError, kz.AuthFailedError, kz.InvalidACLError)


class Calls:
    """Requests in, answers out, over one client. `root` is put before every path, `acl` on everything created."""

    def __init__(
        self, client: Any, *, root: str, acl: Sequence[Any], answer_timeout_s: float, on_event: Callable[[Any], None]
    ) -> None:
        self._client = client
        self._root = root
        self._acl = list(acl)
        self._timeout_s = answer_timeout_s
        # One and the same callable for every watch: kazoo keeps a path's watches in a set, so repeating one is free.
        self._on_event = on_event
        #: Tasks that we were refused, and have told of.
        self._locked: set[str] = set()

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all, at most WINDOW at a time, and return the answers in order. See `requests.Session.run`."""
        # kazoo would queue a request for a time after the reconnect, and do it then, when we have long given it up.
        if not self._client.connected:
            raise UnavailableError("ZooKeeper: not connected")
        deadline = time.monotonic() + TOTAL_S
        answers: list[Answer] = []
        waiting: deque[tuple[Request, Any]] = deque()
        for request in requests:
            if len(waiting) >= WINDOW:
                answers.append(self._receive(*waiting.popleft(), deadline))
            waiting.append((request, self._send(request)))
        while waiting:
            answers.append(self._receive(*waiting.popleft(), deadline))
        return answers

    def relative(self, path: str) -> str:
        """Return a server's path without the chroot."""
        return path[len(self._root) :] or "/"

    def create_root(self) -> None:
        """Create the chroot, with our ACL on every part of it that was missing."""
        parts = self._root.split("/")[1:]
        deadline = time.monotonic() + TOTAL_S
        for n in range(len(parts)):
            request = Create("/" + "/".join(parts[: n + 1]))
            pending = self._client.create_async(request.path, b"", acl=self._acl)
            answer = self._receive(request, pending, deadline, strip=False)
            if isinstance(answer, Refused) and answer.fault is not Fault.NODE_EXISTS:
                raise UnavailableError(f"ZooKeeper: cannot create {request.path}: {answer.fault}")

    def close_root(self) -> bool:
        """If the chroot is open to anybody, give it our ACL; who else is named in its ACL stays. Say whether it was."""
        deadline = time.monotonic() + TOTAL_S
        acls, _ = self._wait(self._client.get_acls_async(self._root), self._root, deadline)
        named = [acl for acl in acls if acl.id.scheme != "world"]
        if len(named) == len(acls):
            return False
        closed = named + [acl for acl in self._acl if acl not in named]
        self._wait(self._client.set_acls_async(self._root, closed), self._root, deadline)
        return True

    def _send(self, request: Request) -> Any:
        client = self._client
        match request:
            case Get(path, watch):
                return client.get_async(self._full(path), watch=self._on_event if watch else None)
            case Children(path, watch):
                return client.get_children_async(self._full(path), watch=self._on_event if watch else None)
            case Exists(path, watch):
                return client.exists_async(self._full(path), watch=self._on_event if watch else None)
            case Create(path, data, ephemeral, sequence):
                return client.create_async(
                    self._full(path), data, acl=self._acl, ephemeral=ephemeral, sequence=sequence
                )
            case Put(path, data, version):
                return client.set_async(self._full(path), data, version=version)
            case Delete(path, version):
                return client.delete_async(self._full(path), version=version)
            case Multi(ops):
                return self._send_multi(ops)

    def _send_multi(self, ops: Sequence[Create | Put | Delete | Check]) -> Any:
        transaction = self._client.transaction()
        for op in ops:
            path = self._full(op.path)
            match op:
                case Check():
                    transaction.check(path, -1)
                case Create(_, data, ephemeral, sequence):
                    transaction.create(path, data, acl=self._acl, ephemeral=ephemeral, sequence=sequence)
                case Put(_, data, version):
                    transaction.set_data(path, data, version=version)
                case Delete(_, version):
                    transaction.delete(path, version=version)
        return transaction.commit_async()

    def _receive(self, request: Request, pending: Any, deadline: float, *, strip: bool = True) -> Answer:
        where = request.ops[0].path if isinstance(request, Multi) else request.path
        try:
            value = self._wait(pending, where, deadline)
        except tuple(_FAULTS) as exc:
            return Refused(_FAULTS[type(exc)])
        except ConfigError:
            if isinstance(request, Get) and request.path.startswith(_TASKS):
                # Somebody has locked us out of this task alone. The leader makes it anew; nobody dies of it.
                self._tell_locked(request.path)
                return Refused(Fault.NO_NODE)
            raise
        match request:
            case Get():
                return Node(value[0], _stat(value[1]))
            case Children():
                return tuple(value)
            case Exists():
                return None if value is None else _stat(value)
            case Create():
                return self.relative(value) if strip else str(value)
            case Multi(ops):
                return _multi_answer(ops, value)
            case _:
                return None

    def _tell_locked(self, path: str) -> None:
        if path not in self._locked and len(self._locked) < _TOLD_MOST:
            self._locked.add(path)
            log.error("ZooKeeper refuses us a task", extra={"event": "zookeeper.locked", "path": path})

    def _wait(self, pending: Any, where: str, deadline: float) -> Any:
        try:
            return pending.get(timeout=max(0.0, min(self._timeout_s, deadline - time.monotonic())))
        except tuple(_FAULTS):
            raise
        except _FORBIDDEN as exc:
            raise _forbidden(where) from exc
        except (kz.KazooException, KazooTimeoutError) as exc:
            raise UnavailableError(f"ZooKeeper: no answer for {where}: {type(exc).__name__}") from exc

    def _full(self, path: str) -> str:
        return self._root if path == "/" else self._root + path


def _multi_answer(ops: Sequence[Any], results: Sequence[Any]) -> Refused | None:
    # commit() never raises: a refused operation is an item among the results.
    for index, result in enumerate(results):
        if not isinstance(result, Exception) or isinstance(result, _BYSTANDERS):
            continue
        fault = _FAULTS.get(type(result))
        if fault is not None:
            return Refused(fault, index)
        where = ops[min(index, len(ops) - 1)].path
        if isinstance(result, _FORBIDDEN):
            raise _forbidden(where) from result
        raise UnavailableError(f"ZooKeeper: {where}: {type(result).__name__}") from result
    if any(isinstance(result, Exception) for result in results):
        raise UnavailableError("ZooKeeper: a multi-operation was rolled back without a reason")
    return None


def _stat(raw: Any) -> Stat:
    return Stat(raw.version, raw.czxid, raw.mzxid, raw.ephemeralOwner)


def _forbidden(where: str) -> ConfigError:
    return ConfigError(f"ZooKeeper refuses us access to {where}: check the user and the password (zookeeper auth)")
