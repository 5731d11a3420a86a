"""The attacks of whoever holds the bucket's password, or stands where the object store should be.

One worker of the cluster asks a server that lies (`tests/harness/s3_liar.py`); the jobs with files are its own. Each
file is content of its own, so that no node has it before the attack. What they cannot be kept from: a file that cannot
be had is not run. That is told, and the rest fires on.
"""

from __future__ import annotations

import base64
import http.server
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.hostile.ground import Ground, Job, Sign, Table

attack = Table()
WORKER, ZONE = "w4", "liar"
#: An attacked file is wanted every five seconds; what has not come by then is given up.
FILES: dict[str, Any] = {"type": "script", "filename": "x.sh", "selector": "zone=nowhere", "grace_s": 10}


class Intruder:
    """The bucket, with all rights, and the server in front of it, for one worker."""

    def __init__(self, ground: Ground, folder: Path, lie: Callable[[str], None], client: Any) -> None:
        self.ground, self.folder, self._lie, self.client = ground, folder, lie, client
        self.bucket = ground.cluster.env["CRONKEEPER_BLOB_URL"].removeprefix("s3://")
        self._lies: list[str] = []
        self.asked: list[str] = []
        self._stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._stranger.serve_forever, daemon=True).start()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        asked, evil = self.asked, self.evil("redirected")

        class Stranger(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(evil)))
                self.end_headers()
                self.wfile.write(evil)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Stranger

    @property
    def elsewhere(self) -> str:
        return f"http://127.0.0.1:{self._stranger.server_address[1]}/"

    def close(self) -> None:
        self._stranger.shutdown()
        self._stranger.server_close()
        self.client.close()

    def evil(self, name: str) -> bytes:
        return f"#!/bin/sh\n{self.ground.command('bucket-' + name)}\n".encode()

    def lie(self, mode: str, key: str, extra: str = "") -> None:
        """Have the server spoil this file."""
        self._lies.append(f"{mode} {key} {extra}".strip())
        self._lie("\n".join(["", *self._lies]))

    def put(self, job: Job, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(job), Body=data)

    def read(self, job: Job) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.bucket, Key=self.key(job))["Body"].read()
        return found

    def key(self, job: Job) -> str:
        return str(job["artifact"]["key"])

    def let_loose(self, job: Job) -> None:
        """Let the worker want the file."""
        answer = self.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {"selector": f"zone={ZONE}"})
        assert answer.status == 200, answer.body

    def refused(self, job: Job, event: str = "artifact.gone", words: str = "") -> Sign:
        """Let the worker want the file: it says why it does not take it, and the fires say why they did not run."""
        self.let_loose(job)
        reasons = {"artifact_missing", "late"}

        def told() -> bool:
            if not self.ground.log_says(event, words, key=self.key(job)):
                return False
            runs = self.ground.cluster.runs(job["id"])
            assert all(run["state"] == "skipped" for run in runs), runs
            return any(run["reason"] in reasons for run in runs)

        return Sign(told=told)


def file_of_its_own() -> dict[str, Any]:
    text = f"#!/bin/sh\n# {secrets.token_hex(16)}\nexit 0\n"
    return {**FILES, "executable": base64.b64encode(text.encode()).decode()}


NOT_IT = "is not the file that was submitted"


@attack()
def other_content(us: Intruder, job: Job) -> Sign:
    us.put(job, us.evil("other"))
    return us.refused(job, words=NOT_IT)


@attack()
def other_content_of_the_same_length(us: Intruder, job: Job) -> Sign:
    genuine = us.read(job)
    us.put(job, (us.evil("same") + b"#" * len(genuine))[: len(genuine)])
    return us.refused(job, words=NOT_IT)


@attack()
def content_cut_short(us: Intruder, job: Job) -> Sign:
    us.put(job, us.read(job)[:-3])
    return us.refused(job, words=NOT_IT)


@attack()
def no_content(us: Intruder, job: Job) -> Sign:
    us.put(job, b"")
    return us.refused(job, words=NOT_IT)


@attack()
def content_with_a_command_behind_it(us: Intruder, job: Job) -> Sign:
    us.put(job, us.read(job).replace(b"exit 0", b"") + us.evil("behind"))
    return us.refused(job, words=NOT_IT)


@attack()
def the_file_of_another_job(us: Intruder, job: Job) -> Sign:
    evil = base64.b64encode(us.evil("of-another")).decode()
    other = us.ground.cluster.post_job(**{**FILES, "schedule": "@yearly", "executable": evil})
    us.put(job, us.read(other))
    return us.refused(job, words=NOT_IT)


