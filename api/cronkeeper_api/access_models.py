"""Shapes of requests about who may do what: tokens, and what is allowed in a namespace. As strict as `models`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from cronkeeper.domain.scope import ALL, MAX_NAMESPACES
from cronkeeper.ports import Role
from cronkeeper_api.models import DAY_S, Instant, Model
from cronkeeper_manager.service.namespaces import MAX_ACCOUNTS

MAX_BOUND = 10**15


class QuotasInput(Model):
    """Bounds of a namespace; null: none."""

    max_jobs: int | None = Field(default=None, ge=0, le=MAX_BOUND, description="Jobs that are not finished.")
    max_fires_per_minute: float | None = Field(
        default=None, ge=0, le=1e9, description="Expected fires a minute of all of them, each shard on its own."
    )
    min_interval_s: int | None = Field(
        default=None, ge=1, le=366 * DAY_S, description="The shortest time between two fires of a job, in seconds."
    )
    max_artifact_bytes: int | None = Field(
        default=None, ge=0, le=MAX_BOUND, description="Bytes of the files of all of them."
    )
    max_creates_per_minute: int | None = Field(
        default=None, ge=0, le=MAX_BOUND, description="Jobs that one token may create in a minute of the clock."
    )


class NamespaceInput(Model):
    """What is allowed in a namespace. What is left out is not bounded."""

    run_as: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] | None = Field(
        default=None,
        max_length=MAX_ACCOUNTS,
        description="Accounts that its jobs may name in run_as; root among them only for admins. null: those of the "
        "installation, and root for admins of all namespaces.",
    )
    quotas: QuotasInput = Field(default=QuotasInput(), description="Bounds.")


class DenialInput(Model):
    """An identity of the issuer that is to be let in no more."""

    subject: str = Field(min_length=1, max_length=190, description="The `sub` of its tokens.")


class ResignInput(Model):
    """Which tasks to sign anew."""

    after: str = Field(default="0", max_length=20, pattern="^[0-9]+$", description="The job after which to begin.")
    limit: int = Field(default=500, ge=1, le=1000, description="How many jobs at most.")


class TokenInput(Model):
    """A new token."""

    name: str = Field(min_length=1, max_length=128, description="Whom or what it is for.")
    role: Annotated[Role, Field(strict=False)] = Field(description="What it may do.")
    namespaces: list[Annotated[str, StringConstraints(max_length=63)]] = Field(
        default=[ALL],
        min_length=1,
        max_length=MAX_NAMESPACES,
        description="The namespaces that it is good for; `*` alone for all of them, which is what it is unless given.",
    )
    expires_at: Instant | None = Field(default=None, description="When it ends; never unless given.")
