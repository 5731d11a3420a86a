"""Alembic's way in: cronkeeper.store.upgrade hands over its own connection, which holds the lock."""

from __future__ import annotations

from alembic import context

from cronkeeper.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
