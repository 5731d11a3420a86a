"""A whole Cronkeeper cluster, every part real: what a user of a fleet has, on one machine.

Three ZooKeeper servers, MariaDB, an S3 server, HAProxy in front of two API servers, two managers, and three workers,
each in a node with a cron of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import make_url

from cronkeeper.store.grants import Account, grant_statements, user_statements
from cronkeeper.wire.task import Signer
from cronkeeper_worker.root_rules import DAEMON_FOLDER
from tests.harness.certificates import Authority
from tests.harness.cron import Node, NodeProcess
from tests.harness.folders import make_folder, remove_folder
from tests.harness.haproxy import HAProxy
from tests.harness.hosts import LOOPBACK, Host
from tests.harness.mariadb import Database
from tests.harness.objectstore import ObjectStore
from tests.harness.ports import free_port
from tests.harness.processes import Process, ServerError
from tests.harness.tls_front import TlsFront
from tests.harness.zookeeper import ZooKeeper

CRONKEEPER = str(Path(sys.executable).parent / "cronkeeper")
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status, headers by lower-case name, and the body as bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def lowered(headers: Message) -> dict[str, str]:
    """Return headers by their names in lower case: HAProxy writes them so, the API does not."""
    return {name.lower(): value for name, value in headers.items()}


class Cluster:
    """`start` brings everything up and waits until it is ready; `stop` leaves no process and no file.

    `place` tells the host of each part by its name: `haproxy`, `api-1`, `m1`, `w1` and so on. `node` makes a worker's
    node of its name, its folder and the worker's state folder. Each kind of part has an account of its own in MySQL,
    with its rights and no others; `env` holds the one that may do everything. With `tls` the parts speak TLS with all
    stores (which must be able to, with certificates of that CA), and MySQL takes their accounts in no other way.
    `program` is another version's `cronkeeper`, for all but the workers.
    """

    def __init__(
        self,
        zookeeper: ZooKeeper,
        mariadb: Database,
        objects: ObjectStore,
        *,
        workers: int = 3,
        managers: int = 2,
        apis: int = 2,
        place: Callable[[str], Host] = lambda _name: LOOPBACK,
        node: Callable[[str, Path, Path], Node] | None = None,
        tls: Authority | None = None,
        program: str = CRONKEEPER,
    ) -> None:
        self.place = place
        self._program = program
        self._new_node = node or (lambda name, folder, _state_dir: Node(name, folder=folder, host=place(name)))
        self.folder = make_folder("cluster")
        self.zookeeper, self.mariadb, self.objects = zookeeper, mariadb, objects
        self.database = f"cluster_{uuid.uuid4().hex[:10]}"
        self._seed = secrets.token_bytes(32)
        self._key_file = self.folder / "signing-key"
        self.secrets_key_file = self.folder / "secrets-key"
        self._api_binds = [
            f"{place(f'api-{min(number, apis - 1) + 1}').address}:{free_port()}" for number in range(max(apis, 2))
        ]
        self._tls = tls
        self._object_front: TlsFront | None = None
        self._account_prefix = f"c{uuid.uuid4().hex[:8]}_"
        #: What each kind of part has beside `env`: `schema`, `api`, `manager`, `worker`.
        self.part_env: dict[str, dict[str, str]] = {}
        self.haproxy: HAProxy | None = None
        self.env: dict[str, str] = {}
        self.apis: list[Process] = []
        self.managers: list[Process] = []
        self.nodes: dict[str, Node] = {}
        self.workers: dict[str, NodeProcess] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._settings: dict[str, dict[str, str]] = {}
        self._counts = (workers, managers, apis)
        self.token = ""
        #: What `boot` starts as the worker.
        self.worker_argv: tuple[str, ...] = (CRONKEEPER, "worker")
        #: Where each manager and worker serves its metrics, as host:port.
        self.metrics: dict[str, str] = {}

    # -- life

    def start(self) -> Self:
        """Bring up all parts."""
        self._key_file.write_text(self._seed.hex())
        self._key_file.chmod(0o600)
        self.secrets_key_file.write_text(secrets.token_hex(32))
        self.secrets_key_file.chmod(0o600)
        bucket = self.objects.create_bucket(f"jobs-{uuid.uuid4().hex[:8]}")
        self.env = {
            "PATH": os.environ["PATH"],
            "CRONKEEPER_DATABASE_URL": self.mariadb.create_database(self.database),
            "CRONKEEPER_ZOOKEEPER": f"{self.zookeeper.hosts}/cronkeeper-{uuid.uuid4().hex[:8]}",
            "CRONKEEPER_ZOOKEEPER_AUTH": f"cronkeeper:{secrets.token_hex(16)}",
            "CRONKEEPER_BLOB_URL": f"s3://{bucket}",
            "CRONKEEPER_S3_ENDPOINT": self.objects.endpoint_url,
            "CRONKEEPER_S3_ACCESS_KEY": self.objects.access_key,
            "CRONKEEPER_S3_SECRET_KEY": self.objects.secret_key,
            "CRONKEEPER_SIGNING_KEY_FILE": str(self._key_file),
            "CRONKEEPER_SECRETS_KEY_FILES": str(self.secrets_key_file),
            "CRONKEEPER_VERIFY_KEYS": Signer.from_seed(self._seed).public_bytes.hex(),
            "CRONKEEPER_LOG_FORMAT": "json",
        }
        self.part_env = {str(account): self._make_account(account) for account in Account}
        self.command("db", "upgrade", env=self.part_env["schema"])
        for account in Account:
            if account is not Account.SCHEMA:
                self._grant(account)
        self.token = self.new_token("admin")
        workers, managers, apis = self._counts
        for number in range(apis):
            settings = {"CRONKEEPER_BIND": self._api_binds[number]}
            self.apis.append(self._service("api", number, self.place(f"api-{number + 1}"), settings))
        for number in range(managers):
            name = f"m{number + 1}"
            settings = {"CRONKEEPER_MANAGER_ID": name, "CRONKEEPER_METRICS_BIND": self._metrics_of(name)}
            self.managers.append(self._service("manager", number, self.place(name), settings))
        for number in range(workers):
            self.add_worker(f"w{number + 1}", {"zone": "abc"[number % 3]})
        self.haproxy = HAProxy(*self._api_binds[:2], host=self.place("haproxy")).start()
        self.wait(lambda: self.get("/readyz").status == 200, "the API is ready", 30)
        self.wait(lambda: len(self.workers_up()) == workers, "all workers are up", 30)
        return self

    def stop(self) -> None:
        if self.haproxy is not None:
            self.haproxy.stop()
        for node in self.nodes.values():
            node.stop()
        for process in [*self.apis, *self.managers]:
            process.kill()
        if self._object_front is not None:
            self._object_front.stop()
        for account in Account:
            self.mariadb.execute(f"DROP USER IF EXISTS '{self._account_prefix}{account}'@'%'")
        self.mariadb.drop_database(self.database)
        remove_folder(self.folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            print(self.logs())
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(self.logs())
        self.stop()

    def _make_account(self, account: Account) -> dict[str, str]:
        """Make one part's account, and return the settings that this part has beside `env`."""
        user, password = f"{self._account_prefix}{account}", secrets.token_hex(16)
        tls = self._tls
        for statement in user_statements(user, host="%", password=password, require_tls=tls is not None):
            self.mariadb.execute(statement)
        if account is Account.SCHEMA:
            self._grant(account)
        where = make_url(self.env["CRONKEEPER_DATABASE_URL"]).set(username=user, password=password)
        found = {"CRONKEEPER_DATABASE_URL": where.render_as_string(hide_password=False)}
        if tls is None:
            return found
        if self._object_front is None:
            self._object_front = TlsFront(self.objects.port, tls.issue("s3").both).start()
        chroot = self.env["CRONKEEPER_ZOOKEEPER"].partition("/")[2]
        return {
            **found,
            "CRONKEEPER_DATABASE_TLS_CA": str(tls.ca),
            "CRONKEEPER_ZOOKEEPER": f"{self.zookeeper.tls_hosts}/{chroot}",
            "CRONKEEPER_ZOOKEEPER_TLS_CA": str(tls.ca),
            "CRONKEEPER_S3_ENDPOINT": f"https://127.0.0.1:{self._object_front.port}",
            "CRONKEEPER_S3_TLS_CA": str(tls.ca),
        }

    def _grant(self, account: Account) -> None:
        user = f"{self._account_prefix}{account}"
        for statement in grant_statements(account, user, host="%", database=self.database):
            self.mariadb.execute(statement)

    def add_worker(self, name: str, labels: Mapping[str, str], settings: Mapping[str, str] | None = None) -> None:
        """Start one more node with its cron and its worker."""
        self._labels[name], self._settings[name] = dict(labels), dict(settings or {})
        self.boot(name)

    def boot(self, name: str) -> None:
        """Start a node with its cron and its worker, as it was added; its state and crontabs are those that it had."""
        node = self._new_node(name, self.folder / name, self.state_dir(name)).start()
        node.start_cron()
        self.nodes[name] = node
        labels, settings = self._labels[name], self._settings[name]
        env = {
            **self.env,
            **self.part_env["worker"],
            "CRONKEEPER_WORKER_ID": name,
            "CRONKEEPER_STATE_DIR": str(self.state_dir(name)),
            "CRONKEEPER_LABELS": ",".join(f"{key}={value}" for key, value in labels.items()),
            "CRONKEEPER_CRON_TIMEZONE": "UTC",
            "CRONKEEPER_NODE_ACCOUNTS": "root",
            "CRONKEEPER_STOP_WAIT_S": "5",
            "CRONKEEPER_METRICS_BIND": self._metrics_of(name),
            **settings,
        }
        self.workers[name] = node.process(self.worker_argv, env, name="worker").start()

    def state_dir(self, worker: str) -> Path:
        """Return a worker's state folder, which is root's."""
        return self.folder / f"state-{worker}"

    def daemon_dir(self, worker: str) -> Path:
        """Return the folder in it that is the daemon's, with the journal."""
        return self.state_dir(worker) / DAEMON_FOLDER

    # -- asking

    @property
    def url(self) -> str:
        """The base URL: HAProxy's."""
        if self.haproxy is None:
            raise ServerError("HAProxy has not been started")
        return self.haproxy.url

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request through HAProxy."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token if token is None else token}", **(headers or {})}
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, lowered(response.headers), response.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return Answer(exc.code, lowered(exc.headers), exc.read())

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post_job(self, **fields: Any) -> dict[str, Any]:
        """Post a job and return it; fails on anything but 201."""
        answer = self.request("POST", "/jobs", fields)
        assert answer.status == 201, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def runs(self, job_id: str) -> list[dict[str, Any]]:
        """Return the job's runs, newest first."""
        found: list[dict[str, Any]] = self.get(f"/jobs/{job_id}/runs").json()
        return found

    def workers_up(self) -> list[str]:
        answer = self.get("/workers")
        return [worker["id"] for worker in answer.json() if worker["state"] == "up"] if answer.status == 200 else []

    def owner(self, job_id: str) -> str | None:
        """Return the worker that has the (unsharded) job."""
        workers = self.get(f"/jobs/{job_id}").json()["workers"]
        return workers[0] if workers else None

    def crontab(self, worker: str) -> str:
        """Return all crontab files of a node, as text."""
        return "".join(text.decode() for text in self.nodes[worker].read_crontabs().values())

    def wait(self, check: Callable[[], T], what: str, timeout_s: float = 30.0, *, every_s: float = 0.2) -> T:
        """Wait until `check` is true and return what it returned; fail with `what` otherwise."""
        deadline = time.monotonic() + timeout_s
        fault: object = None
        while time.monotonic() < deadline:
            try:
                found = check()
                if found:
                    return found
                fault = found
            except (OSError, LookupError, TypeError, ValueError) as exc:
                fault = exc
            time.sleep(every_s)
        raise AssertionError(f"not within {timeout_s} s: {what} (last seen: {fault!r})")

    # -- commands

    def command(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """Run the command line with the cluster's settings; return what it printed."""
        done = subprocess.run(
            [self._program, *argv],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def new_token(self, role: str) -> str:
        """Make a bearer token directly in the database."""
        name = f"test-{role}-{uuid.uuid4().hex[:6]}"
        printed = self.command("db", "token", "--role", role, "--name", name, env=self.part_env["schema"])
        return next(word for word in printed.split() if word.startswith("ck_"))

    def leader(self) -> Process:
        """Return the manager that leads, by its metrics-free sign: its log. One that was started anew leads nothing."""
        for process in self.managers:
            lines = [line for line in process.log_text().splitlines() if "leader." in line or line.startswith("--- ")]
            if process.running and lines and "leader.elected" in lines[-1]:
                return process
        raise LookupError("no manager leads")

    def logs(self) -> str:
        """Return the tails of all services' logs, for a failed test."""
        parts = [*self.apis, *self.managers, *self.workers.values()]
        return "\n".join(f"== {part.name}\n{part.log_text()[-6000:]}" for part in parts)

    def _metrics_of(self, name: str) -> str:
        return self.metrics.setdefault(name, f"{self.place(name).address}:{free_port()}")

    def _service(self, kind: str, number: int, host: Host, settings: Mapping[str, str]) -> Process:
        name = f"{kind}-{number + 1}"
        env = {**self.env, **self.part_env[kind], **settings}
        return Process(name, [self._program, kind], log_path=self.folder / f"{name}.log", env=env, host=host).start()
