"""Jobs in files: JSON, or YAML of the harmless kind, in which a schedule stays a text."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from cronkeeper.domain.server_fields import SERVER_FIELDS
from cronkeeper_cli.failures import EXIT_USAGE, CommandError

_TRUE_FALSE = re.compile(r"^(?:true|false)$")


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`. Raises CommandError (usage)."""
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as exc:
        raise CommandError(f"cannot read {source}: {exc.strerror}", EXIT_USAGE) from exc
    except UnicodeDecodeError as exc:
        raise CommandError(f"{source} is not UTF-8 text", EXIT_USAGE) from exc


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file. Raises CommandError (usage)."""
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}", EXIT_USAGE) from exc


def parse_jobs(text: str, source: str) -> list[dict[str, Any]]:
    """Return the jobs of a text: one job, a list of jobs, or several YAML documents of either kind.

    Raises CommandError (usage) for what cannot be read; whether a job is sound is for others to say.
    """
    jobs: list[dict[str, Any]] = []
    for document in _documents(text, source):
        for item in document if isinstance(document, list) else [document]:
            if not isinstance(item, dict) or not all(isinstance(key, str) for key in item):
                raise CommandError(f"{source}: a job is a mapping of fields, found {_kind(item)}", EXIT_USAGE)
            jobs.append(item)
    if not jobs:
        raise CommandError(f"{source} holds no job", EXIT_USAGE)
    return jobs


def parse_job(text: str, source: str) -> dict[str, Any]:
    """Return the one job of a text. Raises CommandError (usage), also when there are more."""
    jobs = parse_jobs(text, source)
    if len(jobs) > 1:
        raise CommandError(f"{source} holds {len(jobs)} jobs, one is expected here", EXIT_USAGE)
    return jobs[0]


def editable(job: dict[str, Any]) -> dict[str, Any]:
    """Return what of a job's JSON its user may change: what is set, without the fields that the API adds."""
    return {key: value for key, value in without_server_fields(job).items() if value not in (None, "", [], {})}


def without_server_fields(job: dict[str, Any]) -> dict[str, Any]:
    """Return the job as it may be sent: what the API adds is of no use to it."""
    return {key: value for key, value in job.items() if key not in SERVER_FIELDS}


def _documents(text: str, source: str) -> list[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text, object_pairs_hook=_no_doubles)]
        except ValueError as exc:
            # YAML in flow style begins alike.
            if source.endswith(".json"):
                raise CommandError(f"{source}: {exc}", EXIT_USAGE) from exc
    import yaml

    try:
        return [document for document in yaml.load_all(text, Loader=_loader()) if document is not None]
    except (yaml.YAMLError, ValueError) as exc:
        raise CommandError(f"{source}: {exc}", EXIT_USAGE) from exc


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the field {key!r} stands there twice")
        found[key] = value
    return found


def _loader() -> Any:
    """Return a loader without YAML 1.1's surprises: `on` and dates stay texts, a doubled key is an error."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the field {key_node.value!r} stands there twice", key_node.start_mark
                    )
                if isinstance(key_node.value, str):
                    seen.add(key_node.value)
            found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return found

    unwanted = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in unwanted]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _TRUE_FALSE, list("tf"))
    return Loader


def _kind(value: Any) -> str:
    names = {str: "a text", list: "a list", int: "a number", float: "a number", bool: "a boolean", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)
