"""Shapes of answers about identities and keys, for the OpenAPI document and its tests."""

from __future__ import annotations

from pydantic import BaseModel, Field

from cronkeeper_api.answers import Shape
from cronkeeper_api.models import Instant


class Denial(Shape):
    id: str
    identity: str = Field(description="Issuer and subject, with `#` between them.")
    denied_at: Instant


class NotResigned(Shape):
    job: str
    why: str


class Resigned(Shape):
    key: str = Field(description="The name of the key that signs now.")
    signed: int = Field(description="Jobs whose tasks were signed anew.")
    current: int = Field(description="Jobs whose tasks were signed by that key already.")
    refused: list[NotResigned] = Field(description="Jobs whose tasks are not rightly signed: change or remove them.")
    next: str | None = Field(description="What to send as `after`; null at the end.")


COMPONENTS: tuple[type[BaseModel], ...] = (Denial, NotResigned, Resigned)
