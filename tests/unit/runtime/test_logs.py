"""Log lines: facts under fixed names, no secret, and no way to forge a line."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from cronkeeper.runtime.logs import JsonFormatter, TextFormatter

WHO = {"service": "worker", "instance": "w1"}


def record(message: str = "a run has ended", **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "x", "levelname": "INFO", "levelno": 20, "msg": message, "created": 0.5})
    vars(made).update(extra)
    return made


def test_a_json_line_has_the_sentence_who_speaks_and_the_facts() -> None:
    line = json.loads(JsonFormatter(WHO).format(record(event="run.ended", run="17-0-0-1", lag_s=0.25)))
    assert line == {
        "timestamp": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "x",
        "message": "a run has ended",
        "service": "worker",
        "instance": "w1",
        "event": "run.ended",
        "run": "17-0-0-1",
        "lag_s": 0.25,
    }


@pytest.mark.parametrize("formatter", [JsonFormatter(WHO), TextFormatter(WHO)], ids=["json", "text"])
def test_no_secret_is_printed(formatter: logging.Formatter) -> None:
    made = record("cannot reach mysql+pymysql://me:s3cret@db/x", s3_secret_key="s3cret", url="redis://me:s3cret@h/")
    try:
        raise ValueError("zk://me:s3cret@h")
    except ValueError:
        made.exc_info = sys.exc_info()
    assert "s3cret" not in formatter.format(made)


@pytest.mark.parametrize("hostile", ["a\nINFO all is well", "a\r\x1b[2J", "\u2028b", "\x00"])
def test_a_value_cannot_forge_a_line(hostile: str) -> None:
    for formatter in (JsonFormatter(WHO), TextFormatter(WHO)):
        line = formatter.format(record(hostile, job=hostile))
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
