"""Logs: one constant sentence for people, facts in `extra` under fixed names, as text or as JSON lines.

The standard library's `logging`, with two formatters of our own: a log library costs every worker 11 MiB
(docs/decisions/0010-logs.md), and gunicorn's, kazoo's and SQLAlchemy's lines pass through here as they are.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from functools import lru_cache
from typing import Any

from cronkeeper.domain.instants import rfc3339
from cronkeeper.runtime.config import Config

_SECRET_KEY = re.compile(r"password|secret|token|authorization", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")
#: What drives a terminal or ends a line; and what turns the direction of writing, so that a line reads as another.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: What every record has; all else was given in `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

#: Made once: `json.dumps` with arguments makes one for each call.
_JSON = json.JSONEncoder(default=str)


def setup_logs(config: Config, *, service: str, instance: str = "") -> None:
    """Send all logs of this process to standard error. Calling it again replaces the set-up."""
    who = {"service": service} | ({"instance": instance} if instance else {})
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(who) if config.log_format == "json" else TextFormatter(who))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level)
    # kazoo's DEBUG lines hold the digest's password and every payload; its INFO lines come at each reconnect.
    logging.getLogger("kazoo").setLevel(logging.WARNING)
    for noisy in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given in `extra`, with secrets hidden and control characters escaped."""
    return {key: _clean(key, value) for key, value in vars(record).items() if key not in _OWN}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, message, who speaks, then the facts."""

    def __init__(self, who: dict[str, str]) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": rfc3339(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _hide(record.getMessage()),
            **self._who,
            **facts_of(record),
        }
        if record.exc_info:
            line["exception"] = _hide(self.formatException(record.exc_info))
        return _JSON.encode(line)


class TextFormatter(logging.Formatter):
    """For people: time, level, sentence, then key=value; a traceback keeps its lines."""

    def __init__(self, who: dict[str, str]) -> None:
        super().__init__()
        self._who = " ".join(who.values())

    def format(self, record: logging.LogRecord) -> str:
        sentence = _escape(_hide(record.getMessage()))
        facts = " ".join(f"{key}={value}" for key, value in facts_of(record).items())
        time = rfc3339(round(record.created * 1000))
        line = f"{time} {record.levelname:<8} [{self._who}] {sentence}" + (f"  {facts}" if facts else "")
        if record.exc_info:
            line += "\n" + _hide(self.formatException(record.exc_info))
        return line


def _clean(key: str, value: Any) -> Any:
    if _is_secret(key):
        return "***"
    return _escape(_hide(value)) if isinstance(value, str) else value


@lru_cache
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _hide(text: str) -> str:
    return _URL_PASSWORD.sub(r"\1***@", text) if "://" in text else text


def _spelt(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _escape(text: str) -> str:
    return text if text.isprintable() else _CONTROL.sub(_spelt, text)
