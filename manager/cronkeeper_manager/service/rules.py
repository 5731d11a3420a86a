"""PURE: what the shape of a job's JSON cannot say. Every rule looks at one field (or names the fields it compares)
and returns what is wrong, so that all faults come out at once and each can be shown next to its field.

Two doors lead here: `check_fields` takes the raw JSON of a job whose shape is wrong somewhere else, `check_spec` a
whole spec. A rule that is handed a value of the wrong type says nothing: the shape was already found wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from cronkeeper.domain.cronfields import ScheduleError
from cronkeeper.domain.job import Delivery, JobSpec, JobType, OnWorkerLoss, may_fire, spec_to_dict
from cronkeeper.domain.labels import check_labels, parse_selector
from cronkeeper.domain.named_calendars import MAX_CALENDAR_BYTES
from cronkeeper.domain.schedule import load_zone, parse_schedule
from cronkeeper.domain.scope import NAMESPACE, Scope
from cronkeeper.domain.secret_env import MAX_BOX_BYTES, MAX_NAMED, env_to_dict
from cronkeeper.errors import FieldError
from cronkeeper.wire.codec import dumps
from cronkeeper_manager.service.closure_rules import check_closures

MAX_TEXT_BYTES = 4096
MAX_COMMAND_BYTES = 8192
MAX_ENV, MAX_ENV_BYTES = 64, 32_768
MAX_ARGS, MAX_ARGS_BYTES = 256, 65_536
MAX_LABELS = 64
#: A spec travels in one znode, signed and quoted, which can double it; a worker refuses more than 256 KiB.
MAX_SPEC_BYTES = 100_000

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?", re.ASCII)
#: No option of any program: whoever says `rm *` in a folder of such files removes files.
FILENAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._][A-Za-z0-9._-]{0,127}", re.ASCII)
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
RESERVED_ENV = "CRONKEEPER_"

# Control characters, the Unicode line separators that some readers take for line ends, and halves of surrogate pairs.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WITH_TAB = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WITH_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


#: Whether anything can be due of a timing, as far as it is known: see JobSpec.timing.
Fires = dict[tuple[object, ...], bool]


def check_spec(
    spec: JobSpec,
    *,
    now_ms: int,
    run_as_allowed: Iterable[str],
    before: JobSpec | None = None,
    fires: Fires | None = None,
) -> list[FieldError]:
    """Return what is wrong with a spec that replaces `before` (None for a new job).

    Who checks many specs at the same `now_ms` hands in `fires`, empty at first: what was found out of a timing is kept.
    """
    faults = check_fields(_raw(spec), run_as_allowed=run_as_allowed)
    named = {fault.field.split(".")[0] for fault in faults}
    if not named & {"starts_at", "ends_at"} and _ends_before_it_starts(spec):
        faults.append(FieldError("ends_at", "lies at or before starts_at", "the job would never fire"))
    elif more := check_closures(spec):
        faults += more
    elif not named & {"schedule", "timezone", "starts_at", "ends_at"}:
        faults += _no_fire_left(spec, now_ms, before, {} if fires is None else fires)
    if spec.at_reboot and spec.shards > 1:
        faults.append(FieldError("shards", "each node has one task of @reboot", "leave it out, or make several jobs"))
    if spec.retry.max_backoff_s < spec.retry.backoff_s:
        faults.append(
            FieldError("retry.max_backoff_s", "is less than backoff_s", f"write {spec.retry.backoff_s} or more")
        )
    if spec.delivery is Delivery.AT_MOST_ONCE and spec.on_worker_loss is OnWorkerLoss.RERUN:
        faults.append(
            FieldError(
                "on_worker_loss",
                "rerun contradicts at_most_once: a lost run may have happened",
                "write hold, or make delivery at_least_once",
            )
        )
    if not faults and _size(spec) > MAX_SPEC_BYTES:
        faults.append(
            FieldError(
                "env", f"the whole job is larger than {MAX_SPEC_BYTES} bytes", "shorten env, args or description"
            )
        )
    return faults


def check_fields(data: Mapping[str, Any], *, run_as_allowed: Iterable[str]) -> list[FieldError]:
    """Return what is wrong with the fields of a job's JSON, each on its own."""
    faults = [fault for field, rule in _RULES.items() if field in data for fault in rule(field, data[field])]
    faults += _executable(data.get("executable"), data.get("type"))
    faults += _filename(data.get("filename"), data.get("type"))
    return faults + _run_as(data.get("run_as"), tuple(run_as_allowed))


def check_scope(namespace: str, scope: Scope) -> list[FieldError]:
    """Return what is wrong with a namespace that a caller names; the same, whether it exists or not."""
    if scope.holds(namespace) or not NAMESPACE.fullmatch(namespace):
        return []
    return [FieldError("namespace", f"{namespace} is not one of this token's namespaces", f"it is for {scope}")]


