"""What can go wrong for the person at the prompt: one exception, and the exit status that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_CONFLICT = 4
EXIT_TIMED_OUT = 5

_BY_STATUS = {
    400: EXIT_USAGE,
    422: EXIT_USAGE,
    404: EXIT_NOT_FOUND,
    409: EXIT_CONFLICT,
    412: EXIT_CONFLICT,
    408: EXIT_TIMED_OUT,
    504: EXIT_TIMED_OUT,
}


class CommandError(click.ClickException):
    """Ends the command: the message goes to standard error, `exit_code` becomes the exit status."""

    def __init__(self, message: str, exit_code: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has one for the class; ours differ


class ProblemError(CommandError):
    """The API said no. `problem` is its answer, read as far as it could be read."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__("\n".join(problem_lines(status, problem)), exit_status(status))
        self.status = status
        self.problem = problem


def exit_status(http_status: int) -> int:
    """Return the exit status for an HTTP status: 0 for success, else one of the five documented ones."""
    return 0 if http_status < 400 else _BY_STATUS.get(http_status, EXIT_ERROR)


def problem_lines(status: int, problem: Mapping[str, Any]) -> list[str]:
    """Return an answer of type problem+json as lines for people: title, detail, then every bad field with its mend."""
    title = str(problem.get("title") or f"the API answered with status {status}")
    detail = str(problem.get("detail") or "")
    lines = [f"{title}: {detail}" if detail and detail != title else title]
    errors = problem.get("errors")
    for error in errors if isinstance(errors, Sequence) and not isinstance(errors, str) else ():
        if isinstance(error, Mapping):
            lines.append(f"  {error.get('field', '?')}: {error.get('message', '')}")
            if error.get("hint"):
                lines.append(f"    hint: {error['hint']}")
    if status == 401:
        lines.append("  hint: set CRONKEEPER_TOKEN, or `token` in the configuration file")
    if problem.get("instance") and status >= 500:
        lines.append(f"  request id: {problem['instance']}")
    return lines
