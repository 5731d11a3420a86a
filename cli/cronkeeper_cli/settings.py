"""Where the API is and who we are: the environment, then the configuration file."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cronkeeper_cli.failures import EXIT_USAGE, CommandError

DEFAULT_URL = "http://127.0.0.1:30000"
_KEYS = frozenset({"url", "token", "ca"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The API's base URL without a slash at the end, the bearer token (empty: none), and a private CA (empty: none)."""

    url: str
    token: str = field(default="", repr=False)
    #: A file: only what this CA has signed is believed to be the API.
    ca: str = ""


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the configuration file is looked for: cronkeeper/config.toml in $XDG_CONFIG_HOME or ~/.config."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    return Path(base) / "cronkeeper" / "config.toml"


def load_settings(environ: Mapping[str, str], *, url: str | None = None) -> Settings:
    """Return the settings: the flag, then CRONKEEPER_URL, _TOKEN and _CA, then the file, then the default.

    Raises CommandError (usage) for a file or a URL that cannot be used.
    """
    path = config_path(environ)
    found = _read(path)
    settings = Settings(
        url=check_url(url or environ.get("CRONKEEPER_URL") or found.get("url") or DEFAULT_URL),
        token=environ.get("CRONKEEPER_TOKEN") or found.get("token", ""),
        ca=environ.get("CRONKEEPER_CA") or found.get("ca", ""),
    )
    if settings.ca:
        _check_ca(settings)
    if any(char.isspace() or not char.isprintable() for char in settings.token):
        raise CommandError("the token holds white space or control characters; was it copied whole?", EXIT_USAGE)
    return settings


def check_url(url: str) -> str:
    """Return the URL without a slash at the end. Raises CommandError for what is no plain http(s) base URL."""
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad:
        raise CommandError(f"{url!r} is not a URL of the API; write {DEFAULT_URL}", EXIT_USAGE)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise CommandError("the API's URL must hold no password, query or fragment; see CRONKEEPER_TOKEN", EXIT_USAGE)
    return url.rstrip("/")


def _check_ca(settings: Settings) -> None:
    if not settings.url.startswith("https://"):
        raise CommandError(
            f"CRONKEEPER_CA is set, and {settings.url} is not https: nothing is sent in plain", EXIT_USAGE
        )
    if not Path(settings.ca).is_file():
        raise CommandError(f"CRONKEEPER_CA: there is no file {settings.ca}", EXIT_USAGE)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            found: dict[str, Any] = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}", EXIT_USAGE) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise CommandError(f"{path}: {exc}", EXIT_USAGE) from exc
    faults = [f"{key}: no such setting; known are url, token and ca" for key in found if key not in _KEYS]
    faults += [f"{key}: write a text in quotes" for key in _KEYS & found.keys() if not isinstance(found[key], str)]
    if faults:
        raise CommandError("\n  ".join([f"{path} does not add up:", *faults]), EXIT_USAGE)
    if found.get("token") and mode & 0o077:
        raise CommandError(f"{path} holds a token and others may read it; run: chmod 600 {path}", EXIT_USAGE)
    return {key: str(value) for key, value in found.items()}
