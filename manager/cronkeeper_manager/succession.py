"""PURE: when a manager leaves the lead to another one because of MySQL.

Whoever leads without MySQL cannot place new jobs. While it answers nobody, leading without it goes on; while it answers
another manager, that one is the better leader. The order of the candidates never changes, as the writes of a leader are
fenced by it: who gives way goes to the end of the queue.
"""

from __future__ import annotations

from collections.abc import Iterable

from cronkeeper.wire.znodes import LeaderNote

#: A leader to whom MySQL has said nothing for so long looks whether it answers others. By then those have noticed, too,
#: if it answers nobody: see `reach.FRESH_S`.
GIVE_WAY_S = 10.0


def gives_way(*, leads: bool, silent_s: float, rivals: Iterable[LeaderNote]) -> bool:
    """Say whether to resign. `leads`: in a term, and not just elected; `silent_s`: for how long MySQL has not answered.

    Ask it for somebody just elected only if MySQL has not answered that one steadily.
    """
    return (silent_s >= GIVE_WAY_S or not leads) and any(rival.reaches_mysql for rival in rivals)
