"""What the root part believes: from a signed task to the order that is carried out.

The daemon, which talks to the network, says which task is to be run now. What that means (command, account, limits,
file) is taken from the bytes that were signed, and the account must be one that root allows. The daemon adds what it
alone can know: the run's id, what the run is told about itself, and the values of the secrets that the task names.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cronkeeper_worker import root_artifacts
from cronkeeper_worker.orders import TOLD, AccountError, Order, OrderError, Secret, is_run_id
from cronkeeper_worker.root_rules import Rules
from cronkeeper_worker.verified import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

#: As in `cronkeeper.wire.codec`.
_MAX_TASK = 262_144
_MAX_SECRET = 4096
_REMEMBERED = 65_536
GENERATIONS = "generations"
#: As in `cronkeeper.domain.ids`: shards from here on stand for nodes.
FIRST_NODE_SHARD = 10_000


class Warrants:
    """Verifies tasks, and remembers the newest generation that was ever seen of each job."""

    def __init__(self, top: str, rules: Rules) -> None:
        self._top = top
        self._verify = _verifier(rules)
        self._rules = rules
        self._keys = _ring(rules)
        #: Digests of envelopes whose signatures are good.
        self._good: set[str] = set()
        self._generations = Generations(os.path.join(top, GENERATIONS))

    def adopt(self, rules: Rules) -> None:
        """Go by these rules from now on."""
        if rules != self._rules:
            self._keys = _ring(rules)
            self._good.clear()
            self._rules = rules

    def learn(self, sealed: str) -> None:
        """Take note of a task that the daemon has been given: none of an older generation runs from now on.

        Raises OrderError.
        """
        self._open(sealed)

    def order(self, data: dict[str, Any]) -> Order:
        """Return what is to be done. Raises OrderError, or OSError when the task's file cannot be taken over."""
        run_id, nonce, expires = _text(data, "run_id", 128), _text(data, "nonce", 128), data.get("expires_boot_s")
        if expires is not None and not (_is_number(expires) and 0 <= expires < 1e18):
            raise OrderError("expires_boot_s is no instant")
        body = self._open(_text(data, "sealed", _MAX_TASK))
        spec = body["spec"]
        try:
            order = self._order(run_id, body, spec)
            env = {name: str(value) for name, value in spec["env"].items() if not isinstance(value, dict)}
            return order._replace(
                nonce=nonce,
                expires_boot_s=expires,
                env={**env, **_told(data.get("told"), run_id, spec)},
                secrets=_secrets(data.get("secrets"), spec["env"]),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise OrderError(f"the task cannot be read: {exc!r}") from exc

    # ---------------------------------------------------------------------------------------------------------- inside

    def _open(self, sealed: str) -> dict[str, Any]:
        """Return the body of a signed task that is the newest of its job."""
        try:
            raw = sealed.encode("ascii")
            outer = json.loads(raw)
            body_text, key_id = outer["body"], outer["key"]
            digest = sha256_hex(raw)
            if digest not in self._good:
                self._verify(self._keys, key_id, outer["sig"], body_text)
                if len(self._good) >= _REMEMBERED:
                    self._good.clear()
                self._good.add(digest)
            body = json.loads(body_text)
            job_id, generation = body["job_id"], body["generation"]
            version_known = outer["v"] == body["v"] == 1
        except RecursionError:
            raise OrderError("not a task: it is nested too deeply") from None
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise OrderError(f"not a task that was signed for this node: {exc}") from exc
        if not (version_known and _is_int(job_id) and _is_int(generation) and isinstance(body.get("spec"), dict)):
            raise OrderError("the task is of a version that this node does not know")
        newest = self._generations.newest(job_id, generation)
        if generation < newest:
            raise OrderError(f"generation {generation} of job {job_id} is over: {newest} was seen on this node")
        found: dict[str, Any] = body
        return found

    def _order(self, run_id: str, body: dict[str, Any], spec: dict[str, Any]) -> Order:
        if not is_run_id(run_id) or run_id.partition("-")[0] != str(body["job_id"]) or run_id.count("-") != 3:
            raise OrderError(f"{run_id!r} is not a run of job {body['job_id']}")
        account = spec["run_as"] or self._rules.account
        if account not in self._rules.accounts:
            raise AccountError(f"account {account!r} is not allowed on this node")
        limits, args, command = spec["limits"], tuple(map(str, spec["args"])), str(spec["executable"])
        order = Order(
            run_id,
            "",
            run_as=account,
            timeout_s=_limit(spec["timeout_s"], "timeout_s"),
            output_kb=_limit(limits["output_kb"], "output_kb") or 0,
            cpu_s=_limit(limits["cpu"], "cpu"),
            memory_mb=_limit(limits["memory_mb"], "memory_mb"),
        )
        artifact = spec["artifact"]
        if artifact is not None:
            sha256 = str(artifact["sha256"])
            path = root_artifacts.take_over(self._top, sha256, artifact["size"], self._rules.uid)
            return order._replace(executable=path, sha256=sha256, argv=args)
        if spec["type"] != "command":
            raise OrderError("the task has no file")
        if args:
            return order._replace(argv=("/bin/sh", "-c", f'{command} "$@"', "sh", *args))
        return order._replace(command=command)


class Generations:
    """The newest generation of each job, in memory and in a file that root alone can write: a line for each news."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._newest: dict[int, int] = {}
        lines, torn = 0, False
        try:
            with open(path, "rb") as file:
                for line in file:
                    lines += 1
                    job_id, _, generation = line.partition(b" ")
                    torn = not line.endswith(b"\n")
                    if job_id.isdigit() and generation.strip().isdigit():
                        self._raise(int(job_id), int(generation))
        except FileNotFoundError:
            pass
        if torn or lines > 2 * len(self._newest) + 1000:
            self._write_anew()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def newest(self, job_id: int, generation: int) -> int:
        """Return the newest generation of the job, this one included, and remember it."""
        known = self._newest.get(job_id, 0)
        if generation > known:
            self._newest[job_id] = generation
            with contextlib.suppress(OSError):  # the disk is full: it is known as long as we live
                os.write(self._fd, b"%d %d\n" % (job_id, generation))
        return max(known, generation)

    def _raise(self, job_id: int, generation: int) -> None:
        self._newest[job_id] = max(generation, self._newest.get(job_id, 0))

    def _write_anew(self) -> None:
        temporary = f"{self._path}.new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.writelines(b"%d %d\n" % pair for pair in self._newest.items())
        os.rename(temporary, self._path)


def _verifier(rules: Rules) -> Callable[..., None]:
    """Load the library that verifies: the one part of the root part that is not the interpreter's own."""
    sys.path.extend(path for path in rules.library if path not in sys.path)
    from cronkeeper.wire.envelope import verify

    return verify


def _ring(rules: Rules) -> dict[str, Ed25519PublicKey]:
    from cronkeeper.wire.envelope import ring

    return ring(bytes.fromhex(key) for key in rules.verify_keys)


def _told(told: Any, run_id: str, spec: dict[str, Any]) -> dict[str, str]:
    if not isinstance(told, dict) or sorted(told) != sorted(TOLD):
        raise OrderError("a run is told its fire time, its worker and its fence by the daemon, and nothing else")
    for text in told.values():
        if not (isinstance(text, str) and len(text) <= 128 and text.isascii() and text.isprintable()):
            raise OrderError("what a run is told is a short text")
    job_id, shard, _, attempt = run_id.split("-")
    return {
        **told,
        "CRONKEEPER_JOB_ID": job_id,
        "CRONKEEPER_RUN_ID": run_id,
        "CRONKEEPER_ATTEMPT": attempt,
        "CRONKEEPER_SHARD": "0" if int(shard) >= FIRST_NODE_SHARD else shard,
        "CRONKEEPER_SHARDS": str(spec["shards"]),
    }


def _secrets(given: Any, env: dict[str, Any]) -> dict[str, Secret]:
    """Return a value for each variable that the task wants one for. Others are not taken, whatever their name."""
    wanted = {name: use for name, use in env.items() if isinstance(use, dict)}
    if not isinstance(given, dict) or given.keys() != wanted.keys():
        raise OrderError("the daemon gives a value for each secret that the task names, and for no other variable")
    for value in given.values():
        if not isinstance(value, str) or len(value) > _MAX_SECRET:
            raise OrderError("the value of a secret is a text of at most 4096 bytes")
    return {name: Secret(given[name], use.get("as") == "file") for name, use in wanted.items()}


def _text(data: dict[str, Any], name: str, longest: int) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value or len(value) > longest:
        raise OrderError(f"{name} is missing, or not a text of at most {longest} characters")
    return value


def _limit(value: Any, name: str) -> int | None:
    if value is not None and not (_is_int(value) and 0 <= value < 1 << 40):
        raise OrderError(f"{name} is no limit")
    return None if value is None else int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