def text_fault(text: str, *, tabs: bool = False, lines: bool = False) -> str:
    """Return what is wrong with the characters of a text, or an empty string."""
    pattern = _WITH_LINES if lines else _WITH_TAB if tabs else _FORBIDDEN
    match = pattern.search(text)
    if match is None:
        return ""
    return f"character U+{ord(match[0]):04X} at position {match.start() + 1} is not allowed"


# ------------------------------------------------------------------------------------------------- single fields


def _text(
    field: str, value: Any, *, limit: int = MAX_TEXT_BYTES, tabs: bool = False, lines: bool = False
) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    fault = text_fault(value, tabs=tabs, lines=lines)
    if fault:
        return [FieldError(field, fault, "control characters and lone surrogates are refused")]
    if len(value) * 4 > limit and (size := len(value.encode())) > limit:
        return [FieldError(field, f"is {size} bytes long, {limit} are allowed")]
    return []


def _lines(field: str, value: Any) -> list[FieldError]:
    return _text(field, value, tabs=True, lines=True)


def _name(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    if value.isdigit():
        return [FieldError(field, "consists of digits only, as ids do", "begin it with a letter")]
    return _match(field, value, NAME, "1 to 128 letters, digits, '_', '.' or '-', with a letter or digit at both ends")


def _namespace(field: str, value: Any) -> list[FieldError]:
    return _match(field, value, NAMESPACE, "1 to 63 lower-case letters, digits or '-'")


def _match(field: str, value: Any, pattern: re.Pattern[str], what: str) -> list[FieldError]:
    if not isinstance(value, str) or pattern.fullmatch(value):
        return []
    return [FieldError(field, text_fault(value) or f"{value[:40]!a} is not {what}", f"write {what}")]


def _schedule(field: str, value: Any) -> list[FieldError]:
    return list(_schedule_faults(field, value)) if isinstance(value, str) else []


@lru_cache(maxsize=4096)
def _schedule_faults(field: str, text: str) -> tuple[FieldError, ...]:
    try:
        parse_schedule(text)
    except ScheduleError as exc:
        return (FieldError(field, f"{exc.message} (at character {exc.position + 1})", exc.hint),)
    return ()


def _timezone(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    try:
        load_zone(value)
    except ValueError as exc:
        message, _, hint = str(exc).partition("; ")
        return [FieldError(field, message, hint or "write an IANA name such as Europe/Berlin")]
    return []


def _selector(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    if faults := _text(field, value):
        return faults
    try:
        parse_selector(value)
    except ValueError as exc:
        message, _, hint = str(exc).partition("; ")
        return [FieldError(field, message, hint or "write key=value, key in (a,b), key or !key, with commas between")]
    return []


def _labels(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, Mapping):
        return []
    if len(value) > MAX_LABELS:
        return [FieldError(field, f"{len(value)} labels are too many, {MAX_LABELS} are allowed")]
    faults = []
    for key, item in value.items():
        if isinstance(key, str) and isinstance(item, str) and (wrong := check_labels({key: item})):
            faults.append(
                FieldError(
                    f"{field}.{shown(key)}",
                    wrong[0].encode("ascii", "backslashreplace").decode(),
                    "write up to 63 letters, digits, '_', '.' or '-', with a letter or digit at both ends",
                )
            )
    return faults


def _env(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, Mapping):
        return []
    if len(value) > MAX_ENV:
        return [FieldError(field, f"{len(value)} variables are too many, {MAX_ENV} are allowed")]
    faults: list[FieldError] = []
    size, secrets = 0, set[str]()
    for key, item in value.items():
        at = f"{field}.{shown(key)}"
        if not ENV_NAME.fullmatch(key):
            faults.append(FieldError(at, "is not a variable's name", "write letters, digits and '_', no digit first"))
        elif key.startswith(RESERVED_ENV):
            faults.append(FieldError(at, f"names that begin with {RESERVED_ENV} are set by us", "choose another name"))
        if isinstance(item, str):
            faults += _text(at, item)
            size += len(key) + len(item.encode(errors="replace")) + 2
        elif isinstance(item, Mapping):
            name = item.get("secret")
            faults += _match(f"{at}.secret", name, NAME, "the name of a secret")
            if isinstance(name, str):
                secrets.add(name)
    if len(secrets) > MAX_NAMED:
        faults.append(FieldError(field, f"names {len(secrets)} secrets, {MAX_NAMED} are allowed"))
    if size > MAX_ENV_BYTES:
        faults.append(FieldError(field, f"is {size} bytes in all, {MAX_ENV_BYTES} are allowed"))
    return faults


def _args(field: str, value: Any) -> list[FieldError]:
    if not isinstance(value, list | tuple):
        return []
    if len(value) > MAX_ARGS:
        return [FieldError(field, f"{len(value)} arguments are too many, {MAX_ARGS} are allowed")]
    faults = [fault for index, item in enumerate(value) for fault in _text(f"{field}[{index}]", item)]
    size = sum(len(item.encode(errors="replace")) + 1 for item in value if isinstance(item, str))
    if size > MAX_ARGS_BYTES:
        faults.append(FieldError(field, f"is {size} bytes in all, {MAX_ARGS_BYTES} are allowed"))
    return faults


_RULES: dict[str, Callable[[str, Any], list[FieldError]]] = {
    "schedule": _schedule,
    "namespace": _namespace,
    "name": _name,
    "description": _lines,
    "owner": _text,
    "timezone": _timezone,
    "args": _args,
    "env": _env,
    "selector": _selector,
    "labels": _labels,
}


# ----------------------------------------------------------------------------------- fields that depend on another


def _executable(value: Any, kind: Any) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    if kind == JobType.COMMAND:
        if not value.strip():
            return [FieldError("executable", "is empty", "write a command line such as 'ls -la'")]
        return _text("executable", value, limit=MAX_COMMAND_BYTES, tabs=True)
    if "://" in value:
        return _text("executable", value)
    return []


def _filename(value: Any, kind: Any) -> list[FieldError]:
    if not isinstance(value, str):
        return []
    if kind == JobType.COMMAND:
        return [FieldError("filename", "a command has no file", "leave it out, or make the type script or binary")]
    return _match("filename", value, FILENAME, "1 to 128 letters, digits, '.', '_' or '-', and no '-' first")


def _run_as(value: Any, allowed: tuple[str, ...]) -> list[FieldError]:
    # `root` passes here: who may ask for it is a matter of the token's role, see namespaces.root_fault.
    if not isinstance(value, str) or value == "root":
        return []
    hint = f"allowed are {', '.join(allowed)}" if allowed else "no account is allowed; leave it out"
    if not ACCOUNT.fullmatch(value):
        return [FieldError("run_as", f"{value[:40]!a} is not an account's name", hint)]
    if value not in allowed:
        return [FieldError("run_as", f"{value!a} is not among the accounts that jobs may use", hint)]
    return []


def _ends_before_it_starts(spec: JobSpec) -> bool:
    return spec.starts_at_ms is not None and spec.ends_at_ms is not None and spec.ends_at_ms <= spec.starts_at_ms


def _no_fire_left(spec: JobSpec, now_ms: int, before: JobSpec | None, fires: Fires) -> list[FieldError]:
    """A job that can never fire is a mistake; one whose last fire has passed may still be edited."""
    timing = spec.timing
    if before is not None and before.timing == timing:
        return []
    found = fires.get(timing)
    if found is None:
        found = fires[timing] = may_fire(spec, now_ms)
    if found:
        return []
    windowed = spec.starts_at_ms is not None or spec.ends_at_ms is not None
    where = " between starts_at and ends_at" if windowed else " in the future"
    return [FieldError("schedule", f"there is no fire time{where}", "the job would never run")]


def _size(spec: JobSpec) -> int:
    named = 0 if spec.calendar is None else len(spec.calendar.named)
    if named:
        # Room for whatever they may become: a change of a calendar must not find a job too large for it.
        return len(dumps(spec_to_dict(spec.evolve(named_dates={})))) + named * MAX_CALENDAR_BYTES
    rough = len(spec.executable) + len(spec.description) + sum(map(len, spec.args))
    rough += sum(len(key) + len(value) for key, value in spec.env.items())
    # The copies come later, and may be larger with the next value.
    boxes = MAX_BOX_BYTES * len(spec.secrets.names)
    rough += boxes + 100 * (len(spec.blackouts) + (spec.calendar is not None))
    # One character takes at most twelve bytes of ASCII JSON: most specs need no exact look.
    return 0 if rough < 4000 else boxes + len(dumps(spec_to_dict(spec)))


def _raw(spec: JobSpec) -> dict[str, Any]:
    return {
        "executable": spec.executable if spec.artifact is None else None,
        "type": spec.type.value,
        "filename": spec.filename,
        "run_as": spec.run_as,
        "schedule": spec.schedule,
        "namespace": spec.namespace,
        "name": spec.name,
        "description": spec.description,
        "owner": spec.owner,
        "timezone": spec.timezone,
        "args": spec.args,
        "env": env_to_dict(spec.env, spec.secrets)["env"],
        "selector": spec.selector,
        "labels": spec.labels,
    }


def shown(key: Any) -> str:
    """Return a user's key in a form that is safe to show: ASCII, short."""
    return str(key)[:64].encode("ascii", "backslashreplace").decode()
