"""From a crontab, as people have them, to jobs: line by line, with everything that changes said. PURE."""

from __future__ import annotations

import datetime
import hashlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from cronkeeper_cli import vixie

#: So many fires of each line are compared before and after.
PROVEN_FIRES = 1000
_ASSIGNMENT = re.compile(r"""\s*(?P<name>"[^"]*"|'[^']*'|[^\s="'#][^\s="']*)\s*=\s*(?P<value>.*?)\s*$""")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHELLS = ("/bin/sh", "sh", "/usr/bin/sh", "/bin/dash")
_RESERVED = "CRONKEEPER_"
_BEFORE_PROGRAMS = frozenset(["nice", "ionice", "sudo", "exec", "env", "command", "time", "nohup", "chronic", "root"])
_NO_PROGRAMS = frozenset(["cd", "test", "[", "[[", "if", "then", "sleep", "export", ".", "source", "umask", "{"])
_MAX_NAME = 100


class Fate(StrEnum):
    """What becomes of a line."""

    IMPORTED = "imported"
    #: Imported, but something will be different; the notes say what.
    CHANGED = "changed"
    #: Not imported; the notes say why and what to do.
    REFUSED = "refused"
    #: A commented-out entry: cron does not run it either.
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a crontab is to be read."""

    #: What it is called in labels and notes.
    source: str
    #: Whether each entry names its user, as in /etc/crontab and /etc/cron.d.
    user_column: bool = False
    #: Whose crontab it is; becomes `run_as`.
    user: str | None = None
    #: The zone of the machine that runs it.
    timezone: str = "UTC"
    #: Heed `CRON_TZ`, as cronie does; Debian's cron does not.
    heed_cron_tz: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of the crontab and the job that it becomes."""

    number: int
    text: str
    fate: Fate
    notes: tuple[str, ...] = ()
    job: dict[str, Any] | None = None


@dataclass(slots=True)
class _State:
    """What the lines so far have set."""

    env: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def read_crontab(text: str, settings: Settings, *, now: datetime.datetime) -> list[Line]:
    """Return what becomes of each entry; blank lines, comments and variables are no entries."""
    state = _State()
    found = []
    lines = text.splitlines()
    for number, raw in enumerate(lines, start=1):
        stripped = raw.strip()
        if not stripped:
            continue
        if stripped.startswith("#"):
            if _is_disabled_entry(stripped.lstrip("# \t"), settings):
                found.append(
                    Line(number, stripped, Fate.DISABLED, ("it is commented out; cron does not run it either",))
                )
            continue
        if (assignment := _ASSIGNMENT.fullmatch(raw)) is not None:
            state.env[_unquoted(assignment["name"])] = _unquoted(assignment["value"])
            continue
        found.append(_entry(number, stripped, settings, state, now))
    if text and not text.endswith("\n"):
        note = "the file does not end with a line end: Debian's cron ignores the whole file"
        found = [Line(one.number, one.text, _worse(one.fate), (*one.notes, note), one.job) for one in found]
    return found


def _worse(fate: Fate) -> Fate:
    return Fate.CHANGED if fate is Fate.IMPORTED else fate


def _entry(number: int, line: str, settings: Settings, state: _State, now: datetime.datetime) -> Line:
    parts = _split(line, settings)
    if parts is None:
        return Line(number, line, Fate.REFUSED, ("it is neither an entry nor a variable; cron ignores the whole file",))
    expression, user, command = parts
    if expression == "@reboot":
        return Line(number, line, Fate.REFUSED, ("@reboot is not supported; start it from a unit of the system",))
    if not command:
        return Line(number, line, Fate.REFUSED, ("it has no command; cron ignores the whole file",))
    notes: list[str] = []
    zone, zone_notes = _zone(settings, state.env)
    schedule, fault = _schedule(expression, zone, notes, now)
    if fault:
        return Line(number, line, Fate.REFUSED, (fault,))
    job: dict[str, Any] = {
        "name": unique(_name(command), state.names),
        "type": "command",
        "schedule": schedule,
        "executable": _executable(command, state.env),
        "labels": {"imported-from": slug(settings.source, 63)},
    }
    if zone != "UTC":
        job["timezone"] = zone
    if user or settings.user:
        job["run_as"] = user or settings.user
    env = _environment(state.env, notes)
    if env:
        job["env"] = env
    return Line(number, line, Fate.CHANGED if notes else Fate.IMPORTED, (*notes, *zone_notes), job)


def _split(line: str, settings: Settings) -> tuple[str, str, str] | None:
    """Return (expression, user, command), or None."""
    count = 1 if line.startswith("@") else 5
    words = line.split(None, count + (1 if settings.user_column else 0))
    if len(words) < count + (1 if settings.user_column else 0):
        return None
    expression = " ".join(words[:count])
    if count == 1 and expression != "@reboot" and expression not in vixie.NICKNAMES:
        return None
    user = words[count] if settings.user_column else ""
    rest = words[count + 1 :] if settings.user_column else words[count:]
    return expression, user, rest[0] if rest else ""


def _is_disabled_entry(text: str, settings: Settings) -> bool:
    parts = _split(text, settings)
    if parts is None or not parts[2]:
        return False
    try:
        vixie.read(parts[0])
    except vixie.VixieError:
        return parts[0] == "@reboot"
    return True


