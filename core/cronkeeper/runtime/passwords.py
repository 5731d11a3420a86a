"""Whether a store's password is one: not missing, not short, and not what stands in everybody's examples.

Nobody's mistake is told with the password in it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import parse_qs, unquote

#: As SQLAlchemy reads it: a password may hold any sign but @, also those that would end the host in another URL.
_URL = re.compile(
    r"[\w+]+://(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?(?P<host>\[[^/?]+\]|[^/:?]+)?(?::[^/?]*)?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)
MIN_LENGTH = 12
_MIN_DIFFERENT = 5
MAKE = "make one with: openssl rand -hex 32"
#: What passwords of examples, of quick starts and of images are made of.
_WORDS = (
    "abc admin administrator another change changeit changeme cron cronkeeper database db default demo dev digest "
    "ensemble example foo guest hello here hunter key let letmein login maria mariadb master me minio minioadmin "
    "mysql none not now open pass passphrase passwd password please private pw qwerty root s3 sa sample secret "
    "secure server some super swift sys system tbd temp test tester this to todo toor user value welcome word xxx "
    "xxxx xxxxx your zk zoo zookeeper"
)


def weakness(password: str, names: Iterable[str] = ()) -> str:
    """Return what is wrong with a password, for a sentence that goes on with `MAKE`; empty if nothing is.

    `names` are those of the account and of what it is for: they are no secrets either.
    """
    if not password:
        return "no password"
    if len(password) < MIN_LENGTH:
        return f"a password of less than {MIN_LENGTH} characters"
    if len(set(password)) < _MIN_DIFFERENT:
        return f"a password of less than {_MIN_DIFFERENT} different characters"
    if _is_made_of(password.lower(), {*_WORDS.split(), *(name.lower() for name in names if name)}):
        return "a password that is made of well-known words, digits and signs"
    return ""


def database_weakness(url: str) -> str:
    """Return what is wrong with the password of a database's URL; SQLite has none, and needs none."""
    if not url.startswith(("mysql", "mariadb")):
        return ""
    found = _URL.match(url)
    if found is None:
        return ""  # it cannot be read, which who opens it says
    user, password, host, database = (
        unquote(part or "") for part in found.group("user", "password", "host", "database")
    )
    if not password and "unix_socket" in parse_qs(found["query"] or ""):
        return ""  # the server asks the kernel who we are
    names = (user, database, *host.split("."))
    return weakness(password, names)


def zookeeper_weakness(auth: str, hosts: str) -> str:
    """Return what is wrong with ZooKeeper's `user:password`.

    Without one the tree is anybody's who reaches the servers. That is left to whoever tries things out on one machine.
    """
    if not auth:
        return "" if all(map(_is_loopback, hosts.partition("/")[0].split(","))) else "no password"
    user, _, password = auth.partition(":")
    return weakness(password, (user,))


def holds_password(key: str, value: str) -> bool:
    """Say whether a secret setting holds a secret: a URL may have no password."""
    return bool(value) and (key != "database_url" or "@" in value)


def _is_loopback(server: str) -> bool:
    host = server.strip()
    if host.startswith("[") or host.count(":") == 1:
        host = host.rpartition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_made_of(text: str, words: Iterable[str]) -> bool:
    """Say whether the text is nothing but such words, and digits and signs between them."""
    reached = [True] + [False] * len(text)
    for start, char in enumerate(text):
        if reached[start]:
            reached[start + 1] = reached[start + 1] or not char.isalpha()
            for word in words:
                if text.startswith(word, start):
                    reached[start + len(word)] = True
    return reached[-1]
