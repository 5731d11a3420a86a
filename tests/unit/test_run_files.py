"""The notes of a run in a folder that is used again: what a reader finds at any instant, and after any death."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from cronkeeper_worker import run_files
from cronkeeper_worker.orders import Ended, SpawnFailed
from cronkeeper_worker.run_folders import Folders

BOOT = run_files.boot_id()


def ended(run_id: str, tail: str = "", exit_code: int = 0) -> Ended:
    return Ended(run_id, 1_764_600_000_000, exit_code, None, False, False, len(tail), tail)


def start(nonce: str, pid: int = 1) -> run_files.RunStart:
    return run_files.RunStart(pid, 7, BOOT, nonce, "d" * 64, 1_764_600_000_000, None, 10.0)


def run(folders: Folders, run_id: str, event: Ended | SpawnFailed) -> Path:
    """Go through a run's life but for its process; return its folder."""
    folder = folders.make(run_id, os.getuid(), os.getgid())
    assert run_files.read_start(folder) is None and run_files.read_exit(folder) is None
    with run_files.StartNote(folder, start(run_id, 0)) as note:
        assert run_files.read_start(folder) == start(run_id, 0)
        note.complete(start(run_id))
    assert run_files.read_start(folder) == start(run_id)
    run_files.write_exit(folder, event, flush=False)
    assert run_files.read_exit(folder) == event
    return Path(folder)


@pytest.mark.parametrize("between", [10, 300, 4096])
def test_a_note_never_shows_through_the_next_one(tmp_path: Path, between: int) -> None:
    folders = Folders(str(tmp_path))
    inodes = set()
    for number, tail in enumerate(("{" * 40, "}" * between, "x", "y" * 4096, "")):
        folder = run(folders, f"1-0-{number}-1", ended(f"1-0-{number}-1", tail, number))
        inodes.add((folder / "exit.json").stat().st_ino)
        assert folders.remove(folder.name)
        assert not list((tmp_path / "runs").iterdir())
        (spare,) = (tmp_path / "spare").iterdir()
        assert not (spare / "start.json").read_bytes().strip() and not (spare / "exit.json").read_bytes().strip()
    assert len(inodes) == 1


def test_a_short_note_is_written_over_and_no_file_is_cut_short(tmp_path: Path) -> None:
    """To cut one short takes longer than all else."""
    folders = Folders(str(tmp_path))
    for number in range(3):
        folder = run(folders, f"1-0-{number}-1", ended(f"1-0-{number}-1", "a word or two\n"))
        assert ((folder / "start.json").stat().st_size, (folder / "exit.json").stat().st_size) == (640, 512)
        folders.remove(folder.name)
        (spare,) = (tmp_path / "spare").iterdir()
        assert ((spare / "start.json").stat().st_size, (spare / "exit.json").stat().st_size) == (640, 512)


def test_an_end_that_is_told_again_is_the_last_one_told(tmp_path: Path) -> None:
    """Whoever was taken for dead may still write how it ended."""
    folder = run(Folders(str(tmp_path)), "1-0-1-1", ended("1-0-1-1", "long" * 1000))
    for event in (ended("1-0-1-1", "x", 3), ended("1-0-1-1", "y" * 250, 4), ended("1-0-1-1", "", 5)):
        run_files.write_exit(str(folder), event, flush=True)
        assert run_files.read_exit(str(folder)) == event


def test_what_a_crash_of_the_machine_brought_back_is_nobodys_end(tmp_path: Path) -> None:
    """The folder's new name may reach the disk before the blanks do."""
    folder = run(Folders(str(tmp_path)), "1-0-1-1", ended("1-0-1-1", "", 3))
    again = folder.rename(folder.parent / "1-0-2-1")
    assert run_files.read_exit(str(again)) is None
    run_files.write_exit(str(again), ended("1-0-2-1"), flush=False)
    assert run_files.read_exit(str(again)) == ended("1-0-2-1")
    (again / "exit.json").write_bytes(b' "event": "ended", "run_id": "1-0-2-1"}')
    run_files.write_exit(str(again), ended("1-0-2-1", "", 4), flush=False)
    assert run_files.read_exit(str(again)) == ended("1-0-2-1", "", 4)


def test_a_start_of_another_boot_says_nothing_of_whose_folder_it_is() -> None:
    mine = start("n")
    assert not run_files.is_of_another(mine, "n", mine.digest)
    assert run_files.is_of_another(mine, "m", mine.digest) and run_files.is_of_another(mine, "n", "e" * 64)
    assert not run_files.is_of_another(mine._replace(boot_id="before"), "m", mine.digest)


@pytest.mark.parametrize("room", [1, 60, 130])
def test_half_a_note_is_an_absent_one_and_is_noticed(tmp_path: Path, room: int) -> None:
    folders = Folders(str(tmp_path))
    used = run(folders, "1-0-1-1", ended("1-0-1-1"))
    folders.remove(used.name)
    for run_id in ("1-0-2-1", "1-0-3-1"):  # in files of before, and in new ones
        folder = folders.make(run_id, os.getuid(), os.getgid())
        process = multiprocessing.get_context("fork").Process(target=_without_room, args=(folder, run_id, room))
        process.start()
        process.join(20)
        assert process.exitcode == 0
        assert run_files.read_exit(folder) is None and run_files.read_start(folder) is None
        run_files.write_exit(folder, ended(run_id), flush=False)
        assert run_files.read_exit(folder) == ended(run_id)


def _without_room(folder: str, run_id: str, room: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with pytest.raises(OSError, match="no space left"):
        run_files.write_exit(folder, ended(run_id), flush=False)
    with pytest.raises(OSError, match="no space left"):
        run_files.StartNote(folder, start("n"))


def test_who_reads_at_the_same_time_finds_one_note_or_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    writer = context.Process(target=_use_again, args=(str(tmp_path), stop))
    (tmp_path / "runs").mkdir()
    writer.start()
    found = set()
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for name in os.listdir(tmp_path / "runs"):
                begun, event = (
                    run_files.read_start(f"{tmp_path}/runs/{name}"),
                    run_files.read_exit(f"{tmp_path}/runs/{name}"),
                )
                assert begun in (None, start(name, 0), start(name)), f"{name} has begun as {begun}"
                assert event in (None, _end(name)), f"{name} has ended as {event}"
                found |= {("begun", begun is not None), ("ended", event is not None)}
    finally:
        stop.set()
        writer.join(20)
    assert writer.exitcode == 0
    assert len(found) == 4, "the reader has not met the writer"


def _end(run_id: str) -> Ended:
    return ended(run_id, run_id * 20, int(run_id[-3]))


def _use_again(state_dir: str, stop: Event) -> None:
    folders = Folders(state_dir)
    for number in itertools.count(10):
        if stop.is_set():
            return
        run_id = f"1-0-{number}-1"
        folders.remove(run(folders, run_id, _end(run_id)).name)
