"""The fixtures of the long trials: the same as the short ones have."""

from tests.faults.fixtures import fleet, make_trial, trial

__all__ = ["fleet", "make_trial", "trial"]
