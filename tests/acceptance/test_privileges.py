"""Who is root on a node: the part that starts runs, and nobody who talks to the network."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.parts import KEEPER, runner_pids
from tests.harness.accounts import DAEMON
from tests.harness.cluster import Cluster

# What a job of another account tries on whatever is not its own: it prints what it got.
_ATTACK = r"""
for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    words=$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline")
    case $words in *cronkeeper_worker*|*runner_main.py*) ;; *) continue ;; esac
    [ "$(stat -c %U "$folder" 2>/dev/null)" = "$(id -un)" ] && continue
    echo "found $(stat -c %U "$folder") ${words%% *}"
    for number in STOP TERM KILL; do kill -$number "$pid" 2>/dev/null && echo "GOT kill $number"; done
    for name in environ mem maps; do head -c 1 "$folder/$name" >/dev/null 2>&1 && echo "GOT $name"; done
    ls "$folder/fd" >/dev/null 2>&1 && echo "GOT fd"
    [ -x /usr/bin/python3 ] && /usr/bin/python3 -ISc '
import ctypes, sys
if ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) == 0: print("GOT ptrace")' "$pid"
done
for path in root.json generations runner.lock runner.log daemon daemon/away.json daemon/journal.db; do
    cat "STATE/$path" >/dev/null 2>&1 && echo "GOT $path"
    (: >>"STATE/$path") 2>/dev/null && echo "GOT to write $path"
done
echo end
"""


def facts(pid: int) -> dict[str, list[str]]:
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in status.splitlines())}


def parent_of(pid: int) -> int:
    return int(facts(pid)["PPid"][0])


def listening_or_connected(pid: int) -> set[str]:
    """Return which of the process's sockets are of a network: their lines in /proc/net/tcp and its like."""
    found = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6")]
    return {line for table in tables for line in table.splitlines()[1:] if f"socket:[{line.split()[9]}]" in found}


def test_the_daemon_that_talks_to_the_network_is_not_root_and_who_is_root_talks_to_nobody(cluster: Cluster) -> None:
    daemon, (root_part,) = cluster.workers["w2"].pid, runner_pids(cluster.nodes["w2"])
    assert Path(f"/proc/{daemon}").owner() == DAEMON
    status = facts(daemon)
    assert (len(set(status["Uid"])), len(set(status["Gid"])), status["NoNewPrivs"]) == (1, 1, ["1"])
    assert {name: int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapAmb"), 0
    )
    assert listening_or_connected(daemon)
    assert facts(root_part)["Uid"] == ["0"] * 4
    assert listening_or_connected(root_part) == set()
    assert b"CRONKEEPER_DATABASE_URL" not in Path(f"/proc/{root_part}/environ").read_bytes()
    state = cluster.state_dir("w2")
    assert {path.name for path in state.iterdir() if path.owner() != "root"} == {"daemon"}


@pytest.fixture
def on_w2(cluster: Cluster) -> Any:
    made: list[str] = []

    def post(**fields: Any) -> str:
        job = cluster.post_job(type="command", selector="zone=b", **fields)
        made.append(job["id"])
        cluster.wait(lambda: cluster.owner(job["id"]) == "w2", "w2 has it")
        return str(job["id"])

    yield post
    for job_id in made:
        cluster.request("DELETE", f"/jobs/{job_id}")


def test_a_job_can_neither_end_nor_trace_nor_read_the_daemon_or_the_root_part(cluster: Cluster, on_w2: Any) -> None:
    before = [cluster.workers["w2"].pid, *runner_pids(cluster.nodes["w2"])]
    script = cluster.folder / "attack.sh"
    script.write_text(_ATTACK.replace("STATE", str(cluster.state_dir("w2"))))
    script.chmod(0o755)
    job_id = on_w2(executable=f"sh {script}", schedule="@every 1h")
    assert cluster.request("POST", f"/jobs/{job_id}/run", {}).status < 300
    ended = cluster.wait(
        lambda: [run for run in cluster.runs(job_id) if run["state"] in ("succeeded", "failed")], "it has ended", 60
    )
    printed = cluster.get(f"/runs/{ended[0]['id']}/log").body.decode()
    assert printed.endswith("end\n"), printed
    assert {f"found {DAEMON}", "found root"} <= {line.rpartition(" ")[0] for line in printed.splitlines()}, printed
    assert "GOT" not in printed
    assert [cluster.workers["w2"].pid, *runner_pids(cluster.nodes["w2"])] == before


def test_without_anybody_of_ours_cron_alone_brings_back_the_root_part_and_fires(cluster: Cluster, on_w2: Any) -> None:
    """The root part and its parent are killed: the daemon cannot start another, and ends; cron's entry can."""
    job_id = on_w2(executable="id -un", schedule="* * * * *")
    node = cluster.nodes["w2"]
    old = runner_pids(node)
    keepers = [parent_of(pid) for pid in old]
    assert [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in keepers] == [KEEPER]
    for pid in (*keepers, *old):
        os.kill(pid, signal.SIGKILL)
    cluster.wait(lambda: not cluster.workers["w2"].running, "the daemon has ended", 60)
    known = {run["id"] for run in cluster.runs(job_id)}
    cluster.wait(lambda: runner_pids(node), "there is a root part again", 90)
    try:
        by_cron = cluster.wait(
            lambda: [run for run in cluster.runs(job_id) if run["id"] not in known and run["state"] == "succeeded"],
            "it fires", 150,
        )  # fmt: skip
        assert by_cron[0]["worker"] == "w2", by_cron
        assert by_cron[0]["output_tail"] == "nobody\n"
        # The stand-in itself was not root: what it has written is the daemon's.
        state = cluster.state_dir("w2")
        assert {path.owner() for path in (state / "daemon").rglob("*")} == {DAEMON}
    finally:
        cluster.workers["w2"].start()
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are back", 60)
