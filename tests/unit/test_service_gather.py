"""Many requests in one write: nobody waits in vain, nobody gets another's answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from cronkeeper.errors import UnavailableError
from cronkeeper_manager.service.gather import MAX_BATCH, Gather


class Work:
    """Doubles numbers; the first batch waits until the test opens the gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.begun.set()
        assert self.gate.wait(30)
        return [ValueError(f"no {item}") if item % 10 == 7 else item * 2 for item in items]


def _submit_all(gather: Gather[int, int], items: Sequence[int]) -> tuple[list[threading.Thread], dict[int, object]]:
    found: dict[int, object] = {}

    def submit(item: int) -> None:
        try:
            found[item] = gather.submit(item)
        except (ValueError, UnavailableError) as exc:
            found[item] = str(exc)

    threads = [threading.Thread(target=submit, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    return threads, found


def _wait_for(gather: Gather[int, int], waiting: int) -> None:
    pause = threading.Event()
    while len(gather._waiting) < waiting:
        pause.wait(0.005)


def test_alone_it_is_done_at_once() -> None:
    work = Work()
    work.gate.set()
    gather = Gather(work)
    assert [gather.submit(item) for item in (1, 2, 3)] == [2, 4, 6]
    assert work.batches == [[1], [2], [3]]


def test_who_comes_meanwhile_goes_in_one_batch_and_each_gets_its_own_outcome() -> None:
    work = Work()
    gather = Gather(work)
    first, found_first = _submit_all(gather, [100])
    assert work.begun.wait(30)
    others, found = _submit_all(gather, range(1, 10))
    _wait_for(gather, 9)
    work.gate.set()
    for thread in [*first, *others]:
        thread.join(30)
    assert found_first == {100: 200}
    assert found == {item: "no 7" if item == 7 else item * 2 for item in range(1, 10)}
    assert [len(batch) for batch in work.batches] == [1, 9]


def test_a_crowd_is_split_and_everybody_is_served() -> None:
    work = Work()
    gather = Gather(work)
    first, _ = _submit_all(gather, [1000])
    assert work.begun.wait(30)
    items = [10 * item for item in range(MAX_BATCH + 50)]
    others, found = _submit_all(gather, items)
    _wait_for(gather, len(items))
    work.gate.set()
    for thread in [*first, *others]:
        thread.join(30)
    assert found == {item: 2 * item for item in items}
    assert [len(batch) for batch in work.batches] == [1, MAX_BATCH, 50]


def test_a_failure_of_the_whole_is_everybody_s_and_the_next_is_served() -> None:
    calls: list[int] = []

    def fail_once(items: Sequence[int]) -> list[int | Exception]:
        calls.append(len(items))
        if len(calls) == 1:
            raise UnavailableError("away")
        return list(items)

    gather: Gather[int, int] = Gather(fail_once)
    with pytest.raises(UnavailableError):
        gather.submit(1)
    assert gather.submit(2) == 2


def _crowd(gather: Gather[int, int], work: Work) -> None:
    """Have one item worked on, and then three in one batch."""
    work.gate.clear()
    first, _ = _submit_all(gather, [0])
    assert work.begun.wait(30)
    others, _ = _submit_all(gather, [1, 2, 3])
    _wait_for(gather, 3)
    work.gate.set()
    for thread in [*first, *others]:
        thread.join(30)


def test_after_a_crowd_a_batch_waits_for_as_many() -> None:
    work = Work()
    gather = Gather(work, linger_s=(30, 30))
    _crowd(gather, work)
    threads: list[threading.Thread] = []
    for count, item in enumerate((4, 5), 1):
        threads += _submit_all(gather, [item])[0]
        _wait_for(gather, count)
    assert [len(batch) for batch in work.batches] == [1, 3]
    threads += _submit_all(gather, [6])[0]
    for thread in threads:
        thread.join(10)
    assert [len(batch) for batch in work.batches] == [1, 3, 3]


def test_who_does_not_come_is_not_waited_for_twice() -> None:
    work = Work()
    gather = Gather(work, linger_s=(0.01, 0.01))
    _crowd(gather, work)
    assert [gather.submit(item) for item in (4, 5)] == [8, 10]
    assert [len(batch) for batch in work.batches] == [1, 3, 1, 1]
    assert gather._last == 1


def test_a_batch_is_followed_up_before_its_callers_hear_and_while_the_next_is_worked_on() -> None:
    work, told = Work(), list[list[int | Exception]]()
    following, over = threading.Event(), threading.Event()

    def after(outcomes: Sequence[int | Exception]) -> None:
        told.append(list(outcomes))
        following.set()
        assert over.wait(30)

    gather = Gather(work, after)
    first, found = _submit_all(gather, [1])
    assert work.begun.wait(30)
    second, found_second = _submit_all(gather, [2])
    _wait_for(gather, 1)
    work.gate.set()
    assert following.wait(30)
    while len(work.batches) < 2:
        following.wait(0.005)
    assert found == {}
    over.set()
    for thread in [*first, *second]:
        thread.join(30)
    assert (found, found_second) == ({1: 2}, {2: 4})
    assert told == [[2], [4]]


class Following:
    """Follows a batch up until the test lets it go."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, _: Sequence[int | Exception]) -> None:
        self.begun.set()
        assert self.over.wait(30)


def test_a_batch_waits_for_those_who_are_about_to_hear() -> None:
    work, following = Work(), Following()
    work.gate.set()
    gather = Gather(work, following, linger_s=(30, 30))
    threads = _submit_all(gather, [1])[0]
    assert following.begun.wait(30)
    threads += _submit_all(gather, [2])[0]
    _wait_for(gather, 1)
    following.over.set()
    threads[0].join(10)
    assert work.batches == [[1]]
    threads += _submit_all(gather, [3])[0]
    for thread in threads:
        thread.join(10)
    assert work.batches == [[1], [2, 3]]


def test_callers_who_never_come_back_are_waited_for_once() -> None:
    work, following = Work(), Following()
    work.gate.set()
    gather = Gather(work, following, linger_s=(0.01, 0.01))
    threads = _submit_all(gather, [1])[0]
    assert following.begun.wait(30)
    threads += _submit_all(gather, [2])[0]
    while len(work.batches) < 2:
        following.over.wait(0.005)
    assert not gather._come_back
    following.over.set()
    for thread in threads:
        thread.join(10)
    assert [len(batch) for batch in work.batches] == [1, 1]


def test_a_batch_waits_no_longer_than_one_takes_within_bounds() -> None:
    gather: Gather[int, int] = Gather(lambda items: items, linger_s=(0.01, 0.05))
    for took_s, at_least_s, at_most_s in ((0.0, 0.01, 0.04), (0.03, 0.03, 0.2), (9.0, 0.05, 5.0)):
        gather._last, gather._took_s = 2, took_s
        begun_s = time.monotonic()
        gather.submit(1)
        assert at_least_s <= time.monotonic() - begun_s < at_most_s


def test_a_batch_waits_for_no_more_than_go_into_one() -> None:
    gather: Gather[int, int] = Gather(lambda items: items, linger_s=(20, 20))
    gather._followed = MAX_BATCH  # as many are about to hear
    begun_s = time.monotonic()
    threads, found = _submit_all(gather, range(MAX_BATCH))
    for thread in threads:
        thread.join(30)
    assert len(found) == MAX_BATCH
    assert time.monotonic() - begun_s < 10
