"""${message}

Name the file NNNN_pre_… when the previous release's code still runs on the result (additions), and NNNN_post_… when it does
not (removals): those run only after every process has been replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades}
