"""The fixtures of the short trials: one fleet for all of them."""

from tests.faults.fixtures import MakeTrial, fleet, make_trial, trial

__all__ = ["MakeTrial", "fleet", "make_trial", "trial"]
