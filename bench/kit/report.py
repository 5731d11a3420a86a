"""The table of figures: on the terminal, and in docs/measurements.md between its marks."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cronkeeper
from bench.kit.figures import Figure, Options

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "measurements.md"
_TITLES = ("what", "minimum / median / maximum", "runs", "to reach", "reached")


def machine() -> str:
    """Return what it was measured on, in one sentence."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    name = next((line for line in Path("/etc/os-release").read_text().splitlines() if line.startswith("PRETTY")), "")
    parts = [
        f"{os.cpu_count()} processors, {memory:.0f} GiB",
        name.partition("=")[2].strip('"') or platform.system(),
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        *map(_version, (("mariadb-server", "MariaDB"), ("libzookeeper-java", "ZooKeeper"), ("haproxy", "HAProxy"))),
        f"Cronkeeper {cronkeeper.__version__}",
    ]
    return ", ".join(parts)


def _version(package: tuple[str, str]) -> str:
    argv = ["dpkg-query", "--show", "--showformat=${Version}", package[0]]
    found = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    return f"{package[1]} {found.partition('-')[0].rpartition(':')[2]}"


def show(part: str, figures: Sequence[Figure]) -> None:
    """Print the figures of a part."""
    rows = [_TITLES, *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    sys.stdout.write(f"\n{part}\n")
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    sys.stdout.flush()


def block(
    part: str,
    words: str,
    figures: Sequence[Figure],
    options: Options,
    loads: tuple[float, float],
    *,
    failure: Exception | None = None,
) -> str:
    """Return what stands in the document of a part. With a `failure` there are more figures than these."""
    quick = " **Quick: small sizes, one repetition; it shows that the program works, not how fast anything is.**"
    taken = f"Taken on {time.strftime('%Y-%m-%d', time.gmtime())} with a load average of {loads[0]:.1f} before and"
    taken += f" {loads[1]:.1f} after: {machine()}.{quick if options.quick else ''}\n"
    lines = [
        f"### {part}\n",
        "\n",
        f"{words}\n",
        "\n",
        taken,
        "\n",
        *(f"| {' | '.join(row)} |\n" for row in (_TITLES, ["---"] * len(_TITLES))),
        *(f"| {' | '.join(figure.cells())} |\n" for figure in figures),
    ]
    if failure is not None:
        lines += ["\n", f'**It failed after "{figures[-1].what}": {type(failure).__name__}.**\n']
    return "".join(lines)


def write(part: str, text: str, document: Path = DOCUMENT) -> None:
    """Put a part's text between its marks in the document."""
    pattern = re.compile(rf"(<!-- measured: {part} -->\n).*?(<!-- end of {part} -->)", re.DOTALL)
    old = document.read_text()
    new, count = pattern.subn(lambda match: match[1] + text + match[2], old)
    if count != 1:
        raise SystemExit(f"{document} has no marks for {part}")
    document.write_text(new)
