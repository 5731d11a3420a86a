"""What every command that talks to the API shares: the client, the options, and jobs by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cronkeeper_cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandError
from cronkeeper_cli.output import FORMATS
from cronkeeper_cli.settings import Settings, load_settings

if TYPE_CHECKING:
    from cronkeeper_cli.client import Client

DEFAULT_NAMESPACE = "default"
F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One call of the command. Nothing is read or opened before it is needed."""

    def __init__(self, environ: Mapping[str, str], url: str | None) -> None:
        self._environ = environ
        self._url = url

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self._environ, url=self._url)

    @cached_property
    def client(self) -> Client:
        from cronkeeper_cli.client import Client

        return Client(self.settings)

    def job_path(self, job: str, namespace: str) -> str:
        """Return `/jobs/<id>` for an id or a name. Raises CommandError (not found)."""
        return f"/jobs/{self.job_id(job, namespace)}"

    def job_id(self, job: str, namespace: str) -> str:
        """Return the id for an id or a name: digits are an id. Raises CommandError (not found)."""
        if job.isascii() and job.isdigit():
            return job
        if not job:
            raise CommandError("a job's id or name is empty", EXIT_USAGE)
        for found in self.client.pages("/jobs", {"q": job, "namespace": namespace}):
            if found.get("name") == job:
                return str(found["id"])
        raise CommandError(f"no job in namespace {namespace} has the name {job!r}", EXIT_NOT_FOUND)


pass_session = click.make_pass_decorator(Session)


def make_session(url: str | None) -> Session:
    """Return the session of this process's environment."""
    return Session(os.environ, url)


def output_option(command: F) -> F:
    """Add `-o table|json|yaml|name`, as `form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print it.",
    )(command)


def namespace_option(command: F) -> F:
    """Add `-n NAMESPACE`, as `namespace`: where a job's name is looked up."""
    return click.option(
        "-n",
        "--namespace",
        default=DEFAULT_NAMESPACE,
        show_default=True,
        envvar="CRONKEEPER_NAMESPACE",
        help="The namespace of the job's name.",
    )(command)


def parse_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """Return {key: value} of `key=value` texts. Raises CommandError (usage)."""
    found = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise CommandError(f"{option} {pair!r}: write KEY=VALUE", EXIT_USAGE)
        found[name] = value
    return found


def parse_duration_s(text: str) -> float:
    """Return seconds of `90`, `90s`, `10m` or `1h`. Raises ValueError."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    seconds = float(number) * unit
    if not 0 < seconds <= 7 * 86_400:
        raise ValueError("out of bounds")
    return seconds


class Duration(click.ParamType[float]):
    """An option's value such as `90s`, `10m` or `1h`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration_s(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration; write 90s, 10m or 1h", param, ctx)


class Patience:
    """How long a command still waits."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._deadline

    def rest(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        time.sleep(max(0.0, min(seconds, self._deadline - time.monotonic())))
