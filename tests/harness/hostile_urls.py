"""URLs that somebody might have us fetch: loopback in every spelling, clouds' metadata, files, tricks with names."""

from __future__ import annotations

#: The test's object store: its bucket, prefix and endpoint. All below looks a little like it, or not at all.
BUCKET, PREFIX, ENDPOINT_HOST = "jobs", "prod", "127.0.0.1"

_PATH = "/prod/artifacts/run.sh"
_LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.",
    "localhost.localdomain", "2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[::127.0.0.1]",
    "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",
]  # fmt: skip
_PRIVATE = [
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "[fd00::1]", "[fe80::1]", "[fe80::1%25lo]",
    "[fc00::1]", "[::ffff:10.0.0.1]", "224.0.0.1", "255.255.255.255", "[ff02::1]",
]  # fmt: skip
_METADATA = [
    "169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "169.254.43518", "169.16689662", "metadata.google.internal", "metadata", "100.100.100.200",
    "instance-data", "169.254.169.254.", "[2002:a9fe:a9fe::]",
]  # fmt: skip
_NAMES = ["example.com", "127.0.0.1.nip.io", "attacker.example", "xn--e1afmkfd.example", "a" * 300 + ".example"]
_USERINFO = [
    "http://{endpoint}@169.254.169.254/jobs" + _PATH,
    "http://user:secret@{endpoint}/jobs" + _PATH,
    "http://{endpoint}:80@attacker.example/jobs" + _PATH,
    "http://{endpoint}#@attacker.example/jobs" + _PATH,
    "http://{endpoint}?@attacker.example/jobs" + _PATH,
    "http://{endpoint}\\@attacker.example/jobs" + _PATH,
    "http://attacker.example\\@{endpoint}/jobs" + _PATH,
    "http://{endpoint}.attacker.example/jobs" + _PATH,
    "http://attacker.example/{endpoint}/jobs" + _PATH,
    "http:{endpoint}://jobs" + _PATH,
    "http:///{endpoint}/jobs" + _PATH,
    "http:////{endpoint}/jobs" + _PATH,
    " http://{endpoint}/jobs" + _PATH,
    "http://{endpoint} /jobs" + _PATH,
    "HTTP://{endpoint}/jobs" + _PATH,
    "https://{endpoint}/jobs" + _PATH,
    "http://{endpoint}:00080/jobs" + _PATH,
    "http://{endpoint}:65536/jobs" + _PATH,
    "http://{endpoint}:/jobs" + _PATH,
    "http://{endpoint}/jobs/prod/artifacts/run.sh?next=http://attacker.example/",
    "http://{endpoint}/jobs/prod/artifacts/run.sh#x",
    "http://{endpoint}/other" + _PATH,
    "http://{endpoint}/jobs/../other" + _PATH,
    "http://{endpoint}/jobs/prod/../../other/x",
    "http://{endpoint}/jobs/prod/%2e%2e/%2e%2e/other/x",
    "http://{endpoint}/jobs/prod/%252e%252e/x",
    "http://{endpoint}/jobs/prod/..%2f..%2fx",
    "http://{endpoint}/jobs/prod/..\\..\\x",
    "http://{endpoint}/jobs/prod//etc/passwd",
    "http://{endpoint}/jobs/prod/x%00.sh",
    "http://{endpoint}/jobs/prod/x%0d%0aX-Header:%20y",
    "http://{endpoint}/jobs/prod/" + "x" * 3000,
]
_SCHEMES = [
    "file:///etc/passwd", "file://localhost/etc/passwd", "file:////etc/passwd", "file://attacker.example/share",
    "FILE:///etc/shadow", "file:///proc/self/environ", "gopher://127.0.0.1:6379/_FLUSHALL", "ftp://127.0.0.1/x",
    "tftp://127.0.0.1/x", "dict://127.0.0.1:11211/stats", "ldap://127.0.0.1/x", "jar:http://127.0.0.1!/x",
    "data://text/plain;base64,eA==", "netdoc:///etc/passwd", "ws://127.0.0.1/x", "smb://127.0.0.1/x",
    "mysql://127.0.0.1/x", "zookeeper://127.0.0.1/x", "unix://var/run/docker.sock", "http+unix://%2Frun%2Fdocker.sock/x",
    "javascript://%0aalert(1)", "php://filter/resource=/etc/passwd", "expect://id", "://127.0.0.1/x", "//://x",
]  # fmt: skip
_BUCKETS = [
    "s3://otherbucket/prod/artifacts/run.sh", "s3://jobs.attacker.example/prod/x", "s3://jobs@otherbucket/prod/x",
    "S3://jobs/prod/artifacts/run.sh", "s3://JOBS/prod/artifacts/run.sh", "s3://jobs", "s3://jobs/", "s3://jobs/prod",
    "s3://jobs/prod/", "s3://jobs/production/artifacts/run.sh", "s3://jobs/other/x", "s3://jobs/prod/../other/x",
    "s3://jobs/prod/./x", "s3://jobs/prod/%2e%2e/other/x", "s3://jobs/prod/%252e%252e%252fother/x", "s3://jobs//prod/x",
    "s3://jobs/prod/a b", "s3://jobs/prod/x?versionId=1", "s3://jobs/prod/x#y", "s3://jobs\\prod\\x",
    "s3:///jobs/prod/x", "s3://127.0.0.1/jobs/prod/x", "s3a://jobs/prod/artifacts/run.sh", "gs://jobs/prod/x",
    "s3://jobs/prod/\u2024\u2024/x", "s3://jobs/prod/\uff0e\uff0e/x", "s3://arn:aws:s3:::jobs/prod/x",
]  # fmt: skip


def hostile_urls(endpoint: str) -> list[str]:
    """Return all of them, for a store whose endpoint is this host and port."""
    port = endpoint.rpartition(":")[2]
    hosts = [*_LOOPBACK, *_PRIVATE, *_METADATA, *_NAMES]
    urls = [f"http://{host}/latest/meta-data/" for host in hosts]
    # On the very port on which the object store listens, under every name of its host but its own.
    urls += [f"http://{host}:{port}/jobs{_PATH}" for host in _LOOPBACK if host != ENDPOINT_HOST]
    urls += [text.replace("{endpoint}", endpoint) for text in _USERINFO]
    return [*urls, *_SCHEMES, *_BUCKETS]
