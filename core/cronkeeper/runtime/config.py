"""Configuration: a TOML file, then the environment, then flags; parsed once, every error reported at once.

A setting `session_timeout_s` is the TOML key `session_timeout_s` and the environment variable
`CRONKEEPER_SESSION_TIMEOUT_S`. One file serves all services: each takes the keys that it knows.
"""

from __future__ import annotations

import dataclasses
import stat
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform
from urllib.parse import urlencode

from cronkeeper.errors import ConfigError

if TYPE_CHECKING:
    from cronkeeper.runtime.tls import Tls

PREFIX = "CRONKEEPER_"
C = TypeVar("C", bound="Config")


def setting(default: Any, help: str, *, secret: bool = False) -> Any:
    """Declare a setting. A secret one never appears in a `repr`."""
    metadata = {"help": help, "secret": secret}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(setting,))
@dataclass(frozen=True, kw_only=True)
class Config:
    """The root of all configurations. Subclasses declare settings; `check` returns what does not add up."""

    log_format: str = setting("text", "text for people, json for machines")
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")

    _known: ClassVar[set[str]] = set()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Config._known |= {name for name in cls.__annotations__ if not name.startswith("_")}

    def check(self) -> list[str]:
        """Return sentences that name the keys which do not add up. Subclasses extend the list."""
        faults = []
        if self.log_format not in ("text", "json"):
            faults.append(f"log_format: {self.log_format!r} is neither text nor json")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            faults.append(f"log_level: {self.log_level!r} is not DEBUG, INFO, WARNING or ERROR")
        return faults

    def weak_passwords(self) -> list[str]:
        """Return sentences that name the keys whose passwords are none. Subclasses extend the list."""
        return []


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig(Config):
    """Where the database is: what whoever opens it needs, and all that `cronkeeper db` needs."""

    database_url: str = setting("", "mysql+pymysql://user:password@host/db or sqlite:////path", secret=True)
    database_tls_ca: str = setting(
        "", "file of the CA that signs MySQL's certificate: TLS only, and the host of database_url is verified"
    )
    database_tls_cert: str = setting("", "file of our own certificate for MySQL, if it asks for one")
    database_tls_key: str = setting("", "file of that certificate's key")

    def check(self) -> list[str]:
        faults = super().check()
        tls = _tls("database_tls", self.database_tls_ca, self.database_tls_cert, self.database_tls_key)
        faults += tls.faults()
        if not self.database_url:
            faults.append(f"database_url: not set (environment {PREFIX}DATABASE_URL)")
        elif tls and not self.database_url.startswith(("mysql", "mariadb")):
            faults.append("database_tls_ca: only MySQL is spoken to over TLS; take it out")
        elif tls and "ssl_" in self.database_url.partition("?")[2]:
            faults.append("database_tls_ca: database_url names certificates, too; take them out there")
        return faults

    def weak_passwords(self) -> list[str]:
        from cronkeeper.runtime import passwords

        return [*super().weak_passwords(), *_weak("database_url", passwords.database_weakness(self.database_url))]

    @property
    def database(self) -> str:
        """The database's URL with its certificates, as `cronkeeper.store` takes it: so nobody can leave them out."""
        files = {"ca": self.database_tls_ca, "cert": self.database_tls_cert, "key": self.database_tls_key}
        query = urlencode({f"ssl_{name}": path for name, path in files.items() if path})
        return self.database_url + (f"{'&' if '?' in self.database_url else '?'}{query}" if query else "")


@dataclass(frozen=True, kw_only=True)
class StoreConfig(DatabaseConfig):
    """Where the stores are: what API, manager and worker share."""

    zookeeper: str = setting("", "host:port,host:port/chroot")
    zookeeper_auth: str = setting("", "user:password of the digest that owns our znodes", secret=True)
    zookeeper_tls_ca: str = setting(
        "", "file of the CA that signs ZooKeeper's certificates: TLS only, and the hosts of zookeeper are verified"
    )
    zookeeper_tls_cert: str = setting("", "file of our own certificate for ZooKeeper, if it asks for one")
    zookeeper_tls_key: str = setting("", "file of that certificate's key")
    session_timeout_s: float = setting(6.0, "ZooKeeper session timeout, seconds")
    blob_url: str = setting("", "s3://bucket[/prefix] or file:///path")
    s3_endpoint: str = setting("", "http(s) URL of an S3 server that is not Amazon's")
    s3_tls_ca: str = setting("", "file of the CA that signs the S3 server's certificate, if it is not a public one")
    s3_access_key: str = setting("", "access key of the object store")
    s3_secret_key: str = setting("", "secret key of the object store", secret=True)

    def check(self) -> list[str]:
        faults = super().check()
        for key in ("zookeeper", "blob_url"):
            if not getattr(self, key):
                faults.append(f"{key}: not set (environment {PREFIX}{key.upper()})")
        if self.zookeeper and "/" not in self.zookeeper:
            faults.append("zookeeper: add a chroot to the host list, such as 10.0.0.1:2181,10.0.0.2:2181/cronkeeper")
        if not 1.0 <= self.session_timeout_s <= 120:
            faults.append("session_timeout_s: use 1 to 120 seconds")
        faults += self.zookeeper_tls.faults()
        faults += _tls("s3_tls", self.s3_tls_ca).faults()
        if self.s3_tls_ca and not self.s3_endpoint.startswith("https://"):
            faults.append("s3_endpoint: with s3_tls_ca it must be an https:// URL")
        return faults

    def weak_passwords(self) -> list[str]:
        from cronkeeper.runtime import passwords

        faults = super().weak_passwords()
        faults += _weak("zookeeper_auth", passwords.zookeeper_weakness(self.zookeeper_auth, self.zookeeper))
        if self.s3_secret_key:
            faults += _weak("s3_secret_key", passwords.weakness(self.s3_secret_key, (self.s3_access_key,)))
        return faults

    @property
    def zookeeper_tls(self) -> Tls:
        """The certificates for ZooKeeper; false without any."""
        return _tls("zookeeper_tls", self.zookeeper_tls_ca, self.zookeeper_tls_cert, self.zookeeper_tls_key)


