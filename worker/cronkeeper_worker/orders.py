"""What the runner is told and what it tells: values that travel as JSON between the daemon and the runner.

The runner stays for months in a few MiB, so this module imports nothing but `typing`; hence NamedTuple where the rest
of the project has dataclasses (those would cost the runner 1.5 MiB and 10 ms).
"""

from __future__ import annotations

from typing import Any, NamedTuple

_RUN_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_SECRET_CHARACTERS = _RUN_ID_CHARACTERS - frozenset("-.")
#: What a run is told about itself that stands neither in its task nor in its id.
TOLD = ("CRONKEEPER_FIRE_TIME", "CRONKEEPER_WORKER", "CRONKEEPER_FENCE")


class OrderError(ValueError):
    """The order makes no sense, or this machine cannot carry it out. The message is for the run's owner."""


class AccountError(OrderError):
    """This machine lets nothing run as the order's account."""


class Secret(NamedTuple):
    """A value for the process alone: no note, no log and no `repr` of an order holds it."""

    value: str
    #: The variable holds the path of a file with the value, instead of the value.
    as_file: bool = False

    def __repr__(self) -> str:
        return f"Secret(***, as_file={self.as_file})"


class Order(NamedTuple):
    """One process to make: exactly one of `command` (a line for /bin/sh), `argv` (no shell) and `executable` (a file).

    The process gets a clean environment plus `env`; the caller puts the CRONKEEPER_* variables in there.
    """

    run_id: str
    #: The claim's nonce: the same run_id and nonce ordered twice is one order.
    nonce: str
    command: str = ""
    argv: tuple[str, ...] = ()
    #: Path of a file in the artifact cache, with its sha256 in hex; `argv` then holds its arguments.
    executable: str = ""
    sha256: str = ""
    env: dict[str, str] = {}  # noqa: RUF012  # never changed: the values of a NamedTuple are read-only here
    #: Further variables. Their values are masked in the output, too.
    secrets: dict[str, Secret] = {}  # noqa: RUF012
    #: An account's name; None is the account that the runner itself runs as.
    run_as: str | None = None
    #: None is a fresh folder of the run's own, gone when the run is forgotten.
    cwd: str | None = None
    timeout_s: float | None = None
    #: From SIGTERM to SIGKILL.
    kill_after_s: float = 10.0
    output_kb: int = 1024
    cpu_s: int | None = None
    memory_mb: int | None = None
    #: The instant on the boot-time clock after which the claim behind this order proves nothing any more: whoever was
    #: paused until then may have been given up, and the fire be under way elsewhere. None: no claim was to be had.
    expires_boot_s: float | None = None
    #: The signed task behind it, for a root part, which believes nothing else.
    sealed: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what `order_from` reads."""
        return self._asdict()

    def as_request(self) -> dict[str, Any]:
        """Return what a root part is asked for (see `warrants.py`): what it cannot read in the signed task."""
        return {
            "run_id": self.run_id,
            "nonce": self.nonce,
            "sealed": self.sealed,
            "told": {name: self.env[name] for name in TOLD},
            "secrets": {name: secret.value for name, secret in self.secrets.items()},
            "expires_boot_s": self.expires_boot_s,
        }


def order_from(data: dict[str, Any]) -> Order:
    """Read an order. Raises OrderError for one that must not be carried out."""
    try:
        secrets = {name: Secret(*parts) for name, parts in data.get("secrets", {}).items()}
        order = Order(**data)._replace(argv=tuple(data.get("argv", ())), secrets=secrets)
    except (TypeError, AttributeError) as exc:
        raise OrderError(f"not an order: {exc}") from exc
    check(order)
    return order


def check(order: Order) -> None:
    """Raise OrderError for an order that is unsafe to touch (its run id names a folder) or says nothing."""
    if not is_run_id(order.run_id):
        raise OrderError(f"not a run id: {order.run_id!r}")
    if bool(order.command) + bool(order.executable or order.argv) != 1:
        raise OrderError("an order needs one of command, argv and executable")
    if order.executable and not order.sha256:
        raise OrderError("an artifact is run only with its sha256")
    texts = (order.command, order.executable, order.cwd or "", *order.argv, *order.env, *order.env.values())
    if "\0" in "".join((*texts, *(secret.value for secret in order.secrets.values()))):
        raise OrderError("a NUL character has no place in a command or an environment")
    try:
        for secret in order.secrets.values():
            secret.value.encode()
    except UnicodeEncodeError:
        raise OrderError("half of a character has no place in a secret") from None
    if not all(_SECRET_CHARACTERS.issuperset(name) and name and name not in order.env for name in order.secrets):
        raise OrderError("the variable of a secret is set twice, or no file can have its name")
    if "" in order.env or "=" in "".join(order.env):
        raise OrderError("the name of an environment variable is empty or holds '='")


def is_run_id(text: str) -> bool:
    """Say whether the text can name a run's folder."""
    return 0 < len(text) <= 128 and _RUN_ID_CHARACTERS.issuperset(text) and not text.startswith(".")


class Started(NamedTuple):
    """The process exists and has been told what to run."""

    run_id: str
    pid: int
    started_ms: int


class SpawnFailed(NamedTuple):
    """Nothing of the run was executed. The message is for the run's owner."""

    run_id: str
    message: str
    failed_ms: int
    #: It was for the account: there is none, it has expired, or it is not allowed.
    account: bool = False


class Expired(NamedTuple):
    """Nothing of the run was executed: the order came later than it was good for. Ask for the claim again."""

    run_id: str


class Ended(NamedTuple):
    """The main process is over and its output complete (or given up 2 s later, when a stray child held it open).

    Exactly one of `exit_code` and `signal` is set, unless `lost` (its parent died before it: nobody can tell) or
    cancelled before it began. `tail` is the last 4 KiB of output.
    """

    run_id: str
    ended_ms: int
    exit_code: int | None
    signal: int | None
    timed_out: bool
    cancelled: bool
    output_bytes: int
    tail: str
    lost: bool = False


class RunnerLost(NamedTuple):
    """The connection to the runner is gone. Call `ensure`: a new runner tells about everything that still runs."""

    reason: str


RunEvent = Started | SpawnFailed | Expired | Ended
RunnerEvent = RunEvent | RunnerLost

_KINDS: dict[str, type[RunEvent]] = {
    "started": Started, "spawn_failed": SpawnFailed, "expired": Expired, "ended": Ended
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_to_json(event: RunEvent) -> dict[str, Any]:
    """Return the event as a JSON object; `event_from` reads it."""
    return {"event": _NAMES[type(event)], **event._asdict()}


def event_from(data: dict[str, Any]) -> RunEvent:
    """Read an event. Raises ValueError for anything else."""
    fields = dict(data)
    kind = _KINDS.get(fields.pop("event", ""))
    try:
        if kind is not None:
            return kind(**fields)
    except TypeError as exc:
        raise ValueError(f"not an event: {exc}") from exc
    raise ValueError("not an event")
