"""Namespaces of tokens. Those of before are good for all of them, as they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    kind = sa.String(4000).with_variant(mysql.VARCHAR(4000, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    op.add_column("tokens", sa.Column("namespaces", kind, nullable=False, server_default="*"))


def downgrade() -> None:
    """Drop it: every token is good for all namespaces again, so revoke those that must not be."""
    op.drop_column("tokens", "namespaces")
