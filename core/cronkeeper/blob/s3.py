"""Objects in S3 or what speaks like it: put, get, head and delete, nothing that only Amazon has."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

from cronkeeper.blob import keys
from cronkeeper.errors import ConfigError, CronkeeperError, NotFoundError, UnavailableError
from cronkeeper.ports import BlobInfo

CHUNK_BYTES = 262_144
_NO_BUCKET = "NoSuchBucket"


class S3BlobStore:
    """`ports.BlobStore` in a bucket, all keys below `prefix`. Threads share its connections; make it after any fork."""

    def __init__(
        self, bucket: str, *, prefix: str, endpoint_url: str, access_key: str, secret_key: str, ca: str = ""
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url
        self._access_key = access_key
        self._secret_key = secret_key
        self._ca = ca
        self._lock = threading.Lock()
        self._made: Any = None

    def put(self, key: str, data: bytes) -> BlobInfo:
        # The server refuses what arrived damaged; newer checksums are not understood everywhere.
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        where = self._where(key)
        with self._errors(key):
            self._client().put_object(**where, Body=data, ContentMD5=digest)
        return BlobInfo(key, self.url_of(key), len(data))

    def stat(self, key: str) -> BlobInfo:
        where = self._where(key)
        with self._errors(key):
            answer = self._client().head_object(**where)
        return BlobInfo(key, self.url_of(key), int(answer["ContentLength"]))

    def read(self, key: str) -> Iterator[bytes]:
        where = self._where(key)
        with self._errors(key):
            answer = self._client().get_object(**where)
            # Without a length (a proxy may send it in chunks) the connection itself tells whether that was all.
            body, promised = answer["Body"], int(answer.get("ContentLength", 0))
            try:
                # What has come so far, however little: whoever reads must be able to tell that it comes too slowly.
                while chunk := body._raw_stream.read1(CHUNK_BYTES, decode_content=False):
                    promised -= len(chunk)
                    yield chunk
            finally:
                body.close()
        if promised > 0:  # read1 calls the connection's end the object's end
            raise UnavailableError(f"object store: {key}: it broke off {promised} bytes before its end")

    def delete(self, key: str) -> None:
        where = self._where(key)
        with contextlib.suppress(NotFoundError), self._errors(key):
            self._client().delete_object(**where)

    def url_of(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{keys.checked(key)}"

    def key_of(self, url: str) -> str:
        bases = [f"s3://{self._bucket}"]
        if self._endpoint_url:
            bases.append(f"{self._endpoint_url}/{self._bucket}")
        for base in bases:
            if url.startswith(base + "/"):
                return keys.below(f"{base}/{self._prefix}".rstrip("/"), url)
        raise ValueError("not a URL of our object store")

    def check(self) -> None:
        try:
            with self._errors(f"bucket {self._bucket}"):
                self._client().head_bucket(Bucket=self._bucket)
        except NotFoundError:
            raise self._no_bucket() from None

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + keys.checked(key)}

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> Any:
        # A third of a second and 30 MB: only for those who use S3, and only when they do.
        import boto3.session
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=self._access_key or None, aws_secret_access_key=self._secret_key or None
        )
        return session.client(
            "s3",
            endpoint_url=self._endpoint_url or None,
            region_name=session.region_name or "us-east-1",
            # Said here, so that no variable of the environment (AWS_CA_BUNDLE) can say otherwise.
            verify=self._ca or True,
            config=Config(
                connect_timeout=3,
                read_timeout=10,
                retries={"mode": "standard", "max_attempts": 3},
                max_pool_connections=16,
                # Servers other than Amazon's have neither a name for each bucket nor the newer checksums.
                s3={"addressing_style": "path" if self._endpoint_url else "auto"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
            SSLError,
        )
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ClientError as exc:
            raise self._translated(exc.response, what) from exc
        except (NoCredentialsError, PartialCredentialsError, ParamValidationError) as exc:
            raise ConfigError(f"object store: {exc}") from exc
        except ValueError as exc:
            # botocore's word for an endpoint URL that is none; our own keys were checked before.
            raise ConfigError(f"object store: {exc}") from exc
        except SSLError as exc:
            raise UnavailableError(f"object store: {what}: its certificate is not accepted: {exc}") from exc
        except (BotoCoreError, HTTPError, OSError) as exc:
            raise UnavailableError(f"object store: {what}: {type(exc).__name__}") from exc

    def _translated(self, response: Any, what: str) -> CronkeeperError:
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(response.get("Error", {}).get("Code", ""))
        if code == _NO_BUCKET:
            return self._no_bucket()
        if status == 404:
            return NotFoundError(f"object store: no {what}")
        if status in (400, 401, 403, 405) or 300 <= status < 400:
            return ConfigError(f"object store: {what}: the server says {status} {code}; check keys, region and rights")
        return UnavailableError(f"object store: {what}: the server says {status} {code}")

    def _no_bucket(self) -> ConfigError:
        return ConfigError(f"object store: there is no bucket {self._bucket}")