def _schedule(expression: str, zone: str, notes: list[str], now: datetime.datetime) -> tuple[str, str]:
    """Return (our schedule, "") or ("", why not). The next fires are compared with those that cron would make of it."""
    try:
        entry = vixie.read(expression)
    except vixie.VixieError as exc:
        return "", f"cron refuses it, and the whole file with it: {exc}"
    theirs = [round(instant.timestamp() * 1000) for instant in entry.fires(now, ZoneInfo(zone), PROVEN_FIRES)]
    if not theirs:
        return "", f"it never fires under cron: {expression}"
    after_ms = round(now.timestamp() * 1000)
    if _fires(expression, zone, after_ms, theirs[-1]) == theirs:
        return expression, ""
    ours = _fires(entry.text, zone, after_ms, theirs[-1])
    if ours is None:
        return "", f"what cron makes of it cannot be written down: {entry.text}"
    notes.append(f"cron reads {expression!r} as {entry.text!r}, and so do we")
    if ours != theirs:
        at = datetime.datetime.fromtimestamp(min(set(ours) ^ set(theirs)) / 1000, datetime.UTC)
        notes.append(
            f"of its next {len(theirs)} fires not all are the same under cron; the first that differs:"
            f" {at.strftime('%Y-%m-%dT%H:%MZ')}"
        )
    return entry.text, ""


def _fires(expression: str, zone: str, after_ms: int, until_ms: int) -> list[int] | None:
    """Return the fires that we make of it, None when we refuse it."""
    from cronkeeper.domain.cronfields import ScheduleError
    from cronkeeper.domain.schedule import parse_schedule

    try:
        return parse_schedule(expression, zone).fire_times(after_ms, until_ms, limit=PROVEN_FIRES * 2)
    except ScheduleError:
        return None


def _zone(settings: Settings, env: dict[str, str]) -> tuple[str, list[str]]:
    named = env.get("CRON_TZ")
    if not named:
        return settings.timezone, []
    if settings.heed_cron_tz:
        return named, []
    return settings.timezone, [f"CRON_TZ={named} means nothing to Debian's cron; --heed-cron-tz if yours is cronie"]


def _executable(command: str, env: dict[str, str]) -> str:
    """Return the command line for /bin/sh that does what cron does with the command."""
    line, stdin = _percent(command)
    shell = env.get("SHELL", "/bin/sh")
    if shell not in _SHELLS:
        line = f"{shlex.quote(shell)} -c {shlex.quote(line)}"
    elif stdin is not None:
        line = f"/bin/sh -c {shlex.quote(line)}"
    if stdin is not None:
        lines = stdin.removesuffix("\n").split("\n")
        line = f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} | {line}"
    # Under cron a command begins in its user's home; under us in a fresh folder of its own.
    return f"cd && {line}"


def _percent(command: str) -> tuple[str, str | None]:
    """Split at the first bare `%`: what follows is standard input, where each further one is a line end."""
    parts = re.split(r"(?<!\\)%", command)
    plain = [part.replace("\\%", "%") for part in parts]
    return plain[0], None if len(plain) == 1 else "\n".join(plain[1:])


def _environment(env: dict[str, str], notes: list[str]) -> dict[str, str]:
    kept = {}
    for name, value in env.items():
        if name in ("SHELL", "MAILTO", "MAILFROM", "CRON_TZ", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING", "LOGNAME"):
            continue
        if not _VARIABLE.fullmatch(name) or name.startswith(_RESERVED):
            notes.append(f"the variable {name!r} cannot be set for a job")
        else:
            kept[name] = value
    return kept


def mail_notes(text: str) -> list[str]:
    """Return what changes for whoever got cron's mail."""
    found = [m["value"] for line in text.splitlines() if (m := _ASSIGNMENT.fullmatch(line)) and m["name"] == "MAILTO"]
    wanted = [_unquoted(value) for value in found]
    if wanted and not any(wanted):
        return []
    whom = ", ".join(dict.fromkeys(one for one in wanted if one)) or "the owner"
    return [f"cron mails output to {whom}; here it is kept with each run: cronkeeper logs RUN"]


def _name(command: str) -> str:
    """Return a name that stays when the line moves or its schedule changes: its program, and a hash of the command."""
    digest = hashlib.sha256(command.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{slug(_program(command).rsplit('/', 1)[-1], _MAX_NAME)}-{digest}"


def _program(command: str) -> str:
    """Return the first program worth naming a job after."""
    for part in re.split(r"&&|\|\||[;|&()<>]", command):
        words = [word for word in part.split() if "=" not in word and not word.startswith(("-", "!"))]
        while words and words[0].rsplit("/", 1)[-1] in _BEFORE_PROGRAMS:
            words.pop(0)
        if words and words[0] not in _NO_PROGRAMS:
            return words[0].strip("\"'")
    return "job"


def slug(text: str, longest: int) -> str:
    """Return a text as part of a name: lower case letters, digits, `-`, `.` and `_`."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower().encode("ascii", "ignore").decode()).strip("-._")
    return plain[:longest].strip("-._") or "job"


def unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number if it is taken; it is taken from then on."""
    candidates: Iterator[str] = (name if n == 1 else f"{name}-{n}" for n in range(1, 100_000))
    found = next(one for one in candidates if one not in taken)
    taken.add(found)
    return found


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
