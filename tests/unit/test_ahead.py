from __future__ import annotations

import threading

import pytest

from cronkeeper.store.ahead import ahead


def _threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_items_come_in_order_and_no_thread_is_left() -> None:
    assert list(ahead(lambda number: number * 2, range(50))) == [number * 2 for number in range(50)]
    assert list(ahead(str, [])) == []
    assert _threads() == 0


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def make(number: int) -> int:
        made[number].set()
        return number

    for number in ahead(make, range(3)):
        assert number == 2 or made[number + 1].wait(5)


def test_one_item_takes_no_thread() -> None:
    assert list(ahead(lambda _: threading.current_thread(), [1])) == [threading.current_thread()]


def test_what_goes_wrong_is_raised_in_its_place() -> None:
    found = ahead(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert _threads() == 0


def test_who_stops_early_leaves_no_thread() -> None:
    found = ahead(str, range(10))
    next(found)
    found.close()
    assert _threads() == 0
