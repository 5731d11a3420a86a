"""Nothing that a user writes makes us ask anybody but our own object store: refused before a packet is sent.

The API runs in a network namespace whose only way out ends in a cable that nobody listens to, and whose packets are
counted. There, a connection, a name that is looked up, or a datagram would show.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cronkeeper.blob import open_blobs
from cronkeeper.ports import BlobStore, JobQuery
from cronkeeper_api.models import JobInput
from cronkeeper_api.routing import Access
from cronkeeper_api.views import all_routes
from tests.harness.api import JOB, World, fields_of
from tests.harness.hostile_urls import BUCKET, PREFIX, hostile_urls
from tests.harness.hosts import NetSpace

ENDPOINT = "127.0.0.1:9000"
#: Addresses that clouds and private networks use, all of them ours in here: a listener on each port of all.
ADDRESSES = ("169.254.169.254/32", "10.0.0.1/32", "192.168.0.1/32", "fd00:ec2::254/128", "fd00::1/128")
_FILE = {"schedule": "5 * * * *", "type": "script", "filename": "run.sh"}


@dataclass(frozen=True)
class Traffic:
    """What the namespace has sent since it was made."""

    connections: int
    datagrams: int
    packets: int


class Town:
    """The API in a namespace of its own, with an object store that is not there."""

    def __init__(self, space: NetSpace, blobs: BlobStore) -> None:
        self.space = space
        self.world = World(blobs=blobs)
        self.world.post_job(name="bystander")

    def traffic(self) -> Traffic:
        text = subprocess.run(
            [*self.space.enter, "cat", "/proc/net/snmp", "/proc/net/snmp6"], capture_output=True, text=True, check=True
        ).stdout
        rows: dict[str, list[str]] = {}
        found = dict[str, int]()
        for line in text.splitlines():
            name, colon, rest = line.partition(": ")
            if not colon:
                key, value = line.split()
                found[key] = int(value)
            elif name in rows:
                found |= {f"{name}.{key}": int(value) for key, value in zip(rows.pop(name), rest.split(), strict=True)}
            else:
                rows[name] = rest.split()
        return Traffic(
            found["Tcp.ActiveOpens"],
            found["Udp.OutDatagrams"] + found["Udp6OutDatagrams"],
            # The kernel's own word about addresses that nobody has is none of ours.
            found["Ip.OutRequests"] - found["Icmp.OutMsgs"],
        )

    def state(self) -> object:
        return self.world.store.jobs.page(JobQuery()), self.world.ensemble.snapshot()

    def call(self, method: str, path: str, body: Any) -> Any:
        with self.space.entered():
            return self.world.call(method, path, json=body)


@pytest.fixture(scope="module")
def space() -> Iterator[NetSpace]:
    found = NetSpace()
    commands = [
        "link set lo up",
        *(f"addr add {address} dev lo" for address in ADDRESSES),
        # Whatever goes anywhere goes out here, and arrives nowhere.
        "link add out type veth peer name nowhere",
        "addr add 192.0.2.1/24 dev out",
        "link set out up",
        "link set nowhere up",
        "route add default via 192.0.2.2",
        "-6 route add default dev out",
    ]
    try:
        for command in commands:
            subprocess.run([*found.enter, "ip", *command.split()], check=True, capture_output=True)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def town(space: NetSpace) -> Iterator[Town]:
    blobs = open_blobs(
        f"s3://{BUCKET}/{PREFIX}", endpoint_url=f"http://{ENDPOINT}", access_key="key", secret_key="secret"
    )
    found = Town(space, blobs)
    yield found
    found.world.close()


def test_what_is_sent_would_be_seen(town: Town) -> None:
    before = town.traffic()
    own = town.call("POST", "/jobs", {**_FILE, "executable": f"s3://{BUCKET}/{PREFIX}/artifacts/run.sh"})
    # Its own store is asked, and is not there.
    assert own.status_code == 503
    assert town.traffic().connections > before.connections
    before = town.traffic()
    with town.space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.sendto(b"x", ("198.51.100.1", 53))
    with town.space.entered(), socket.socket() as asked:
        asked.settimeout(0.05)
        with contextlib.suppress(OSError):
            asked.connect(("198.51.100.1", 80))
    after = town.traffic()
    assert (after.connections, after.datagrams) == (before.connections + 1, before.datagrams + 1)
    assert after.packets > before.packets


def test_there_are_enough_of_them() -> None:
    urls = hostile_urls(ENDPOINT)
    assert len(urls) == len(set(urls)) >= 140


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/jobs"), ("PUT", "/jobs/1"), ("PATCH", "/jobs/1"), ("POST", "/apply")],
)
def test_no_hostile_url_is_asked_for_anything(method: str, path: str, town: Town) -> None:
    sent, state = town.traffic(), town.state()
    for url in hostile_urls(ENDPOINT):
        job = {**_FILE, "executable": url}
        answer = town.call(method, path, {"jobs": [{**job, "name": "a"}]} if path == "/apply" else job)
        assert answer.status_code == 422, (url, answer.get_data(as_text=True))
        assert {field.rpartition(".")[2] for field in fields_of(answer)} == {"executable"}, url
        # Nothing of a name and a password that stood there comes back.
        assert "secret@" not in answer.get_data(as_text=True), url
    assert town.state() == state
    assert town.traffic() == sent


def test_a_preview_asks_nobody_for_a_file(town: Town) -> None:
    sent = town.traffic()
    for url in [*hostile_urls(ENDPOINT), f"s3://{BUCKET}/{PREFIX}/artifacts/run.sh"]:
        assert town.call("POST", "/preview", {**_FILE, "executable": url}).status_code in (200, 422), url
    assert town.traffic() == sent


def _string_fields(model: type[BaseModel]) -> list[str]:
    """The fields of a request whose schema has a text in it somewhere."""
    schema = model.model_json_schema()
    return [name for name, field in schema["properties"].items() if "string" in str(field) or "$ref" in str(field)]


@pytest.mark.parametrize(
    "route",
    [route for route in all_routes(metrics=Access.VIEWER) if route.body is not None],
    ids=lambda route: route.endpoint,
)
def test_no_other_field_of_any_request_is_taken_for_an_address(route: Any, town: Town) -> None:
    sent = town.traffic()
    urls = (
        "http://169.254.169.254/latest/",
        "http://[fd00:ec2::254]/x",
        "s3://otherbucket/x",
        "http://attacker.example/",
    )
    path = route.path.replace("{job_id}", "1").replace("{run_id}", "1-0-1-1").replace("{name}", "x")
    path = path.replace("{worker_id}", "w").replace("{namespace}", "default").replace("{token_id}", "9")
    base = dict(route.example or {}) | (JOB if route.body is JobInput else {})
    for field in _string_fields(route.body):
        for url in urls:
            for value in (url, [url], {url: url}, {"x": url}):
                with town.space.entered():
                    answer = town.world.call(route.method, path, json={**base, field: value})
                assert answer.status_code < 500, (field, value, answer.get_data(as_text=True))
    assert town.traffic() == sent


def test_a_store_of_files_opens_no_other_file(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    root.mkdir()
    (tmp_path / "secret").write_text("canary")
    (root / "link").symlink_to(tmp_path / "secret")
    world = World(blobs=open_blobs(root.as_uri(), endpoint_url="", access_key="", secret_key=""))
    try:
        tricks = [
            f"{root.as_uri()}/../secret", f"{root.as_uri()}/%2e%2e/secret", f"{root.as_uri()}/link",
            f"{root.as_uri()}//secret", f"{root.as_uri()}/./../secret", f"file://localhost{tmp_path}/secret",
            f"{(tmp_path / 'secret').as_uri()}", f"{root.as_uri()}", f"{root.as_uri()}/", f"{root.as_uri()}x/secret",
            f"{root.as_uri()}/..%2fsecret", f"{root.as_uri()}/..%252fsecret", f"file:{root}/../secret://x",
        ]  # fmt: skip
        for url in [*tricks, *hostile_urls(ENDPOINT)]:
            answer = world.call("POST", "/jobs", json={**_FILE, "executable": url})
            assert answer.status_code == 422, (url, answer.get_data(as_text=True))
        assert world.store.jobs.page(JobQuery()) == []
    finally:
        world.close()
