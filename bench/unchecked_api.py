"""The other side of `bench/security_cost.py`: the API server with its security taken out of this very process.

Not a program to use: there is no such switch in the product. It serves like `cronkeeper api`, by the same settings.
"""

from __future__ import annotations

import os
from typing import Any

import cronkeeper.store.jobs
import cronkeeper_api.app
import cronkeeper_manager.service.new_jobs
from cronkeeper.ports import NamespacePolicy, Role
from cronkeeper.runtime.config import load
from cronkeeper.wire.codec import dumps
from cronkeeper.wire.task import Signer, body_text
from cronkeeper.wire.trail import Actor, Entry
from cronkeeper_api.config import ApiConfig
from cronkeeper_api.main import run
from cronkeeper_manager.service.namespaces import Namespaces
from cronkeeper_manager.service.values import Caller

ANYBODY = Caller("1", "anybody", Role.ADMIN)
NOTHING = Entry("0" * 32, 0, Actor("", "", ""), "", "", "")
ALLOWED = NamespacePolicy("default")


def unsigned(self: Signer, task: Any) -> bytes:
    return dumps({"v": 1, "key": self.key_id, "sig": "", "body": body_text(task)})


def nothing(*_: Any, **__: Any) -> None:
    """In the place of a check."""


def take_out() -> None:
    """Take tokens and roles, signatures, the trail, quotas and the copies of secrets out of this process."""
    taken: tuple[tuple[Any, str, Any], ...] = (
        (cronkeeper_api.app, "authorize", lambda *_: ANYBODY),
        (cronkeeper_api.app, "client_address", lambda *_: ""),
        (Signer, "seal", unsigned),
        (cronkeeper.store.jobs, "add_trail", nothing),
        (cronkeeper_manager.service.new_jobs, "creation", lambda *_, **__: lambda _: NOTHING),
        (cronkeeper.store.jobs, "check_copies", nothing),
        (Namespaces, "policy", lambda *_: ALLOWED),
        (Namespaces, "weighing", nothing),
        (Namespaces, "check_room", nothing),
    )
    for owner, name, other in taken:
        if not hasattr(owner, name):
            raise RuntimeError(f"{owner} has no {name} any more: the bench no longer takes out what it says")
        setattr(owner, name, other)


if __name__ == "__main__":
    take_out()
    raise SystemExit(run(load(ApiConfig, file=None, environ=os.environ, flags={})))
