"""What the security of POST and of a fire costs: the product beside itself without its checks, in turns, in one run.

    .venv/bin/python -m bench.security_cost [PAIRS] [SECONDS]

POST: 8 clients post jobs over HAProxy to an API server of the product, and in turn to one whose process has no tokens,
signatures, trail, quotas and copies of secrets (`bench/unchecked_api.py`); both on one real MariaDB and one real
ZooKeeper. A pair is on and off, in the order on-off, then off-on; the ratio is that of the two rates of a pair. The
processor time is that of API server and MariaDB together, for each POST: other programs on the machine do not count.

Fire: from the trigger to the started process of a script, with real engine, journal and executor: on, the task's
signature, its account, its secret and the hash of its file are checked; off, they are not. 200 fires of each.

PAIRS (10) and SECONDS (5) are of POST. Run it as root, on a quiet machine, once `tests/run` has set up.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import security_fires
from cronkeeper.wire.task import Signer
from tests.harness.haproxy import HAProxy
from tests.harness.mariadb import MariaDB
from tests.harness.ports import free_port
from tests.harness.processes import Process
from tests.harness.zookeeper import ZooKeeper

CLIENTS = 8
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Round:
    """What one side did in one turn."""

    posts: int
    seconds: float
    processor_ms: float

    @property
    def rate(self) -> float:
        return self.posts / self.seconds


class Side:
    """One API server behind an HAProxy of its own."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], folder: Path, name: str, token: str) -> None:
        bind = f"127.0.0.1:{free_port()}"
        self.process = Process(
            name, argv, log_path=folder / f"{name}.log", env={**env, "CRONKEEPER_BIND": bind}
        ).start()
        self.haproxy = HAProxy(bind, bind).start()
        self.token = token
        self.process.wait_until(self._answers, timeout_s=60, what="answering")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.haproxy.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def post_for(self, seconds: float, *others: int) -> Round:
        """Post with all clients for so long."""
        pids = [*tree(self.process.pid), *others]
        end_s, counts, before = time.monotonic() + seconds, [0] * CLIENTS, processor_ms(pids)
        begun_s = time.monotonic()
        threads = [threading.Thread(target=self._post, args=(end_s, counts, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Round(sum(counts), time.monotonic() - begun_s, processor_ms(pids) - before)

    def _post(self, end_s: float, counts: list[int], number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.haproxy.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        while time.monotonic() < end_s:
            minute = secrets.randbelow(60)
            job = {"executable": "ls -la", "schedule": f"{minute} * * * *", "type": "command"}
            connection.request("POST", "/jobs", json.dumps(job), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise RuntimeError(f"POST was answered by {answer.status}")
            counts[number] += 1
        connection.close()

    def stop(self) -> None:
        self.haproxy.stop()
        self.process.stop()


def tree(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [child for text in path.read_text().split() for child in tree(int(text))]
    return found


def processor_ms(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * 1000 / os.sysconf("SC_CLK_TCK")


def main() -> int:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors", flush=True)
    measure_posts(pairs, seconds)
    security_fires.measure(200)
    print(f"load average {os.getloadavg()[0]:.1f}")
    return 0


def measure_posts(pairs: int, seconds: float) -> None:
    with ZooKeeper(1) as zookeeper, MariaDB() as mariadb, tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        env = settings(zookeeper, mariadb.create_database("bench"), folder)
        token = prepared(env)
        on = Side([str(BIN / "cronkeeper"), "api"], env, folder, "on", token)
        off = Side([sys.executable, "-m", "bench.unchecked_api"], env, folder, "off", token)
        try:
            for side in (on, off):
                side.post_for(2.0)
            found: list[tuple[Round, Round]] = []
            for number in range(pairs):
                order = (on, off) if number % 2 == 0 else (off, on)
                rounds = {side: side.post_for(seconds, mariadb.process.pid) for side in order}
                found.append((rounds[on], rounds[off]))
                print(f"pair {number + 1}: {rounds[on].rate:.0f} on, {rounds[off].rate:.0f} off", flush=True)
        finally:
            on.stop()
            off.stop()
    said("POST a second, on", [one.rate for one, _ in found])
    said("POST a second, off", [other.rate for _, other in found])
    said("on / off, rate", [one.rate / other.rate for one, other in found])
    costs: Callable[[Round], float] = lambda item: item.processor_ms / item.posts  # noqa: E731 - used twice, right here
    said("processor ms a POST, on", [costs(one) for one, _ in found])
    said("processor ms a POST, off", [costs(other) for _, other in found])
    said("on / off, processor", [costs(one) / costs(other) for one, other in found])


def settings(zookeeper: Any, database_url: str, folder: Path) -> dict[str, str]:
    seed = secrets.token_bytes(32)
    for name, value in (("signing", seed.hex()), ("secrets", secrets.token_hex(32))):
        (folder / name).write_text(value)
        (folder / name).chmod(0o600)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CRONKEEPER_DATABASE_URL": database_url,
        "CRONKEEPER_ZOOKEEPER": f"{zookeeper.hosts}/bench",
        "CRONKEEPER_ZOOKEEPER_AUTH": f"bench:{secrets.token_hex(16)}",
        "CRONKEEPER_BLOB_URL": f"file://{folder}/blobs",
        "CRONKEEPER_SIGNING_KEY_FILE": str(folder / "signing"),
        "CRONKEEPER_SECRETS_KEY_FILES": str(folder / "secrets"),
        "CRONKEEPER_VERIFY_KEYS": Signer.from_seed(seed).public_bytes.hex(),
    }


def prepared(env: dict[str, str]) -> str:
    """Make the tables and a token."""
    from cronkeeper_cli import database

    database.upgrade(env["CRONKEEPER_DATABASE_URL"])
    return database.create_token(env["CRONKEEPER_DATABASE_URL"], name="bench", role="admin")


def said(what: str, values: Sequence[float]) -> None:
    print(f"  {what:<28} {min(values):9.3f} {statistics.median(values):9.3f} {max(values):9.3f}   min / median / max")


if __name__ == "__main__":
    raise SystemExit(main())
