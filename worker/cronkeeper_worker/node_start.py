"""When this node was started: noted at the first look after each start, and from then on always the same.

The kernel's word for it moves with the clock, so it is asked once a start; that it is another start, the boot id says.
A restart of our daemon, or of a container that it lives in, is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cronkeeper_worker.run_files import boot_id

_FILE = "node-start.json"


@dataclass(frozen=True, slots=True)
class NodeStart:
    """One start of the node."""

    boot_id: str
    #: Epoch milliseconds, UTC, on a full second.
    started_ms: int


def note(state_dir: Path) -> int:
    """Return the instant of this node's present start; the first look after the start fixes it.

    Raises OSError when it cannot be written down.
    """
    known = _read(state_dir)
    present = settled(known, boot_id(), _kernels_ms())
    if present != known:
        # Not needed by who only asks whether it is new, once a minute.
        from cronkeeper_worker.node_files import write_private

        write_private(state_dir / _FILE, json.dumps(asdict(present)).encode())
    return present.started_ms


def is_new(state_dir: Path) -> bool:
    """Say whether nobody of ours has looked since the node was started."""
    known = _read(state_dir)
    return known is None or known.boot_id != boot_id()


def settled(known: NodeStart | None, present_id: str, kernels_ms: int) -> NodeStart:
    """Return what the present start is noted as. PURE.

    A later start is noted at a later instant, whatever the clock says: else it would seem to be over and done with.
    """
    if known is not None and known.boot_id == present_id:
        return known
    return NodeStart(present_id, kernels_ms if known is None else max(kernels_ms, known.started_ms + 1000))


def _kernels_ms() -> int:
    """Return when the kernel says that it was started; now minus the time since then, in effect."""
    with open("/proc/stat") as file:
        for line in file:
            if line.startswith("btime "):
                return int(line.split()[1]) * 1000
    return 0


def _read(state_dir: Path) -> NodeStart | None:
    """Return what is noted; None for nothing that can be read."""
    try:
        data = json.loads((state_dir / _FILE).read_bytes())
        return NodeStart(str(data["boot_id"]), int(data["started_ms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
