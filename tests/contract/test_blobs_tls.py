"""TLS to an S3 server: its certificate must be signed by the CA that the settings name."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.blob import open_blobs
from cronkeeper.errors import UnavailableError
from cronkeeper.ports import BlobStore
from tests.harness.certificates import Authority
from tests.harness.objectstore import ObjectStore
from tests.harness.tls_front import TlsFront

DATA = b"#!/bin/sh\necho hello\n"
KEY = f"artifacts/{hashlib.sha256(DATA).hexdigest()}/hello.sh"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("s3-tls"))


@pytest.fixture(scope="module")
def front(object_store_server: ObjectStore, authority: Authority) -> Iterator[TlsFront]:
    with TlsFront(object_store_server.port, authority.issue("s3", ("127.0.0.1",)).both) as front:
        yield front


def opened(server: ObjectStore, endpoint_url: str, ca: Path | str) -> BlobStore:
    bucket = server.create_bucket(f"tls-{uuid.uuid4().hex[:8]}")
    return open_blobs(
        f"s3://{bucket}",
        endpoint_url=endpoint_url,
        access_key=server.access_key,
        secret_key=server.secret_key,
        ca=str(ca),
    )


def test_files_go_both_ways_over_tls(object_store_server: ObjectStore, front: TlsFront, authority: Authority) -> None:
    blobs = opened(object_store_server, f"https://127.0.0.1:{front.port}", authority.ca)
    blobs.check()
    blobs.put(KEY, DATA)
    assert b"".join(blobs.read(KEY)) == DATA


def test_a_server_that_another_ca_signed_is_refused(
    object_store_server: ObjectStore, front: TlsFront, tmp_path: Path, authority: Authority
) -> None:
    blobs = opened(object_store_server, f"https://127.0.0.1:{front.port}", Authority(tmp_path).ca)
    with pytest.raises(UnavailableError, match="certificate is not accepted"):
        blobs.check()
    without = opened(object_store_server, f"https://127.0.0.1:{front.port}", "")
    with pytest.raises(UnavailableError, match="certificate is not accepted"):
        without.put(KEY, DATA)


def test_a_server_with_another_name_is_refused(
    object_store_server: ObjectStore, front: TlsFront, authority: Authority
) -> None:
    blobs = opened(object_store_server, f"https://localhost:{front.port}", authority.ca)
    with pytest.raises(UnavailableError, match="certificate is not accepted"):
        blobs.check()
