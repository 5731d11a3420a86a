"""From a crontab, as people have them, to jobs: line by line, with everything that changes said. PURE."""

from __future__ import annotations

import datetime
import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from cronkeeper_cli import vixie

REBOOT = "@reboot"
#: So many fires of each line are compared before and after.
PROVEN_FIRES = 1000
_NO_VALUE = re.compile(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t\r]*", re.ASCII)
#: What the comments above the fields call a command.
_LEGEND = re.compile(
    r"(user(-?name)? +)?<?(the )?(command|cmd)( (to (be )?executed?|to run|goes here))?>?", re.IGNORECASE
)
#: A sixth field, or a user where none belongs: cron takes either for the command.
_NO_COMMAND = re.compile(r"([*?]|\*/\d+)(?=[ \t])|(root|www-data|nobody)(?=[ \t]+[/\w])", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHELLS = ("/bin/sh", "sh", "/usr/bin/sh", "/bin/dash", "/usr/bin/dash")
_RESERVED = "CRONKEEPER_"
#: After these, `cd &&` before the command would not hold for all of it.
_SEVERAL = re.compile(r";|\|\||(?<![&<>])&(?![&>])")
#: What says nothing about the program: substitutions, redirections, variables before it.
_NO_WORDS = re.compile(
    r"""\$\([^()]*\)|`[^`]*`|\d*[<>]+&?\s*[^\s;|&()]+|(?<![^\s;&|(])\w+=('[^']*'|"[^"]*"|[^\s;&|]*)"""
)
_BARE = re.compile(r"\$\w+;?")
_BEFORE_PROGRAMS = frozenset(
    ["nice", "ionice", "sudo", "exec", "env", "command", "time", "nohup", "chronic", "root", "then", "do", "else", "{"]
)
_NO_PROGRAMS = frozenset(
    [
        "cd",
        "test",
        "[",
        "[[",
        "if",
        "elif",
        "fi",
        "for",
        "while",
        "done",
        "sleep",
        "export",
        ".",
        "source",
        "umask",
        "}",
    ]
)
_MAX_NAME = 100
_ON_NODES = (
    "it runs at each start of each node that fits, not of this machine alone: give it a selector that says which"
)


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
    #: For this line Debian's cron ignores the whole file.
    spoils: bool = False


@dataclass(slots=True)
class _State:
    """What the lines so far have set."""

    env: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def read_crontab(text: str, settings: Settings, *, now: datetime.datetime) -> list[Line]:
    """Return what becomes of each entry; blank lines, comments and variables are no entries.

    Neither is a line that cron can read as nothing at all, but it is told of all the same.
    """
    state = _State()
    found = []
    for number, raw in enumerate(text.split("\n"), start=1):
        stripped = raw.lstrip(" \t")
        if stripped.startswith("#"):
            if _is_disabled_entry(stripped.lstrip("# \t"), settings):
                note = "it is commented out; cron does not run it either"
                found.append(Line(number, stripped.rstrip(" \t\r"), Fate.DISABLED, (note,)))
            continue
        # To cron, a NUL ends a line too; but such a line is not blank, even if there is nothing before the NUL.
        *before, last = (part.lstrip(" \t") for part in stripped.split("\0"))
        for part in (*(one or "\0" for one in before), last):
            if not part or part.startswith("#"):
                continue
            if (assigned := vixie.variable(part)) is not None:
                state.env[assigned[0]] = assigned[1]
            else:
                found.append(_line(number, part, settings, state, now))
    return found


def file_notes(text: str, lines: Sequence[Line]) -> list[str]:
    """Return why Debian's cron ignores the whole file as it stands; nothing when it reads it."""
    said = "Debian's cron ignores the whole file as it stands, so none of its lines runs there"
    spoilt = next((line for line in lines if line.spoils), None)
    if spoilt is not None:
        return [f"{said}: see line {spoilt.number}"]
    last = text.rpartition("\n")[2].lstrip(" \t")
    return [f"{said}: it does not end with a line end"] if last and not last.startswith("#") else []


def _line(number: int, text: str, settings: Settings, state: _State, now: datetime.datetime) -> Line:
    """Return what becomes of a line that is no comment and gives no variable a value."""
    parts = _split(text, settings)
    if parts is None:
        if (named := _NO_VALUE.fullmatch(text)) is not None:
            state.env[named[1]] = ""
        return Line(number, text.rstrip(" \t"), Fate.REFUSED, (_no_entry(text, settings),), spoils=True)
    expression, user, command = parts
    if expression != REBOOT:
        try:
            vixie.read(expression)
        except vixie.VixieError as exc:
            return Line(
                number, text.rstrip(" \t"), Fate.REFUSED, (f"cron refuses it: {exc}", *_hints(text)), spoils=True
            )
    if len(command.encode(errors="surrogateescape")) > vixie.MAX_COMMAND:
        note = f"its command is longer than the {vixie.MAX_COMMAND} bytes that cron reads"
        return Line(number, text.rstrip(" \t"), Fate.REFUSED, (note,), spoils=True)
    return _entry(number, text.rstrip(" \t"), (expression, user, command), settings, state, now)


def _no_entry(text: str, settings: Settings) -> str:
    """Say why a line is no entry."""
    if (named := _NO_VALUE.fullmatch(text)) is not None:
        return f'cron refuses a variable without a value; write {named[1]}=""'
    if text.strip(" \t\r\v\f\0") == "":
        return "it is not blank to cron: it holds a carriage return or the like"
    found = _split(text, replace(settings, user_column=False))
    if found is not None and settings.user_column:
        return "it has no command; each entry of a system crontab names its user before the command"
    return " ".join(["it is neither an entry nor a variable", *(f"({hint})" for hint in _hints(text))])


def _hints(text: str) -> list[str]:
    """Say what a line that cron refuses seems to mean."""
    word = text.split()[0] if text.split() else ""
    if text.startswith("\ufeff"):
        return ["the file begins with a byte order mark; save it without"]
    if re.match(r"-[\d*@]", text):
        return ["a '-' before an entry keeps other crons from logging it; take it out"]
    if word in ("@every_minute", "@every_second") or re.fullmatch(r"@\d+", word):
        return [f"{word} is for other crons; write '* * * * *' or make a job with @every"]
    if word.startswith("@") and text.endswith("\r"):
        return ["it ends with a carriage return"]
    if word.startswith("@") and word.lower() in (*vixie.NICKNAMES, REBOOT):
        return [f"cron knows it in small letters only: {word.lower()}"]
    if word in ("export", "set", "setenv"):
        return ["a crontab is no shell script: write NAME=value"]
    return []


def _entry(
    number: int,
    line: str,
    parts: tuple[str, str, str],
    settings: Settings,
    state: _State,
    now: datetime.datetime,
) -> Line:
    expression, user, command = parts
    if not command.strip():
        return Line(number, line, Fate.REFUSED, ("it has no command: cron runs nothing for it",))
    if not _is_text(line):
        return Line(number, line, Fate.REFUSED, ("it is not UTF-8 text; convert the file first, with iconv(1)",))
    zone, hints = _zone(settings, state.env)
    schedule, changes, fault = _schedule(expression, zone, now) if expression != REBOOT else (REBOOT, (_ON_NODES,), "")
    if fault:
        return Line(number, line, Fate.REFUSED, (fault,))
    notes = list(changes)
    if command.endswith("\r"):
        command = command.rstrip("\r")
        notes.append("it ends with a carriage return, which cron gives to the command; it is left out here")
    if (odd := _NO_COMMAND.match(command)) is not None:
        hints.append(f"its command begins with {odd[0]!r}: cron has five fields, and a user in system crontabs only")
    job: dict[str, Any] = {
        "name": unique(_name(command), state.names),
        "type": "command",
        "schedule": schedule,
        "executable": _executable(command, state.env),
        "labels": {"imported-from": slug(settings.source, 63)},
    }
    if zone != "UTC" and expression != REBOOT:
        job["timezone"] = zone
    if user or settings.user:
        job["run_as"] = user or settings.user
    env = _environment(state.env, notes)
    if env:
        job["env"] = env
    return Line(number, line, Fate.CHANGED if notes else Fate.IMPORTED, (*notes, *hints), job)


def _is_text(text: str) -> bool:
    """Say whether all of it was UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _split(line: str, settings: Settings) -> tuple[str, str, str] | None:
    """Return (expression, user, command), or None where cron misses a part."""
    count = 1 if line.startswith("@") else 5
    words = re.split(r"[ \t]+", line, maxsplit=count + settings.user_column)
    if len(words) < count or not words[count - 1]:
        return None
    expression = " ".join(words[:count])
    if count == 1 and expression != REBOOT and expression not in vixie.NICKNAMES:
        return None
    if settings.user_column and (len(words) < count + 2 or not words[count]):
        return None
    user = words[count] if settings.user_column else ""
    return expression, user, "".join(words[count + settings.user_column :])


def _is_disabled_entry(text: str, settings: Settings) -> bool:
    parts = _split(text, settings)
    if parts is None or not parts[2].strip() or _LEGEND.fullmatch(f"{parts[1]} {parts[2]}".strip()):
        return False
    try:
        vixie.read(parts[0])
    except vixie.VixieError:
        return parts[0] == REBOOT
    return True


@lru_cache(maxsize=4096)
def _schedule(expression: str, zone: str, now: datetime.datetime) -> tuple[str, tuple[str, ...], str]:
    """Return (our schedule, what is different, "") or ("", (), why not).

    The next fires are compared with those that cron would make of it.
    """
    entry = vixie.read(expression)
    theirs = [round(instant.timestamp() * 1000) for instant in entry.fires(now, ZoneInfo(zone), PROVEN_FIRES)]
    if not theirs:
        return "", (), f"it never fires under cron: {expression}"
    after_ms = round(now.timestamp() * 1000)
    if _fires(expression, zone, after_ms, theirs[-1]) == theirs:
        return expression, (), ""
    ours = _fires(entry.text, zone, after_ms, theirs[-1])
    if ours is None:
        return "", (), f"what cron makes of it cannot be written down: {entry.text}"
    notes = [f"cron reads {expression!r} as {entry.text!r}, and so do we"]
    if ours != theirs:
        at = datetime.datetime.fromtimestamp(min(set(ours) ^ set(theirs)) / 1000, datetime.UTC)
        notes.append(
            f"of its next {len(theirs)} fires not all are the same under cron; the first that differs:"
            f" {at.strftime('%Y-%m-%dT%H:%MZ')}"
        )
    return entry.text, tuple(notes), ""


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
    line, stdin = vixie.split_input(command)
    if not line.rstrip().endswith("\\"):
        line = line.rstrip(" \t")
    shell = env.get("SHELL", "/bin/sh")
    if shell not in _SHELLS:
        line = f"{shlex.quote(shell)} -c {shlex.quote(line)}"
    elif stdin:
        line = f"/bin/sh -c {shlex.quote(line)}"
    if stdin:
        lines = stdin.removesuffix("\n").split("\n")
        line = f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} | {line}"
    # Under cron a command begins in its user's home; under us in a fresh folder of its own.
    return f"cd || exit; {line}" if _SEVERAL.search(line) else f"cd && {line}"


def _environment(env: dict[str, str], notes: list[str]) -> dict[str, str]:
    kept = {}
    for name, value in env.items():
        if name in ("SHELL", "MAILTO", "MAILFROM", "CRON_TZ", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING", "LOGNAME"):
            continue
        if not _VARIABLE.fullmatch(name) or name.startswith(_RESERVED):
            notes.append(f"the variable {name!r} cannot be set for a job")
        elif not _is_text(value):
            notes.append(f"the variable {name!r} is left out: it is not UTF-8 text")
        else:
            kept[name] = value
    return kept


def mail_notes(text: str) -> list[str]:
    """Return what changes for whoever got cron's mail."""
    wanted = []
    for line in text.split("\n"):
        assigned = vixie.variable(line)
        if assigned is not None and assigned[0] == "MAILTO":
            wanted.append(assigned[1])
        elif (named := _NO_VALUE.fullmatch(line)) is not None and named[1] == "MAILTO":
            wanted.append("")
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
    for part in re.split(r"&&|\|\||[;|&()]", _NO_WORDS.sub(" ", command)):
        words = [
            word for word in part.split() if word[0] not in "-!" and not word.isdigit() and not _BARE.fullmatch(word)
        ]
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
