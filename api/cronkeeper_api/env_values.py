"""The shape of one variable of a job's environment: a text, or what it gets of a secret."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from cronkeeper.domain.secret_env import AS_ENV, AS_FILE
from cronkeeper_manager.service import rules

_HINT = f'write {{"secret": "name"}}, and "as": "{AS_FILE}" for the path of a file'


def _env_value(value: Any) -> Any:
    """Refuse whatever is no variable. By hand: a union of models would name its members in the path of each fault."""
    if isinstance(value, str):
        if len(value) > rules.MAX_TEXT_BYTES:
            raise PydanticCustomError("env", "is longer than {limit} characters", {"limit": rules.MAX_TEXT_BYTES})
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("env", "is neither a text nor a secret", {"hint": _HINT})
    if unknown := [rules.shown(key) for key in value if key not in ("secret", "as")]:
        raise PydanticCustomError("env", "{key} is not a field here", {"key": unknown[0], "hint": _HINT})
    if not isinstance(value.get("secret"), str):
        raise PydanticCustomError("env", "names no secret", {"hint": _HINT})
    if value.get("as", AS_ENV) not in (AS_ENV, AS_FILE):
        raise PydanticCustomError("env", "is given as neither {env} nor {file}", {"env": AS_ENV, "file": AS_FILE})
    return value


EnvValue = Annotated[
    str | dict[str, str],
    BeforeValidator(_env_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": rules.MAX_TEXT_BYTES},
                {
                    "type": "object",
                    "required": ["secret"],
                    "properties": {
                        "secret": {"type": "string", "description": "The name of a secret of the job's namespace."},
                        "as": {"enum": [AS_ENV, AS_FILE], "default": AS_ENV},
                    },
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
