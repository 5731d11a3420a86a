"""Many requests in one write: nobody waits in vain, nobody gets another's answer."""

from __future__ import annotations

import threading
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
