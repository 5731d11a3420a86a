"""What bandit finds in the product, compared with what somebody has looked at: any difference fails `tests/run lint`.

Findings are counted for each file and kind, so that moving lines about changes nothing, while one more of a kind does.
Comments that would silence bandit are not obeyed: what was looked at stands in `bandit_reviewed.toml`, with its reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REVIEWED = Path(__file__).with_name("bandit_reviewed.toml")
FOLDERS = ("core", "api", "manager", "worker", "cli", "deploy", "docs")

Kind = tuple[str, str]


def main() -> int:
    """Print what differs from what was looked at; return the exit status."""
    reviewed = tomllib.loads(REVIEWED.read_text())
    found = findings(ROOT, FOLDERS, skipped=reviewed["skipped"])
    faults = differences(found, expected(reviewed))
    told = f"bandit: {len(found)} findings; where it is not what was looked at: {len(faults)} files"
    print("\n".join([*faults, told]))
    return 1 if faults else 0


def findings(root: Path, folders: Iterable[str], *, skipped: Iterable[str]) -> list[dict[str, Any]]:
    """Return what bandit finds below the folders."""
    command = [str(Path(sys.executable).with_name("bandit")), "--quiet", "--recursive", *folders, "--format", "json"]
    command += ["--exit-zero", "--ignore-nosec", "--skip", ",".join(skipped)]
    report = json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
    # A file that bandit could not read was not looked at.
    assert report["errors"] == [], report["errors"]
    results: list[dict[str, Any]] = report["results"]
    return results


def expected(reviewed: Mapping[str, Any]) -> Counter[Kind]:
    """Return how many findings of each file and kind somebody has looked at."""
    counts: Counter[Kind] = Counter()
    for group in reviewed["reviewed"]:
        assert len(group["reason"]) > 20, f"say why {group['test']} is all right there"
        counts.update({(file, group["test"]): count for file, count in group["files"].items()})
    return counts


def differences(found: Iterable[Mapping[str, Any]], reviewed: Mapping[Kind, int]) -> list[str]:
    """Return a sentence for each file and kind whose number is not the one that was looked at."""
    lines: dict[Kind, list[str]] = {}
    for finding in found:
        kind = (str(finding["filename"]).removeprefix("./"), str(finding["test_id"]))
        lines.setdefault(kind, []).append(f"{finding['line_number']} ({finding['issue_text']})")
    faults = []
    for kind in sorted({*lines, *reviewed}):
        file, test = kind
        here = lines.get(kind, [])
        if len(here) > reviewed.get(kind, 0):
            faults.append(
                f"{file}: {test} at {', '.join(here)}: {reviewed.get(kind, 0)} of them were looked at; mend it, or"
                f" write the new number and its reason into tests/harness/{REVIEWED.name}"
            )
        elif len(here) < reviewed.get(kind, 0):
            faults.append(f"{file}: {test} is found {len(here)} times; tests/harness/{REVIEWED.name} still says more")
    return faults


if __name__ == "__main__":
    sys.exit(main())
