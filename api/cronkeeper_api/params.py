"""Query parameters: declared with each route, read strictly, all faults at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from werkzeug.datastructures import MultiDict

from cronkeeper.domain.ids import RunKey
from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper.domain.labels import KEY, VALUE
from cronkeeper.errors import FieldError, ValidationFailedError
from cronkeeper_manager.service.rules import shown, text_fault

_INTEGER = re.compile(r"[0-9]{1,18}", re.ASCII)


class Type(StrEnum):
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    INSTANT = "instant"
    CHOICE = "choice"
    LABELS = "labels"
    RUN_ID = "run_id"


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter."""

    name: str
    type: Type
    description: str
    default: Any = None
    low: int = 0
    high: int = 2**63 - 1
    choices: tuple[str, ...] = ()


def parse_query(params: Sequence[Param], given: MultiDict[str, str]) -> dict[str, Any]:
    """Return a value for each parameter, its default where it is not given. Raises ValidationFailedError."""
    known = {param.name: param for param in params}
    faults = [_unknown(name, known) for name in given if name not in known]
    values: dict[str, Any] = {}
    for param in params:
        texts = given.getlist(param.name)
        try:
            if not texts:
                values[param.name] = param.default
            elif param.type is Type.LABELS:
                values[param.name] = tuple(_label(text) for text in texts)
            elif len(texts) > 1:
                raise ValueError("is given more than once")
            else:
                values[param.name] = _convert(param, texts[0])
        except ValueError as exc:
            faults.append(FieldError(param.name, str(exc), param.description))
    if faults:
        raise ValidationFailedError(faults)
    return values


def _unknown(name: str, known: Mapping[str, Param]) -> FieldError:
    close = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}" if known else "there are none here"
    return FieldError(shown(name), "is not a query parameter here", hint)


def _convert(param: Param, text: str) -> Any:
    match param.type:
        case Type.INTEGER:
            return _integer(param, text)
        case Type.BOOLEAN:
            return _boolean(text)
        case Type.INSTANT:
            # A `+` in a query string that was not escaped arrives as a space.
            return parse_rfc3339(re.sub(r" (?=\d{2}:\d{2}$)", "+", text))
        case Type.CHOICE:
            if text not in param.choices:
                raise ValueError(f"is none of {', '.join(param.choices)}")
            return text
        case Type.RUN_ID:
            return RunKey.parse(text)
        case _:
            return _text(param, text)


def _boolean(text: str) -> bool:
    if text not in ("true", "1", "", "false", "0"):
        raise ValueError("is neither true nor false")
    return text not in ("false", "0")


def _text(param: Param, text: str) -> str:
    if fault := text_fault(text):
        raise ValueError(fault)
    if len(text) > param.high:
        raise ValueError(f"is longer than {param.high} characters")
    return text


def _integer(param: Param, text: str) -> int:
    if not _INTEGER.fullmatch(text) or not param.low <= int(text) <= param.high:
        raise ValueError(f"is not a whole number from {param.low} to {param.high}")
    return int(text)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not KEY.fullmatch(key) or not VALUE.fullmatch(value):
        raise ValueError("is not a label, written key=value")
    return key, value
