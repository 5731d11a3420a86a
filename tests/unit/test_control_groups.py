"""Where a process's control group lies, by what the kernel tells of groups and mounts."""

from __future__ import annotations

import pytest

from cronkeeper_worker.control_groups import group_folder, place_below

UNIFIED = "26 25 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "30 25 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
BOUND = "40 39 0:23 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
V1 = "30 25 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"


@pytest.mark.parametrize(
    ("case", "groups", "mounts", "expected"),
    [
        ("a unit", "0::/system.slice/c.service\n", UNIFIED, "/sys/fs/cgroup/system.slice/c.service"),
        ("the top", "0::/\n", UNIFIED, "/sys/fs/cgroup"),
        ("beside version 1", "8:pids:/x\n1:name=systemd:/y\n0::/z\n", HYBRID, "/sys/fs/cgroup/unified/z"),
        ("a container that sees its part", "0::/docker/abc/in\n", BOUND, "/sys/fs/cgroup/in"),
        ("a container's own top", "0::/docker/abc\n", BOUND, "/sys/fs/cgroup"),
        ("a neighbour with a longer name", "0::/docker/abcd\n", BOUND, ""),
        ("outside of what is seen", "0::/../other\n", UNIFIED, ""),
        ("version 1 alone", "8:pids:/x\n", V1, ""),
        ("not mounted", "0::/x\n", V1, ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_the_folder_of_a_group_is_found(case: str, groups: str, mounts: str, expected: str) -> None:
    assert group_folder(groups, mounts) == expected, case


@pytest.mark.parametrize(
    ("origin", "place"),
    [
        (
            "/sys/fs/cgroup/system.slice/cronkeeper-worker.service",
            "/sys/fs/cgroup/system.slice/cronkeeper-worker.service",
        ),
        ("/sys/fs/cgroup/c.service/cronkeeper.main", "/sys/fs/cgroup/c.service"),
        ("/sys/fs/cgroup/c.service/cronkeeper.runs-1-2/runner", "/sys/fs/cgroup/c.service"),
        ("/sys/fs/cgroup/cronkeeper.runs-1-2/run-7-0-1-1", "/sys/fs/cgroup"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
    ],
)
def test_groups_of_ours_lie_where_we_were_started_and_never_in_one_another(origin: str, place: str) -> None:
    assert place_below(origin) == place
