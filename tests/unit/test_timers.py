"""Timers that are cancelled hold nothing; timers that are due are called once, in order."""

from __future__ import annotations

import gc
import weakref

from cronkeeper_worker.timers import Timers


class Thing:
    def touch(self) -> None:
        raise AssertionError("cancelled")


def test_what_is_due_is_called_once_and_in_order() -> None:
    timers, called = Timers(), list[str]()
    timers.after(-1, lambda: called.append("second"))
    timers.after(-2, lambda: called.append("first"))
    timers.after(1000, lambda: called.append("never"))
    timers.run_due()
    timers.run_due()
    assert called == ["first", "second"]
    assert 900 < timers.wait_s(5000) <= 1000
    assert timers.wait_s(5) == 5


def test_a_cancelled_timer_is_gone_with_all_it_held() -> None:
    timers = Timers()
    thing = Thing()
    gone = weakref.ref(thing)
    timer = timers.after(-1, thing.touch)
    del thing
    timers.cancel(timer)
    timers.cancel(timer)
    timers.cancel(None)
    gc.collect()
    assert gone() is None
    timers.run_due()


def test_a_hundred_thousand_runs_with_a_long_timeout_leave_no_trace() -> None:
    timers = Timers()
    for _ in range(100_000):
        timers.cancel(timers.after(86_400, lambda: None))
    assert len(timers) < 200


def test_a_timer_may_set_and_cancel_others() -> None:
    timers, called = Timers(), list[int]()
    other = timers.after(-1, lambda: called.append(2))
    timers.after(-2, lambda: timers.cancel(other))
    timers.after(-3, lambda: timers.after(-1, lambda: called.append(1)))
    timers.run_due()
    assert called == [1]
