"""What a process that holds keys does to keep them."""

from __future__ import annotations

import resource


def no_core_dumps() -> None:
    """Have this process and its children leave no core file: it would hold keys, tokens and passwords."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
