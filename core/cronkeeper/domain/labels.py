"""Labels of workers and jobs, and the selectors that match them (Kubernetes' grammar)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?", re.ASCII)
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
MAX_REQUIREMENTS = 16

_SET = re.compile(r"(?P<key>\S+)\s+(?P<op>in|notin)\s+\((?P<values>[^()]*)\)", re.ASCII)
_EQUAL = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)", re.ASCII)


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.ABSENT:
                return f"!{self.key}"
            case Operator.IN if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case Operator.NOT_IN if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
            case _:
                return f"{self.key} {self.operator} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold. One without requirements cannot be parsed: "empty" never means "all"."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether a worker (or job) with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Read `zone=eu, disk in (ssd,nvme), !spot, gpu`. Raises ValueError that names the bad part and the mend."""
    parts = _split(text)
    if not parts:
        raise ValueError("an empty selector selects nothing; leave the field out to allow every worker")
    if len(parts) > MAX_REQUIREMENTS:
        raise ValueError(f"{len(parts)} requirements are too many; {MAX_REQUIREMENTS} are allowed")
    return Selector(tuple(_requirement(part) for part in parts))


def check_labels(labels: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a map of labels, in sentences; an empty list when nothing is."""
    faults = [f"{key!r} is not a label key" for key in labels if not KEY.fullmatch(key)]
    faults += [f"{value!r} is not a label value" for value in labels.values() if not VALUE.fullmatch(value)]
    return faults


def _split(text: str) -> list[str]:
    """Split at commas that stand outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    stripped = [part.strip() for part in parts]
    if stripped == [""]:
        return []
    if "" in stripped:
        raise ValueError("a requirement is missing next to a comma")
    return stripped


def _requirement(part: str) -> Requirement:
    if match := _SET.fullmatch(part):
        values = tuple(value.strip() for value in match["values"].split(","))
        found = Requirement(match["key"], Operator(match["op"]), values)
    elif match := _EQUAL.fullmatch(part):
        operator = Operator.NOT_IN if match["op"] == "!=" else Operator.IN
        found = Requirement(match["key"], operator, (match["value"],))
    elif part.startswith("!"):
        found = Requirement(part[1:].strip(), Operator.ABSENT)
    else:
        found = Requirement(part, Operator.EXISTS)
    if not KEY.fullmatch(found.key):
        raise ValueError(f"{part!r} is not a requirement; write key=value, key!=value, key in (a,b), key or !key")
    for value in found.values:
        if not VALUE.fullmatch(value):
            raise ValueError(f"{value!r} is not a label value")
    return found
