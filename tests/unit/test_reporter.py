"""What one run's output is like keeps no other run from being told of."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.run import Run, RunState, Trigger
from cronkeeper.runtime.metrics import WorkerMetrics
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper.testing.memory_store import MemoryStore
from cronkeeper_worker.journal import Entry, Journal, Phase
from cronkeeper_worker.reporter import LIVE_MS, Reporter
from tests.harness.starved import no_descriptors

BAD, GOOD = (RunKey(TaskId(number, 0), 60_000, 1) for number in (1, 2))


@pytest.mark.parametrize("phase", [Phase.STARTED, Phase.OVER])
def test_output_that_cannot_be_read_is_told_and_all_runs_are_reported(
    phase: Phase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / str(BAD)).mkdir()  # what cannot be read as a file, also by root
    (tmp_path / str(GOOD)).write_bytes(b"hello\n")
    clock = FakeClock()
    store, journal = MemoryStore(clock), Journal(Path(":memory:"))
    state = RunState.RUNNING if phase is Phase.STARTED else RunState.FAILED
    runs = [Run(key, Trigger.TIMER, state, "w1", nonce=str(key), output_bytes=6) for key in (BAD, GOOD)]
    journal.update([Entry(run, phase) for run in runs])
    reporter = Reporter(
        journal, store, None, clock, WorkerMetrics(CollectorRegistry()),
        output_file=lambda key: tmp_path / str(key), acknowledge=lambda _: None, given_up=lambda _: None,
    )  # fmt: skip

    reporter.step()

    assert [store.runs.get(key).state for key in (BAD, GOOD)] == [state, state]
    assert store.runs.read_output(GOOD, offset=0, limit=100) == b"hello\n"
    assert store.runs.read_output(BAD, offset=0, limit=100) == b""
    assert any(getattr(record, "event", "") == "output.unreadable" for record in caplog.records)


def test_output_waits_for_a_descriptor_and_with_it_the_news_that_lets_it_go(tmp_path: Path) -> None:
    (tmp_path / str(GOOD)).write_bytes(b"hello\n")
    clock = FakeClock()
    store, journal = MemoryStore(clock), Journal(Path(":memory:"))
    run = Run(GOOD, Trigger.TIMER, RunState.FAILED, "w1", nonce="n", output_bytes=6)
    journal.update([Entry(run, Phase.OVER)])
    let_go: list[str] = []
    reporter = Reporter(
        journal, store, None, clock, WorkerMetrics(CollectorRegistry()),
        output_file=lambda key: tmp_path / str(key), acknowledge=let_go.extend, given_up=lambda _: None,
    )  # fmt: skip

    with no_descriptors(), pytest.raises(OSError, match="open files"):
        reporter.step()
    assert not let_go
    reporter.step()
    assert let_go == [str(GOOD)]
    assert store.runs.read_output(GOOD, offset=0, limit=100) == b"hello\n"


def test_what_a_run_says_is_shown_while_it_runs_once_it_has_run_for_a_moment(tmp_path: Path) -> None:
    (tmp_path / str(GOOD)).write_bytes(b"hello\n")
    clock = FakeClock()
    store, journal = MemoryStore(clock), Journal(Path(":memory:"))
    run = Run(GOOD, Trigger.TIMER, RunState.RUNNING, "w1", nonce="n", started_ms=clock.now_ms())
    journal.update([Entry(run, Phase.STARTED)])
    reporter = Reporter(
        journal, store, None, clock, WorkerMetrics(CollectorRegistry()),
        output_file=lambda key: tmp_path / str(key), acknowledge=lambda _: None, given_up=lambda _: None,
    )  # fmt: skip

    reporter.step()
    assert store.runs.read_output(GOOD, offset=0, limit=100) == b""
    clock.advance_ms(LIVE_MS + 1)
    reporter.step()
    assert store.runs.read_output(GOOD, offset=0, limit=100) == b"hello\n"
