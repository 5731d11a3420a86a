"""Logs: one constant sentence for people, facts in `extra` under fixed names, as text or as JSON lines.

Code uses the standard library's `logging`; structlog only formats, so that gunicorn's and kazoo's lines look alike.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from cronkeeper.runtime.config import Config

_SECRET_KEY = re.compile(r"password|secret|token|authorization", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^:/@\s]+:)[^@\s]+@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def setup_logs(config: Config, *, service: str, instance: str = "") -> None:
    """Send all logs of this process to standard error. Calling it again replaces the set-up."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # `extra` may hold an `event`, the dotted word; the sentence must not be lost to it.
        structlog.processors.EventRenamer("message"),
        structlog.stdlib.ExtraAdder(),
        _Who(service, instance),
        _redact,
    ]
    renderer: Any = structlog.processors.JSONRenderer(default=str)
    if config.log_format == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), event_key="message")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.log_level)
    # kazoo's DEBUG lines hold the digest's password and every payload; its INFO lines come at each reconnect.
    logging.getLogger("kazoo").setLevel(logging.WARNING)
    for noisy in ("botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _Who:
    """Adds who is speaking."""

    def __init__(self, service: str, instance: str) -> None:
        self._fields = {"service": service} | ({"instance": instance} if instance else {})

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(self._fields)
        return event


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide secrets, and escape control characters, so that no job's name can forge a line."""
    for key, value in event.items():
        if _SECRET_KEY.search(key):
            event[key] = "***"
        elif isinstance(value, str) and key != "exception":
            hidden = _URL_PASSWORD.sub(r"\1***@", value)
            event[key] = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", hidden)
    return event