@attack()
def an_older_version_of_the_file(us: Intruder, job: Job) -> Sign:
    old = us.read(job)
    newer = base64.b64encode(old + b"# newer\n").decode()
    answer = us.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {"executable": newer, "filename": "x.sh"})
    assert answer.status == 200, answer.body
    job.update(answer.json())
    us.put(job, old)
    return us.refused(job, words=NOT_IT)


@attack()
def the_file_taken_away(us: Intruder, job: Job) -> Sign:
    us.client.delete_object(Bucket=us.bucket, Key=us.key(job))
    return us.refused(job)


@attack()
def a_file_without_an_end(us: Intruder, job: Job) -> Sign:
    """It is not read beyond the size that was signed."""
    us.lie("endless", us.key(job))
    sign = us.refused(job, words=NOT_IT)

    def told() -> bool:
        state = us.ground.cluster.state_dir(WORKER)
        assert all(path.stat().st_size < 1 << 20 for path in state.rglob("artifacts/*"))
        return bool(sign.told and sign.told())

    return Sign(told=told)


@attack()
def content_swapped_under_the_headers_of_the_truth(us: Intruder, job: Job) -> Sign:
    """The ETag is the genuine one's."""
    swapped = us.folder / "swapped"
    swapped.write_bytes(us.evil("etag"))
    us.lie("swap", us.key(job), str(swapped))
    return us.refused(job, words=NOT_IT)


@attack()
def one_bit_flipped_on_the_way(us: Intruder, job: Job) -> Sign:
    us.lie("flip", us.key(job))
    return us.refused(job, words=NOT_IT)


@attack()
def a_length_that_is_a_lie(us: Intruder, job: Job) -> Sign:
    """What comes is the file all the same, but a file that ends before its end is none that has come."""
    us.lie("longer", us.key(job))
    return us.refused(job, "artifact.away")


@attack()
def an_answer_that_leads_elsewhere(us: Intruder, job: Job) -> Sign:
    """Nobody follows: the other address is never asked."""
    us.lie("redirect", us.key(job), us.elsewhere)
    sign = us.refused(job, "artifact.away")
    return Sign(told=lambda: sign.told and sign.told() and not us.asked)


@attack()
def a_byte_a_second(us: Intruder, job: Job) -> Sign:
    """It is given up after a while, and the other files are fetched before it is asked for again."""
    us.lie("drip", us.key(job))
    sign = us.refused(job, "artifact.away", "too slowly")
    honest = us.ground.cluster.post_job(
        **{**file_of_its_own(), "schedule": "*/5 * * * * *", "grace_s": 60, "selector": f"zone={ZONE}"}
    )
    return Sign(told=sign.told, healed=lambda: us.ground.done(honest))


@attack()
def errors_for_ever(us: Intruder, job: Job) -> Sign:
    us.lie("error", us.key(job))
    return us.refused(job, "artifact.away")


@attack()
def content_swapped_once_the_node_has_it(us: Intruder, job: Job) -> Sign:
    """The node's copy is the genuine one, and goes on."""
    us.let_loose(job)
    us.ground.cluster.wait(lambda: us.ground.done(job), "it runs", 90)
    us.put(job, us.evil("after"))
    before = us.ground.done(job)
    return Sign(healed=lambda: us.ground.done(job) >= before + 2)


@attack()
def the_copy_on_the_node_swapped(us: Intruder, job: Job) -> Sign:
    """Beyond the bucket: whoever could write there would be root. It is hashed once more when it is run."""
    us.let_loose(job)
    us.ground.cluster.wait(lambda: us.ground.done(job), "it runs", 90)
    copies = list(us.ground.cluster.state_dir(WORKER).rglob(f"artifacts/{job['artifact']['sha256']}"))
    assert copies
    for copy in copies:
        copy.chmod(0o755)
        copy.write_bytes(us.evil("copy"))
        copy.chmod(0o555)
    time.sleep(0.1)

    def told() -> bool:
        return any(run["reason"] == "spawn_failed" for run in us.ground.cluster.runs(job["id"]))

    return Sign(told=told)


@attack()
def a_key_that_leaves_the_bucket(us: Intruder, job: Job) -> Sign:
    asked = [
        us.ground.cluster.request(
            "POST", "/jobs", {**FILES, "schedule": "@yearly", "executable": f"s3://{us.bucket}/{path}"}
        )
        for path in ("../../etc/passwd", "a/../../b", "%2e%2e/x", "/etc/passwd", "a//b")
    ]
    return Sign(told=lambda: all(answer.status == 422 for answer in asked))
