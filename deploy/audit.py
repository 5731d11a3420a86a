#!/usr/bin/env python3
"""Ask whether the locked packages have weaknesses that are known: deploy/audit.py PIP-AUDIT LOCK...

`tests/run audit` makes the environment for it. Exit status 1: a package has a known weakness. 0: none has, or nobody
could be asked; the output says which. Nothing is installed and nothing is built for the question.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 300


@dataclass(frozen=True)
class Answer:
    """What pip-audit says of one lock file."""

    asked: int
    weak: tuple[str, ...]
    unknown: int


def read(report: Any) -> Answer:
    """Read pip-audit's JSON. Raises ValueError for anything else."""
    if not isinstance(report, dict) or not isinstance(report.get("dependencies"), list):
        raise ValueError("not a report of pip-audit")
    found = report["dependencies"]
    weak = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for one in found
        for hole in one.get("vulns", [])
    ]
    return Answer(len(found), tuple(weak), sum("skip_reason" in one for one in found))


def ask(program: str, lock: str) -> Answer | None:
    """Return what the program says of a lock file; None when it could not say anything."""
    command = [program, "--requirement", lock, "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        return read(json.loads(result.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        return None


def main(program: str, locks: list[str]) -> int:
    """Print the answers; return the exit status."""
    weak: list[str] = []
    for lock in locks:
        answer = ask(program, lock)
        if answer is None:
            print(f"{lock}: the advisories could not be reached: nothing is known")
            continue
        weak += answer.weak
        known = answer.asked - answer.unknown
        print(f"{lock}: {known} of {answer.asked} packages looked up, {len(answer.weak)} known weaknesses")
        if answer.unknown:
            print(f"{lock}: of {answer.unknown} packages the advisories say nothing, or could not be reached")
    print("\n".join(sorted(set(weak))))
    return 1 if weak else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
