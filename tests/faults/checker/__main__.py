"""python -m tests.faults.checker FOLDER: judge a kept history. Exit status 0: all promises kept; 1: not; 2: usage."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults.checker.check import check
from tests.faults.checker.evaluator import EvaluatorError
from tests.faults.checker.history import HistoryError, read_history
from tests.faults.checker.svg import draw


def main(argv: list[str]) -> int:
    """Print the report of the history in a folder, and draw its timeline beside it."""
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(argv[0])
    try:
        history = read_history(folder)
        report = check(history)
    except (HistoryError, EvaluatorError) as exc:
        print(exc, file=sys.stderr)
        return 2
    print(report.text())
    picture = folder / "timeline.svg"
    picture.write_text(draw(history))
    print(f"timeline: {picture}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
