"""Shapes of the audit trail's answers, for the OpenAPI document and its tests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from cronkeeper_api.answers import Shape
from cronkeeper_api.models import Instant


class AuditActor(Shape):
    token: str = Field(description="The token's id; empty where the leader itself did it.")
    name: str
    role: str


class AuditEntry(Shape):
    """Something that was done."""

    seq: int | None = Field(description="Its number in the chain; null until a leader has linked it.")
    at: Instant
    actor: AuditActor
    source: str = Field(description="The client's address.")
    request_id: str
    action: str
    object: str = Field(description="What it was done to: job/17, worker/node-3.")
    namespace: str | None
    old: Any = Field(description="What was, as far as it changed.")
    new: Any = Field(description="What it became. Values of env are left out, long ones are told by their SHA-256.")
    nonce: str
    prev_hash: str | None
    hash: str | None = Field(description="SHA-256 over all of it, its number and the hash before.")


class AuditFault(Shape):
    seq: int
    why: str


class AuditAnchor(Shape):
    seq: int
    hash: str
    at: Instant
    floor: int = Field(description="What is below was removed as too old.")


class AuditCheck(Shape):
    """What checking a piece of the audit trail found."""

    checked: int
    through: int = Field(description="The last one that was looked at.")
    hash: str | None
    done: bool = Field(description="Whether that is the newest one.")
    broken: AuditFault | None = Field(description="The first place where the trail is not as it was made.")
    anchor: AuditAnchor | None = Field(description="What a leader said last of the trail in ZooKeeper.")


COMPONENTS: tuple[type[BaseModel], ...] = (AuditEntry, AuditCheck)