def _weak(setting_name: str, weakness: str) -> list[str]:
    from cronkeeper.runtime.passwords import MAKE

    return [f"{setting_name}: {weakness}; {MAKE}"] if weakness else []


def _tls(setting_name: str, ca: str, cert: str = "", key: str = "") -> Tls:
    # Imported when it is needed: the command line reads settings, too, and mostly has no use for TLS.
    from cronkeeper.runtime.tls import Tls

    return Tls(setting_name, ca, cert, key)


@dataclass(frozen=True, kw_only=True)
class SecretsConfig(Config):
    """The keys of jobs' secrets: what API and worker share, and nobody else has."""

    secrets_key_files: tuple[str, ...] = setting(
        (),
        "files with a 32-byte key in hex each, mode 0600: jobs' secrets are sealed with the first and opened with any;"
        " unset: there are none",
    )

    def check(self) -> list[str]:
        # Imported when it is needed: the command line reads settings, too, and has no use for ciphers.
        from cronkeeper.runtime.key_files import read_key

        faults = super().check()
        for path in self.secrets_key_files:
            try:
                read_key(Path(path))
            except ConfigError as exc:
                faults.append(f"secrets_key_files: {exc}")
        return faults


def is_public_key(text: str) -> bool:
    """Say whether it is a public key, in hex."""
    try:
        return len(bytes.fromhex(text)) == 32 and len(text) == 64
    except ValueError:
        return False


def load(
    cls: type[C], *, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any], judge: bool = True
) -> C:
    """Return the configuration: file < environment < flags (a flag of None is not given).

    Without `judge` passwords are taken as they are: those that a service has started with. Raises ConfigError that
    names every bad key.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    faults: list[str] = []
    raw: dict[str, Any] = {}
    if file is not None:
        found = _read_file(file)
        faults += [f"{key}: no such setting (in {file})" for key in found if key not in Config._known | set(fields)]
        raw |= {key: value for key, value in found.items() if key in fields}
        faults += _open_to_others(file, [key for key in raw if fields[key].metadata.get("secret")], raw)
    raw |= {key: environ[PREFIX + key.upper()] for key in fields if PREFIX + key.upper() in environ}
    raw |= {key: value for key, value in flags.items() if value is not None}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            values[key] = _convert(value, hints[key])
        except ValueError as exc:
            faults.append(f"{key}: {exc}")
    config = cls(**values)
    judged = config.check() + (config.weak_passwords() if judge else [])
    faults += [fault for fault in judged if fault.split(":")[0] not in {f.split(":")[0] for f in faults}]
    if faults:
        raise ConfigError("the configuration does not add up:\n  " + "\n  ".join(faults))
    return config


def _open_to_others(file: Path, secret: list[str], raw: Mapping[str, Any]) -> list[str]:
    """Return a sentence for a file that holds passwords and can be read by more than its owner."""
    from cronkeeper.runtime.passwords import holds_password

    keys = sorted(key for key in secret if holds_password(key, str(raw[key])))
    if not keys or not file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return []
    return [f"{file}: holds {', '.join(keys)} and can be read by others; chmod 600 it, and change them"]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as exc:
        raise ConfigError(f"cannot read the configuration file {file}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def _convert(value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    origin = typing.get_origin(hint) or hint
    if origin is bool:
        return _boolean(value)
    if origin in (int, float):
        return _number(value, origin)
    if origin is Path:
        return Path(str(value))
    if origin is tuple:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else tuple(value)
        )
    if origin is dict:
        return _mapping(value)
    return str(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _number(value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a number") from None


def _mapping(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    pairs = [part.partition("=") for part in str(value).split(",") if part.strip()]
    if any(not separator for _, separator, _ in pairs):
        raise ValueError(f"{value!r} is not a list of key=value")
    return {key.strip(): item.strip() for key, _, item in pairs}
