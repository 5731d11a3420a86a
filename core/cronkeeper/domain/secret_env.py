"""Secrets of jobs: a spec names them beside plain variables, and holds a sealed copy of each, never a value.

In JSON a variable is a text, or `{"secret": "pg"}`, or `{"secret": "pg", "as": "file"}`: then it holds the path of a
file with the value, which lives as long as the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: A value, in UTF-8; a private key of 4,096 bits in PEM takes 3.3 KB.
MAX_VALUE_BYTES = 4096
#: What a sealed value of that size takes of the room that a job has.
MAX_BOX_BYTES = 5800
#: How many secrets a job may name.
MAX_NAMED = 16
AS_ENV, AS_FILE = "env", "file"


@dataclass(frozen=True, slots=True)
class SecretUse:
    """What one variable gets: a secret of the job's namespace, itself or in a file."""

    secret: str
    as_file: bool = False


@dataclass(frozen=True, slots=True)
class Sealed:
    """A version of a secret that only holders of a secrets key can open (see cronkeeper.wire.sealed)."""

    version: int
    box: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretEnv:
    """The secrets of one job: which variable gets which, and the sealed copies by name.

    A name without a copy was deleted while the job used it: the job does not run until it is set again.
    """

    uses: Mapping[str, SecretUse] = field(default_factory=dict)
    sealed: Mapping[str, Sealed] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Return the names of the secrets, each once, in order."""
        return sorted({use.secret for use in self.uses.values()})

    @property
    def versions(self) -> dict[str, int]:
        """Return the version of each copy."""
        return {name: one.version for name, one in sorted(self.sealed.items())}

    def filled(self, sealed: Mapping[str, Sealed]) -> SecretEnv:
        """Return the same uses with those of the copies that they need."""
        return SecretEnv(self.uses, {name: sealed[name] for name in self.names if name in sealed})


NO_SECRETS = SecretEnv()


def env_to_dict(env: Mapping[str, str], secrets: SecretEnv) -> dict[str, Any]:
    """Return two fields of a spec's JSON shape: `env`, secrets beside texts, and `sealed`, the copies.

    The copies are for rows and signed tasks, and nobody else: see `without_boxes`.
    """
    return {
        "env": {**env, **{name: use_to_dict(use) for name, use in secrets.uses.items()}},
        "sealed": {name: {"version": one.version, "box": one.box} for name, one in secrets.sealed.items()},
    }


def plain_env(data: Mapping[str, Any]) -> dict[str, str]:
    """Return those variables of the JSON shape that are texts."""
    return {str(name): str(value) for name, value in data.items() if not isinstance(value, Mapping)}


def secrets_from_dict(env: Mapping[str, Any], sealed: Mapping[str, Any]) -> SecretEnv:
    """Read what `env_to_dict` wrote. Raises KeyError, TypeError or ValueError."""
    uses = {str(name): use_from_dict(value) for name, value in env.items() if isinstance(value, Mapping)}
    if not uses:
        return NO_SECRETS
    return SecretEnv(uses, {str(name): Sealed(int(one["version"]), str(one["box"])) for name, one in sealed.items()})


def use_from_dict(data: Mapping[str, Any]) -> SecretUse:
    """Read one variable's use of a secret. Raises KeyError or ValueError."""
    kind = data.get("as", AS_ENV)
    if kind not in (AS_ENV, AS_FILE):
        raise ValueError(f"a secret is given as {AS_ENV} or {AS_FILE}, not as {kind!r}")
    return SecretUse(str(data["secret"]), kind == AS_FILE)


def without_boxes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's JSON shape as people may see it: versions instead of sealed copies."""
    shown = {name: value for name, value in spec.items() if name != "sealed"}
    versions = {name: one["version"] for name, one in sorted(spec.get("sealed", {}).items())}
    return {**shown, "secret_versions": versions}


def use_to_dict(use: SecretUse) -> dict[str, str]:
    """Return one variable's use of a secret in its JSON shape."""
    return {"secret": use.secret, "as": AS_FILE} if use.as_file else {"secret": use.secret}
