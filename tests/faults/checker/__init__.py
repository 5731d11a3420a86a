"""The checker: judges what a fleet did from what its jobs wrote down themselves.

`check(history)` returns a `Report`; `python -m tests.faults.checker FOLDER` prints one, and draws `timeline.svg`.
"""

from tests.faults.checker.check import check
from tests.faults.checker.facts import Kind, Violation
from tests.faults.checker.report import Report

__all__ = ["Kind", "Report", "Violation", "check"]
