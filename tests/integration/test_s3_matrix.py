"""T34 of the fault catalogue: whatever the object store does, a node has the very file that was submitted, or none."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.blob import open_blobs
from cronkeeper.domain.job import Artifact
from cronkeeper.ports import BlobStore
from cronkeeper_worker.artifacts import ArtifactCache
from tests.harness.objectstore import ObjectStore

SCRIPT = b"#!/bin/sh\n" + b"echo hello\n" * 24
#: Long enough for the cache to have tried, and failed, at least once.
TRIED_S = 3.0
PATIENCE_S = 60.0
HUGE_BYTES = 48_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An object store whose answers can be spoiled."""
    with ObjectStore() as server:
        server.start_liar()
        yield server


@pytest.fixture
def blobs(server: ObjectStore) -> Iterator[BlobStore]:
    """A bucket in it, which is honest at first and at last."""
    bucket = server.create_bucket(f"matrix-{uuid.uuid4().hex[:8]}")
    yield open_blobs(
        f"s3://{bucket}", endpoint_url=server.endpoint_url, access_key=server.access_key, secret_key=server.secret_key
    )
    server.lie("")


@pytest.fixture
def cache(blobs: BlobStore, tmp_path: Path) -> Iterator[ArtifactCache]:
    """A node's cache that fetches in the background."""
    cache = ArtifactCache(tmp_path / "artifacts", blobs)
    thread = threading.Thread(target=cache.run)
    thread.start()
    yield cache
    cache.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def submitted(blobs: BlobStore, data: bytes = SCRIPT) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    key = f"artifacts/{digest}/job.sh"
    blobs.put(key, data)
    return Artifact(key=key, url=blobs.url_of(key), sha256=digest, size=len(data), filename="job.sh")


def arrives(cache: ArtifactCache, artifact: Artifact) -> bytes:
    deadline = time.monotonic() + PATIENCE_S
    while not cache.has(artifact):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return cache.path(artifact).read_bytes()


def most_kept(cache: ArtifactCache, artifact: Artifact, seconds: float) -> int:
    """Watch the cache's folder for a while: the artifact must not appear. Return the most bytes that lay there."""
    most, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert not cache.has(artifact)
        with os.scandir(cache.path(artifact).parent) as entries:
            sizes = []
            for entry in entries:
                try:
                    sizes.append(entry.stat().st_size)
                except FileNotFoundError:
                    continue  # it was removed meanwhile
        most = max(most, sum(sizes))
        time.sleep(0.02)
    return most


@pytest.mark.parametrize("mode", ["error", "truncate", "flip"])
def test_t34_what_is_spoiled_is_not_kept_and_is_asked_for_again(
    server: ObjectStore, blobs: BlobStore, cache: ArtifactCache, mode: str
) -> None:
    """503s, bodies that break off, and bytes that differ: nothing is kept, and the truth is once it can be had."""
    artifact = submitted(blobs)
    server.lie(mode)
    cache.want([artifact])
    assert most_kept(cache, artifact, TRIED_S) <= len(SCRIPT)
    server.lie("")
    assert arrives(cache, artifact) == SCRIPT


def test_t34_down(server: ObjectStore, blobs: BlobStore, cache: ArtifactCache) -> None:
    """A store that is dead is asked again until it is back; what is here already stays."""
    here, missing = submitted(blobs), submitted(blobs, SCRIPT + b"exit 1\n")
    cache.want([here])
    assert arrives(cache, here) == SCRIPT
    server.kill()
    try:
        cache.want([here, missing])
        most_kept(cache, missing, TRIED_S)
        assert cache.has(here)
    finally:
        server.process.start()
        server.wait_started()
    assert arrives(cache, missing) == SCRIPT + b"exit 1\n"


def test_t34_slow(server: ObjectStore, blobs: BlobStore, cache: ArtifactCache) -> None:
    """A store that trickles: half a file is never taken for the file."""
    artifact = submitted(blobs)
    server.lie("slow")
    cache.want([artifact])
    most_kept(cache, artifact, 1.0)
    assert arrives(cache, artifact) == SCRIPT


def test_t34_a_byte_a_second(server: ObjectStore, blobs: BlobStore, cache: ArtifactCache) -> None:
    """A file that comes for ever is given up, and does not hold up the others."""
    endless, honest = submitted(blobs, SCRIPT * 20), submitted(blobs, SCRIPT + b"exit 2\n")
    server.lie(f"\ndrip {endless.sha256}")
    cache.want([endless])
    most_kept(cache, endless, 1.0)
    cache.want([endless, honest])
    assert arrives(cache, honest) == SCRIPT + b"exit 2\n"
    assert not cache.has(endless)


def test_t34_changed_object(blobs: BlobStore, cache: ArtifactCache) -> None:
    """Somebody has put another file in its place: that one is never kept, whatever its size."""
    artifact = submitted(blobs)
    for other in (SCRIPT.replace(b"hello", b"enemy"), b"", SCRIPT + b"x"):
        blobs.put(artifact.key, other)
        cache.want([artifact])
        most_kept(cache, artifact, TRIED_S)
    blobs.put(artifact.key, SCRIPT)
    assert arrives(cache, artifact) == SCRIPT


def test_t34_huge_object(blobs: BlobStore, cache: ArtifactCache) -> None:
    """An object that has become huge is not read to its end, nor does it fill the disk."""
    artifact = submitted(blobs)
    blobs.put(artifact.key, b"\0" * HUGE_BYTES)
    cache.want([artifact])
    assert most_kept(cache, artifact, TRIED_S) <= len(SCRIPT)


def test_t34_gzip_bomb(server: ObjectStore, blobs: BlobStore, cache: ArtifactCache) -> None:
    """An object that says that it is compressed is taken as the bytes that it is, and is never unpacked."""
    bomb = gzip.compress(b"\0" * HUGE_BYTES)
    artifact = submitted(blobs, bomb)
    bucket, _, key = blobs.url_of(artifact.key).removeprefix("s3://").partition("/")
    client = server.client()
    client.put_object(Bucket=bucket, Key=key, Body=bomb, ContentEncoding="gzip", ContentType="text/plain")
    client.close()
    cache.want([artifact])
    assert arrives(cache, artifact) == bomb
