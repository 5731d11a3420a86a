"""The object store's contract, over the shipped double, a folder and an S3 server."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cronkeeper.blob import open_blobs
from cronkeeper.errors import ConfigError, NotFoundError, UnavailableError
from cronkeeper.ports import BlobInfo, BlobStore
from cronkeeper.testing.memory_blobs import MemoryBlobs
from tests.harness.objectstore import ObjectStore
from tests.harness.ports import free_port

SCRIPT = b"#!/bin/sh\necho hello\n"
BAD_KEYS = ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a b", "ä", "a\n", "a\0b", "~x", "x" * 1000]


def key_for(data: bytes, name: str = "hello.sh") -> str:
    return f"artifacts/{hashlib.sha256(data).hexdigest()}/{name}"


@pytest.fixture
def bucket(object_store_server: ObjectStore) -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    client = object_store_server.client()
    client.create_bucket(Bucket=name)
    client.close()
    return name


def open_s3(server: ObjectStore, url: str, *, secret_key: str = "", endpoint_url: str = "") -> BlobStore:
    return open_blobs(
        url,
        endpoint_url=endpoint_url or server.endpoint_url,
        access_key=server.access_key,
        secret_key=secret_key or server.secret_key,
    )


@pytest.fixture(params=["memory", "file", "s3", "s3 with a prefix"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "memory":
        yield MemoryBlobs()
    elif request.param == "file":
        yield open_blobs((tmp_path / "a folder").as_uri())
    else:
        server = request.getfixturevalue("object_store_server")
        url = f"s3://{request.getfixturevalue('bucket')}"
        yield open_s3(server, url if request.param == "s3" else f"{url}/some/where")


def content(blobs: BlobStore, key: str) -> bytes:
    return b"".join(blobs.read(key))


def test_what_was_put_can_be_read(blobs: BlobStore) -> None:
    key = key_for(SCRIPT)
    info = blobs.put(key, SCRIPT)
    assert info == BlobInfo(key, blobs.url_of(key), len(SCRIPT))
    assert blobs.stat(key) == info
    assert content(blobs, key) == SCRIPT


def test_putting_again_is_harmless(blobs: BlobStore) -> None:
    key = key_for(SCRIPT)
    assert blobs.put(key, SCRIPT) == blobs.put(key, SCRIPT)
    assert content(blobs, key) == SCRIPT


@pytest.mark.parametrize("size", [0, 1, 262_144, 3_000_001])
def test_any_size_arrives_whole_and_in_bounded_chunks(blobs: BlobStore, size: int) -> None:
    data = os.urandom(size)
    key = key_for(data, "program")
    blobs.put(key, data)
    chunks = list(blobs.read(key))
    assert b"".join(chunks) == data
    assert all(len(chunk) <= 262_144 for chunk in chunks)
    assert blobs.stat(key).size == size


def test_what_is_not_there_is_not_found(blobs: BlobStore) -> None:
    blobs.put("artifacts/other/file", b"x")
    for key in (key_for(SCRIPT), "artifacts/other", "artifacts/other/file2", "nothing"):
        with pytest.raises(NotFoundError):
            blobs.stat(key)
        with pytest.raises(NotFoundError):
            content(blobs, key)


def test_what_was_deleted_is_gone_and_the_others_stay(blobs: BlobStore) -> None:
    blobs.put("artifacts/a/1", b"1")
    blobs.put("artifacts/a/2", b"2")
    for _ in range(2):
        blobs.delete("artifacts/a/1")
    blobs.delete("never/was")
    with pytest.raises(NotFoundError):
        blobs.stat("artifacts/a/1")
    assert content(blobs, "artifacts/a/2") == b"2"


def test_a_url_leads_back_to_its_key(blobs: BlobStore) -> None:
    for key in (key_for(SCRIPT), "a", "A.b_c-d/e.f"):
        assert blobs.key_of(blobs.url_of(key)) == key


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_lead_elsewhere_are_refused(blobs: BlobStore, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: blobs.put(key, b"x"),
        lambda: blobs.stat(key),
        lambda: content(blobs, key),
        lambda: blobs.delete(key),
        lambda: blobs.url_of(key),
        lambda: blobs.key_of(blobs.url_of("a")[:-1] + key),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a"):
            call()


@pytest.mark.parametrize(
    "url",
    ["", "a", "/etc/passwd", "file:///etc/passwd", "file://host/etc/passwd", "s3://other/a", "http://example.com/a"],
)
def test_urls_of_anything_else_are_refused(blobs: BlobStore, url: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        blobs.key_of(url)


@pytest.mark.parametrize("tail", ["?versionId=1", "#x", "/../../x", "%2e%2e/x", "%00"])
def test_urls_with_more_than_a_key_are_refused(blobs: BlobStore, tail: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        blobs.key_of(blobs.url_of("a/b") + tail)


def test_a_store_that_can_be_used_passes_its_check(blobs: BlobStore) -> None:
    blobs.check()


def test_many_threads_may_share_a_store(blobs: BlobStore) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            data = f"number {number}".encode() * 1000
            for _ in range(3):
                blobs.put(key_for(data), data)
                assert content(blobs, key_for(data)) == data
                blobs.put("same/for/all", b"all")
        except Exception as exc:  # noqa: BLE001  # whatever it is, the main thread must show it
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert failures == []
    assert content(blobs, "same/for/all") == b"all"


# -- opening


@pytest.mark.parametrize(
    "url",
    [
        "", "folder", "/folder", "file://host/x", "file:x", "file:///a/../b", "file:///a?b", "s3://", "s3:///x",
        "s3://bucket/a b", "s3://bucket/../x", "http://h/x",
    ],
)  # fmt: skip
def test_a_store_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="object store"):
        open_blobs(url)


def test_one_key_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="both keys or none"):
        open_blobs("s3://bucket", access_key="a")


def test_boto3_is_not_imported_by_who_uses_a_folder(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from cronkeeper.blob import open_blobs\n"
        f"blobs = open_blobs({tmp_path.as_uri()!r})\n"
        "blobs.put('a', b'x')\n"
        "open_blobs('s3://bucket')\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0


# -- a folder


def test_files_are_for_us_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    blobs = open_blobs(root.as_uri())
    before = os.umask(0)
    try:
        blobs.put("a/b/c", b"x")
    finally:
        os.umask(before)
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    assert found == ["a", "a/b", "a/b/c"]
    assert (root / "a/b/c").stat().st_mode & 0o777 == 0o600
    for folder in (root, root / "a", root / "a/b"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_symbolic_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "store"
    blobs = open_blobs(root.as_uri())
    blobs.put("a/b", b"x")
    (root / "a" / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "a" / "pipe")
    for key in ("a/file", "folder/secret", "a/pipe"):
        with pytest.raises(NotFoundError):
            blobs.stat(key)
        with pytest.raises(NotFoundError):
            content(blobs, key)
    with pytest.raises(NotFoundError):
        blobs.put("folder/new", b"x")
    blobs.delete("folder/secret")
    blobs.put("a/file", b"y")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert content(blobs, "a/file") == b"y"


def test_a_folder_that_cannot_be_made_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    blobs = open_blobs((tmp_path / "file" / "store").as_uri())
    with pytest.raises((ConfigError, NotFoundError)):
        blobs.check()


# -- S3


def test_the_servers_own_http_url_is_ours_too(object_store_server: ObjectStore, bucket: str) -> None:
    blobs = open_s3(object_store_server, f"s3://{bucket}/pre")
    endpoint = object_store_server.endpoint_url
    assert blobs.key_of(f"{endpoint}/{bucket}/pre/a/b") == "a/b"
    for url in (
        f"{endpoint}/{bucket}/a/b",
        f"{endpoint}/other/pre/a",
        f"http://user@{endpoint[7:]}/{bucket}/pre/a",
        f"{endpoint}.example.com/{bucket}/pre/a",
    ):
        with pytest.raises(ValueError, match="not a URL of our"):
            blobs.key_of(url)


def test_a_prefix_keeps_two_stores_in_one_bucket_apart(object_store_server: ObjectStore, bucket: str) -> None:
    one, two = (open_s3(object_store_server, f"s3://{bucket}/{name}") for name in ("one", "two"))
    one.put("a", b"1")
    with pytest.raises(NotFoundError):
        two.stat("a")


def test_a_wrong_secret_is_a_matter_of_configuration(object_store_server: ObjectStore, bucket: str) -> None:
    blobs = open_s3(object_store_server, f"s3://{bucket}", secret_key="wrong")
    calls: list[Callable[[], object]] = [blobs.check, lambda: blobs.put("a", b"x"), lambda: content(blobs, "a")]
    for call in calls:
        with pytest.raises(ConfigError):
            call()


def test_a_missing_bucket_is_a_matter_of_configuration(object_store_server: ObjectStore) -> None:
    blobs = open_s3(object_store_server, "s3://there-is-no-such-bucket")
    with pytest.raises(ConfigError, match="there-is-no-such-bucket"):
        blobs.check()
    with pytest.raises(ConfigError, match="there-is-no-such-bucket"):
        blobs.put("a", b"x")


def test_a_server_that_refuses_is_unavailable(object_store_server: ObjectStore) -> None:
    blobs = open_s3(object_store_server, "s3://bucket", endpoint_url=f"http://127.0.0.1:{free_port()}")
    calls: list[Callable[[], object]] = [
        blobs.check,
        lambda: blobs.put("a", b"x"),
        lambda: blobs.stat("a"),
        lambda: content(blobs, "a"),
        lambda: blobs.delete("a"),
    ]
    for call in calls:
        with pytest.raises(UnavailableError):
            call()


def test_an_endpoint_that_is_no_url_is_a_matter_of_configuration(object_store_server: ObjectStore) -> None:
    blobs = open_s3(object_store_server, "s3://bucket", endpoint_url="no url")
    with pytest.raises(ConfigError):
        blobs.check()


class CrudeServer(BaseHTTPRequestHandler):
    """Breaks off half-way, or is too busy."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "busy" in self.path:
            self.answer(503, b"")
        elif "chunk" in self.path:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3e8\r\n" + b"x" * 1000 + (b"\r\n3e8\r\n" if "half" in self.path else b"\r\n0\r\n\r\n"))
            self.close_connection = True
        else:
            self.answer(200, b"x" * 1000, promised=2000)
            self.close_connection = True

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(503, b"")

    def answer(self, status: int, body: bytes, *, promised: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def crude() -> Iterator[BlobStore]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), CrudeServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    yield open_blobs("s3://bucket", endpoint_url=endpoint_url, access_key="a", secret_key="s")
    server.shutdown()
    thread.join(10.0)
    server.server_close()


def test_an_object_that_breaks_off_is_unavailable_and_never_short(crude: BlobStore) -> None:
    with pytest.raises(UnavailableError):
        content(crude, "whole")


def test_an_object_without_a_length_comes_whole_or_is_unavailable(crude: BlobStore) -> None:
    """So does a server or a proxy answer that sends it in chunks."""
    assert content(crude, "chunks") == b"x" * 1000
    with pytest.raises(UnavailableError):
        content(crude, "half-a-chunk")


def test_a_busy_server_is_unavailable(crude: BlobStore) -> None:
    calls: list[Callable[[], object]] = [lambda: content(crude, "busy"), lambda: crude.put("busy", b"x")]
    for call in calls:
        with pytest.raises(UnavailableError):
            call()


def test_the_double_can_be_away() -> None:
    blobs = MemoryBlobs()
    blobs.put("a", b"x")
    blobs.away = True
    for call in (blobs.check, lambda: content(blobs, "a"), lambda: blobs.put("b", b"x")):
        with pytest.raises(UnavailableError):
            call()
