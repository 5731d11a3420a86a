"""Settings of an issuer: nothing is granted that is not written down, and what does not add up is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cronkeeper.domain.scope import EVERYWHERE, scope_of
from cronkeeper.ports import Role
from cronkeeper_api.oidc.claims import granted
from cronkeeper_api.oidc.config import Grant, OidcConfig, grants_of

GOOD: dict[str, Any] = {
    "oidc_issuer": "https://login.example.net/realms/x",
    "oidc_audience": "cronkeeper",
    "oidc_keys": "https://login.example.net/realms/x/certs",
    "oidc_grants": {"ops": "operator team-a team-b"},
}


def faults(**changes: Any) -> list[str]:
    return OidcConfig(**{**GOOD, **changes}).check()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"oidc_keys": "http://127.0.0.1:8080/keys"},
        {"oidc_keys": "http://[::1]/keys", "oidc_issuer": "http://localhost:8080"},
        {"oidc_algorithms": ("ES256",), "oidc_leeway_s": 0, "oidc_claim": ("a", "b")},
        {"oidc_grants": {"cn=ops,dc=x": "viewer *", "boss": "admin *"}},
    ],
    ids=str,
)
def test_settings_that_add_up(changes: dict[str, Any]) -> None:
    assert faults(**changes) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"oidc_audience": ""}, "oidc_audience"),
        ({"oidc_keys": ""}, "oidc_keys"),
        ({"oidc_grants": {}}, "oidc_grants"),
        ({"oidc_issuer": ""}, "oidc_audience"),
        ({"oidc_issuer": "login.example.net"}, "oidc_issuer"),
        ({"oidc_issuer": "http://login.example.net"}, "oidc_issuer"),
        ({"oidc_issuer": "https://" + "x" * 120}, "oidc_issuer"),
        ({"oidc_issuer": "https://a b"}, "oidc_issuer"),
        ({"oidc_keys": "http://login.example.net/keys"}, "oidc_keys"),
        ({"oidc_keys": "http://127.0.0.1.evil.example/keys"}, "oidc_keys"),
        ({"oidc_keys": "https://user:password@login.example.net/keys"}, "oidc_keys"),
        ({"oidc_keys": "https://login.example.net/keys#x"}, "oidc_keys"),
        ({"oidc_keys": "https://login.example.net:0/keys"}, "oidc_keys"),
        ({"oidc_keys": "https://login.example.net:x/keys"}, "oidc_keys"),
        ({"oidc_keys": "https:///keys"}, "oidc_keys"),
        ({"oidc_keys": "file:///etc/passwd"}, "oidc_keys"),
        ({"oidc_keys": "ftp://login.example.net/keys"}, "oidc_keys"),
        ({"oidc_keys": "jwks.json"}, "oidc_keys"),
        ({"oidc_keys": "/no/such/file"}, "oidc_keys"),
        ({"oidc_keys": "/dev/null"}, "oidc_keys"),
        ({"oidc_ca_file": Path("/no/such/file")}, "oidc_ca_file"),
        ({"oidc_algorithms": ("none",)}, "oidc_algorithms"),
        ({"oidc_algorithms": ("HS256", "RS256")}, "oidc_algorithms"),
        ({"oidc_algorithms": ()}, "oidc_algorithms"),
        ({"oidc_claim": ()}, "oidc_claim"),
        ({"oidc_leeway_s": 301.0}, "oidc_leeway_s"),
        ({"oidc_leeway_s": -1.0}, "oidc_leeway_s"),
        ({"oidc_max_lifetime_s": 0.0}, "oidc_max_lifetime_s"),
        ({"oidc_max_lifetime_s": float("nan")}, "oidc_max_lifetime_s"),
        ({"oidc_keys_kept_s": 1e9}, "oidc_keys_kept_s"),
        *(
            ({"oidc_grants": {"ops": text}}, "oidc_grants")
            for text in (
                "",
                " ",
                "root *",
                "operator",
                "Operator *",
                "operator * team-a",
                "operator Team",
                "admin,*",
                "*",
            )
        ),
        ({"oidc_grants": {"": "operator *"}}, "oidc_grants"),
    ],
    ids=str,
)
def test_what_does_not_add_up_is_named(changes: dict[str, Any], named: str) -> None:
    assert [fault for fault in faults(**changes) if fault.startswith(f"{named}: ")] != []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_key_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "jwks.json"
    file.write_text("{}")
    file.chmod(mode)
    assert "chmod go-w" in faults(oidc_keys=str(file))[0]
    file.chmod(0o644)
    assert faults(oidc_keys=str(file)) == []


GRANTS = {
    "a": Grant(Role.OPERATOR, scope_of(["team-a"])),
    "b": Grant(Role.OPERATOR, scope_of(["team-b"])),
    "see": Grant(Role.VIEWER, EVERYWHERE),
    "boss": Grant(Role.ADMIN, scope_of(["team-c"])),
    "all": Grant(Role.OPERATOR, EVERYWHERE),
}


@pytest.mark.parametrize(
    ("values", "role", "namespaces"),
    [
        ([], None, []),
        (["x", "A", ""], None, []),
        (["a"], Role.OPERATOR, ["team-a"]),
        (["a", "b", "a"], Role.OPERATOR, ["team-a", "team-b"]),
        (["see", "a"], Role.OPERATOR, ["team-a"]),
        (["see", "a", "boss"], Role.ADMIN, ["team-c"]),
        (["a", "all"], Role.OPERATOR, ["*"]),
    ],
    ids=str,
)
def test_grants_are_never_mixed_into_more_than_was_written(
    values: list[str], role: Role | None, namespaces: list[str]
) -> None:
    found, scope = granted(values, GRANTS)
    assert (found, scope.listed()) == (role, namespaces)


def test_grants_are_read_as_they_are_written() -> None:
    assert grants_of({"ops": "operator  team-a team-b", "boss": "admin *"}) == {
        "ops": Grant(Role.OPERATOR, scope_of(["team-a", "team-b"])),
        "boss": Grant(Role.ADMIN, EVERYWHERE),
    }
