#!/usr/bin/env python3
"""Print the software bill of materials: CycloneDX 1.6 as JSON, made of the lock file alone.

deploy/sbom.py [LOCK] > cronkeeper.cdx.json

LOCK is requirements.lock unless told. Each package comes with its version, its purl, and the SHA-256 of every file that
an installation may take. Equal lock files give equal bytes: there is no time and no random number in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\")
_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?")


def packages(text: str) -> list[tuple[str, str, str, list[str]]]:
    """Return name, version, marker and hashes of each package of a lock file. Raises ValueError for any other line."""
    found: list[tuple[str, str, str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        package, digest = _PACKAGE.fullmatch(line), _HASH.fullmatch(line)
        if package is not None:
            found.append((package["name"], package["version"], package["marker"] or "", []))
        elif digest is not None and found:
            found[-1][3].append(digest[1])
        else:
            raise ValueError(f"line {number} of the lock file is neither a package nor a hash: {line[:60]!r}")
    return found


def bill(text: str, version: str) -> dict[str, Any]:
    """Return the bill of materials of a lock file."""
    components = [_component(*package) for package in packages(text)]
    serial = uuid.UUID(bytes=hashlib.sha256((version + text).encode()).digest()[:16], version=4)
    product = {"type": "application", "bom-ref": "cronkeeper", "name": "cronkeeper", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": product},
        "components": components,
    }


def _component(name: str, version: str, marker: str, hashes: list[str]) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    facts = [{"name": "cronkeeper:file-sha256", "value": digest} for digest in hashes]
    facts += [{"name": "cronkeeper:marker", "value": marker}] if marker else []
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": facts,
    }


def product_version() -> str:
    """Return the version of this tree."""
    text = (ROOT / "core" / "cronkeeper" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("core/cronkeeper/__init__.py names no version")
    return found[1]


if __name__ == "__main__":
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock"
    print(json.dumps(bill(lock.read_text(), product_version()), indent=2))
