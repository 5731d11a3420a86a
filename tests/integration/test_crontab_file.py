"""Crontab files in front of Debian's real cron and the real crontab(1), on a node of their own."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.schedule import parse_schedule
from cronkeeper_worker.crontab_file import CrontabTarget, SystemCrontab, UserCrontab
from cronkeeper_worker.crontab_place import CrontabError
from cronkeeper_worker.crontab_render import render, ticks
from cronkeeper_worker.fire_listener import FireListener, install_fire
from tests.harness.cron import Node
from tests.harness.folders import make_folder, remove_folder

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("cron", path="/usr/sbin:/sbin") is None, reason="takes root and Debian's cron"
)


def texts(*schedules: str, user: str | None = "root", fire: str = "/opt/fire") -> tuple[str, ...]:
    tasks = [(TaskId(number + 1, 0), parse_schedule(text)) for number, text in enumerate(schedules)]
    return render(tasks, fire=fire, node_timezone="UTC", now_ms=1_800_000_000_000, user=user)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_folder("crontab")
    yield folder
    remove_folder(folder)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


def until(done: Callable[[], object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, f"not after {timeout_s:g} s"
        time.sleep(0.1)


# ----------------------------------------------------------------------------------------------------- system files


def test_files_come_and_go_and_nobody_elses_are_touched(folder: Path) -> None:
    (folder / "other").write_text("5 * * * * root true\n")
    (folder / "cronkeeper-backup").write_text("mine\n")
    target: CrontabTarget = SystemCrontab(folder)
    first, second = texts("5 * * * *")[0], texts("6 * * * *")[0]
    target.install([first, second])
    assert target.read() == (first, second)
    assert (folder / "cronkeeper-0").stat().st_mode & 0o777 == 0o644
    target.install([second])
    assert target.read() == (second,)
    target.remove_all()
    target.remove_all()
    assert target.read() == ()
    assert sorted(path.name for path in folder.iterdir()) == ["cronkeeper-backup", "other"]


def test_bytes_that_are_no_text_are_read_and_replaced(folder: Path) -> None:
    (folder / "cronkeeper-0").write_bytes(b"\xff\xfe no crontab")
    (folder / "cronkeeper-1").write_bytes(b"\x80")
    target = SystemCrontab(folder)
    assert len(target.read()) == 2
    wanted = texts("5 * * * *")
    target.install(wanted)
    assert target.read() == tuple(wanted)


def test_every_version_has_a_second_of_its_own(folder: Path) -> None:
    """cron compares whole seconds: a second change within one would never be seen."""
    target = SystemCrontab(folder)
    seen: set[float] = set()
    for minute in range(5):
        target.install(texts(f"{minute} * * * *"))
        file, directory = (folder / "cronkeeper-0").stat(), folder.stat()
        assert file.st_mtime_ns % 1_000_000_000 == directory.st_mtime_ns % 1_000_000_000 == 0
        assert not {file.st_mtime, directory.st_mtime} & seen
        seen |= {file.st_mtime, directory.st_mtime}


def test_what_is_renewed_has_the_same_text_and_times_that_never_were(folder: Path) -> None:
    target = SystemCrontab(folder)
    target.install(texts("5 * * * *"))
    (folder / "other").write_text("5 * * * * root true\n")
    other = (folder / "other").stat().st_mtime_ns
    seen = {(folder / "cronkeeper-0").stat().st_mtime, folder.stat().st_mtime}
    for _ in range(3):
        target.renew()
        times = {(folder / "cronkeeper-0").stat().st_mtime, folder.stat().st_mtime}
        assert all(value == int(value) for value in times)
        assert not times & seen
        seen |= times
    assert target.read() == texts("5 * * * *")
    assert (folder / "other").stat().st_mtime_ns == other


def test_the_folder_never_keeps_a_second_that_cron_may_have_seen_during_the_change(folder: Path) -> None:
    """While files come and go it has the present second; a cron that looks just then would miss what follows."""
    target = SystemCrontab(folder)
    changes: tuple[Callable[[], None], ...] = (
        lambda: target.install(texts("5 * * * *")),
        target.renew,
        target.remove_all,
    )
    for change in changes:
        (folder / "other").touch()
        (folder / "other").unlink()
        os.utime(folder, (1_700_000_000, 1_700_000_000))
        began_s = int(time.time())
        change()
        assert folder.stat().st_mtime > began_s


def test_what_stands_already_is_not_touched(folder: Path) -> None:
    target = SystemCrontab(folder)
    target.install(texts("5 * * * *", "6 * * * *"))
    before = (folder / "cronkeeper-0").stat()
    directory = folder.stat().st_mtime_ns
    SystemCrontab(folder).install(texts("5 * * * *", "6 * * * *"))
    after = (folder / "cronkeeper-0").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert folder.stat().st_mtime_ns == directory


@pytest.mark.parametrize("damage", ["chmod", "link", "symlink", "text"])
def test_what_cron_would_ignore_is_mended(folder: Path, damage: str) -> None:
    target = SystemCrontab(folder)
    path = folder / "cronkeeper-0"
    target.install(texts("5 * * * *"))
    match damage:
        case "chmod":
            path.chmod(0o666)
        case "link":
            os.link(path, folder / "link")
        case "symlink":
            path.rename(folder / "elsewhere")
            path.symlink_to(folder / "elsewhere")
        case "text":
            path.write_text("5 * * * * root evil\n")
    target.install(texts("5 * * * *"))
    found = path.lstat()
    assert (found.st_mode, found.st_nlink) == (0o100644, 1)
    assert path.read_text() == texts("5 * * * *")[0]


def test_what_a_crash_left_half_made_is_removed(folder: Path) -> None:
    (folder / ".cronkeeper-0.tmp").write_text("5 * * *")
    (folder / ".cronkeeper-3.tmp").symlink_to("/etc/passwd")
    SystemCrontab(folder).install(texts("5 * * * *"))
    assert [path.name for path in folder.iterdir()] == ["cronkeeper-0"]


def test_a_text_that_is_not_ours_changes_nothing(folder: Path) -> None:
    target = SystemCrontab(folder)
    target.install(texts("5 * * * *"))
    for text in ("5 * * * * root /bin/sh -c evil\n", "5 * * * * root /opt/fire 1", ""):
        with pytest.raises(ValueError, match=r"refused|not a line"):
            target.install([texts("6 * * * *")[0], text])
    assert target.read() == texts("5 * * * *")


def test_a_folder_that_is_gone_is_told(folder: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        SystemCrontab(folder / "none").install(texts("5 * * * *"))


def test_the_largest_file_is_accepted_by_cron(node: Node) -> None:
    schedules = [f"{minute} {hour} * * *" for hour in range(24) for minute in range(60)]
    files = texts(*schedules, *(f"{n % 60} {n // 60} 1 * *" for n in range(1058)))
    assert len(files) == 1 and len(files[0].splitlines()) > 4990
    SystemCrontab(node.cron_d).install(files)
    node.start_cron()
    until(lambda: "Running @reboot" in node.cron_log(), 20)
    time.sleep(1)
    assert "ERROR" not in node.cron_log() and "Error" not in node.cron_log() and "bad " not in node.cron_log()


def test_cron_really_calls_us_also_after_an_edit_and_not_after_removal(node: Node, folder: Path) -> None:
    looks: list[int] = []
    listener = FireListener(folder / "fire.sock", looks.append)
    listener.start()
    try:
        target = SystemCrontab(node.cron_d)
        fire = str(install_fire(folder, sys.executable))
        target.install(texts("1 1 1 1 *", fire=fire))
        # Cron's clock runs sixty times as fast.
        node.start_cron(faketime="@2026-06-01 10:00:30 x60", timezone="UTC")
        until(lambda: "Running @reboot" in node.cron_log(), 20)
        target.install(texts("* * * * *", fire=fire))
        until(lambda: len(looks) >= 2, 60)
        (number,) = ticks(target.read())
        assert set(looks) == {number}
        target.remove_all()
        time.sleep(2)
        seen = len(looks)
        time.sleep(3)
        assert len(looks) == seen
    finally:
        listener.stop()


# ------------------------------------------------------------------------------------------------- a user's crontab


@pytest.fixture
def own(node: Node) -> UserCrontab:
    """The crontab of nobody on the node, by the real crontab(1)."""
    return UserCrontab(("nsenter", "--target", str(node.init_pid), "--mount", "--", "crontab", "-u", "nobody"))


def test_a_block_in_a_users_crontab(node: Node, own: UserCrontab) -> None:
    path = node.spool / "nobody"
    ours = texts("5 * * * *", "*/7 * * * *", user=None)
    assert own.read() == ()
    own.install(ours)
    assert own.read() == ours
    own.install(texts("6 * * * *", user=None))
    assert own.read() == texts("6 * * * *", user=None)
    own.remove_all()
    own.remove_all()
    assert own.read() == ()
    assert not path.exists() or b"cronkeeper" not in path.read_bytes()


def test_a_users_crontab_is_renewed_to_the_byte(node: Node, own: UserCrontab) -> None:
    own._replace(b"5 4 * * * echo mine\n")
    own.renew()
    own.install(texts("5 * * * *", user=None))
    before = own._list()
    os.utime(node.spool / "nobody", (1_700_000_000, 1_700_000_000))
    own.renew()
    assert own._list() == before
    assert (node.spool / "nobody").stat().st_mtime > 1_700_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"# mine\nMAILTO=me@example.org\n\n5 4 * * * echo 100\\%\n",
        b"5 4 * * * echo a\r\n6 4 * * * echo '\\\\r'\n\t# indented\n  6 5 * * * echo b  \n",
        b"# \xff\xfe\xe4 odd bytes\n5 4 * * * echo '\xff'\n",
        b"\n\n\n",
        b"".join(b"%d %d * * * echo %d\n" % (n % 60, n % 24, n) for n in range(9000)),
    ],
    ids=["plain", "carriage returns", "odd bytes", "empty lines", "9,000 lines"],
)
def test_the_users_own_lines_survive_to_the_byte(node: Node, own: UserCrontab, content: bytes) -> None:
    own._replace(content)
    for _ in range(2):
        own.install(texts("5 * * * *", user=None))
        assert own._list().startswith(content) and b"/opt/fire" in own._list()
    own.remove_all()
    assert own._list() == content
    # Debian's crontab puts three lines of its own in front, and hides them again.
    assert (node.spool / "nobody").read_bytes().endswith(content)


def test_a_crontab_that_cannot_be_read_is_not_overwritten(folder: Path) -> None:
    wrote = folder / "wrote"
    command = folder / "crontab"
    command.write_text(
        f'#!/bin/sh\n[ "$1" = -l ] && {{ echo "crontab: permission denied" >&2; exit 1; }}\ntouch {wrote}\n'
    )
    command.chmod(0o755)
    with pytest.raises(CrontabError, match="permission denied"):
        UserCrontab((str(command),)).install(texts("5 * * * *", user=None))
    with pytest.raises(CrontabError, match="cannot be run"):
        UserCrontab((str(folder / "none"),)).install(texts("5 * * * *", user=None))
    assert not wrote.exists()


def test_what_crontab_refuses_changes_nothing(node: Node, own: UserCrontab) -> None:
    many = [f"{minute} {hour} {day} * *" for day in range(1, 5) for hour in range(24) for minute in range(60)]
    own._replace(b"5 4 * * * echo mine\n")
    with pytest.raises(CrontabError, match="refused"):
        own.install(texts(*many, user=None))
    assert own._list() == b"5 4 * * * echo mine\n"
