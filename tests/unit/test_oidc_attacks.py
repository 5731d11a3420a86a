"""Tokens of an issuer, good ones and forged ones, through the whole application: in doubt nobody gets in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from werkzeug.test import TestResponse

from tests.harness.api import World
from tests.harness.issuer import AUDIENCE, ISSUER, Issuer, b64, hs256, part, rsa_key, signature

GRANTS = {"ops": "operator team-a", "boss": "admin *", "all-see": "viewer *", "b": "operator team-b"}
CANARY = "canary-in-a-claim"


class Town:
    """An API server that believes one issuer, whose keys lie in a file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.file = folder / "jwks.json"
        self.file.touch(0o644)
        given = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_keys": str(self.file), "oidc_grants": GRANTS}
        self.world = World(**{**given, **settings})
        assert [fault for fault in self.world.config.check() if "oidc" in fault] == []
        self.issuer = Issuer(lambda: self.world.clock.now_ms() / 1000)
        self.publish()

    def publish(self, keys: Any = None) -> None:
        self.file.write_text(json.dumps(self.issuer.jwks() if keys is None else keys))

    def get(self, token: str, path: str = "/jobs") -> TestResponse:
        return self.world.call("GET", path, role=None, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    found = Town(tmp_path_factory.mktemp("issuer"))
    yield found
    found.world.close()


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
def test_a_good_token_opens_what_was_granted(kid: str, town: Town) -> None:
    assert town.get(town.issuer.token(kid)).status_code == 200


Forge = Callable[[Town], str]


def _now(town: Town) -> int:
    return int(town.issuer.now_s())


def _public_key_as_secret(kid: str, **header: Any) -> Forge:
    def forge(town: Town) -> str:
        head = {"alg": "HS256", "typ": "JWT", "kid": kid} | header
        return hs256(town.issuer.public_pem(kid), head, town.issuer.claims())

    return forge


def _other_key(town: Town) -> str:
    """By a key of the attacker's, which its header offers in every way there is."""
    stranger = Issuer(town.issuer.now_s, keys={"ed": ed25519.Ed25519PrivateKey.generate()})
    offered = {"jwk": stranger.jwks()["keys"][0], "jku": "https://evil.example/keys", "x5u": "https://evil.example/x"}
    return stranger.token("ed", header={**offered, "x5c": ["AAAA"]})


def _resigned(town: Town) -> str:
    """Claims of one token with the signature of another."""
    mine, other = town.issuer.token(groups=["boss"]).split("."), town.issuer.token().split(".")
    return ".".join([mine[0], mine[1], other[2]])


def _two_signatures(town: Town) -> str:
    return town.issuer.token() + "." + town.issuer.token().split(".")[2]


def _json_form(town: Town) -> str:
    head, body, sign = town.issuer.token().split(".")
    return json.dumps({"payload": body, "signatures": [{"protected": head, "signature": sign}] * 2})


def _der_signature(town: Town) -> str:
    key = town.issuer.keys["ec"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    from cryptography.hazmat.primitives import hashes

    text = f"{part({'alg': 'ES256', 'kid': 'ec'})}.{part(town.issuer.claims())}"
    return f"{text}.{b64(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))}"


def _zero_signature(town: Town) -> str:
    """ECDSA with r = s = 0, which some libraries once took for everything."""
    return f"{part({'alg': 'ES256', 'kid': 'ec'})}.{part(town.issuer.claims())}.{b64(bytes(64))}"


def _doubled(name: str, evil: str) -> Forge:
    """Claims in which a name stands twice."""

    def forge(town: Town) -> str:
        claims = json.dumps(town.issuer.claims())
        return town.issuer.sign("ed", {"alg": "EdDSA", "kid": "ed"}, f'{{"{name}": {evil}, {claims[1:]}')

    return forge


def _raw_claims(text: str) -> Forge:
    return lambda town: town.issuer.sign("ed", {"alg": "EdDSA", "kid": "ed"}, text)


def _header(**header: Any) -> Forge:
    return lambda town: town.issuer.sign(
        "ed",
        {k: v for k, v in ({"alg": "EdDSA", "typ": "JWT", "kid": "ed"} | header).items() if v is not ...},
        town.issuer.claims(),
    )


def _claims(**changes: Any) -> Forge:
    return lambda town: town.issuer.token(**changes)


def _unsigned(algorithm: str) -> Forge:
    return lambda town: f"{part({'alg': algorithm, 'kid': 'ed'})}.{part(town.issuer.claims())}."


_NO_ENDS: list[Any] = [None, ..., "99999999999", True, [], 1e300, -1]
FORGERIES: dict[str, Forge] = {
    **{f"alg {name}, no signature": _unsigned(name) for name in ("none", "None", "NONE", "nOnE", "")},
    **{f"alg {name!r} in the header": _header(alg=name) for name in ("none", "eddsa", "EDDSA", "RS512", "PS256")},
    **{f"alg of the type {type(alg).__name__}": _header(alg=alg) for alg in (["EdDSA"], {"a": 1}, 1, True, None)},
    "alg missing": _header(alg=...),
    "HS256 with the RSA public key": _public_key_as_secret("rsa"),
    "HS256 with the EC public key": _public_key_as_secret("ec"),
    "HS256 with the Ed25519 public key": _public_key_as_secret("ed"),
    "HS256 with the public key, said to be RS256": _public_key_as_secret("rsa", alg="RS256"),
    "HS256 with an empty secret": lambda town: hs256(b"", {"alg": "HS256", "kid": "ed"}, town.issuer.claims()),
    "an EC key named for an RSA algorithm": _header(alg="RS256", kid="ec"),
    "an RSA key named for EdDSA": _header(kid="rsa"),
    "a key of the attacker's, offered in the header": _other_key,
    "the signature of another token": _resigned,
    "two signatures": _two_signatures,
    "two signatures, as JSON": _json_form,
    "an ECDSA signature in DER": _der_signature,
    "an ECDSA signature of zeros": _zero_signature,
    "no signature": lambda town: town.issuer.token().rpartition(".")[0] + ".",
    "two parts": lambda town: town.issuer.token().rpartition(".")[0],
    "a signature cut short": lambda town: town.issuer.token()[:-4],
    "a signature with something behind it": lambda town: town.issuer.token() + "AAAA",
    "padding": lambda town: town.issuer.token() + "=",
    **{
        f"kid {kid!r}": _header(kid=kid)
        for kid in (
            "../../etc/passwd",
            "/dev/null",
            "https://evil.example/keys",
            "ed' OR '1'='1",
            "ED",
            "ed ",
            "",
            "x" * 300,
            "no-such",
            "ed\0",
            7,
            ["ed"],
            None,
            ...,
        )
    },
    "critical extension": _header(crit=["exp"]),
    "payload not encoded": _header(b64=False, crit=["b64"]),
    "another type": _header(typ="logout+jwt"),
    "type that is no text": _header(typ=1),
    "header that is no object": lambda town: town.issuer.sign("ed", "[]", town.issuer.claims()),
    "header with alg twice": lambda town: town.issuer.sign(
        "ed", '{"alg":"none","alg":"EdDSA","kid":"ed"}', town.issuer.claims()
    ),
    "claims that are no object": _raw_claims("[1]"),
    "claims that are no JSON": _raw_claims("{"),
    "claims with NaN": _raw_claims('{"exp": NaN}'),
    "claims as deep as a well": _raw_claims("[" * 2000),
    "claims in another encoding": lambda town: ".".join(
        [
            head := part({"alg": "EdDSA", "kid": "ed"}),
            body := b64(json.dumps(town.issuer.claims()).encode("utf-16")),
            b64(signature(town.issuer.keys["ed"], f"{head}.{body}".encode())),
        ]
    ),
    "groups twice": _doubled("groups", '["boss"]'),
    "exp twice": _doubled("exp", "99999999999"),
    **{
        f"iss {iss!r}": _claims(iss=iss)
        for iss in (ISSUER + "/", ISSUER.upper(), "https://evil.example", "", None, ..., [ISSUER], {"iss": ISSUER})
    },
    **{
        f"aud {aud!r}": _claims(aud=aud)
        for aud in (
            "other",
            "Cronkeeper",
            "cronkeeper ",
            "",
            None,
            ...,
            [],
            ["other"],
            [["cronkeeper"]],
            {"cronkeeper": 1},
        )
    },
    **{f"sub {sub!r}": _claims(sub=sub) for sub in ("", None, ..., 7, ["anna"], "a b", "a\nb", "ä", "x" * 200)},
    "expired": lambda town: town.issuer.token(iat=_now(town) - 700, exp=_now(town) - 31),
    "expired long ago": lambda town: town.issuer.token(iat=1, exp=2),
    **{f"exp {exp!r}": _claims(exp=exp) for exp in _NO_ENDS},
    **{f"iat {iat!r}": _claims(iat=iat) for iat in (None, ..., "1", True)},
    "issued in the future": lambda town: town.issuer.token(iat=_now(town) + 60),
    "not good yet": lambda town: town.issuer.token(nbf=_now(town) + 60),
    "nbf that is no number": _claims(nbf="0"),
    "a life that is too long": lambda town: town.issuer.token(exp=_now(town) + 7201),
    "an end before its beginning": lambda town: town.issuer.token(iat=_now(town) + 25, exp=_now(town) + 20),
    "huge": lambda town: town.issuer.token(padding="x" * 8000),
    "a megabyte": lambda town: town.issuer.token(padding="x" * 1_000_000),
    "names in capitals": lambda town: town.issuer.token(sub=..., SUB="anna"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_is_refused_and_nothing_is_told(name: str, town: Town, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = town.get(FORGERIES[name](town))
    body = answer.get_json()
    assert (answer.status_code, body["type"]) == (401, "/problems/unauthorized"), body
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="cronkeeper"'
    assert body["detail"] in ("the token is unknown, expired or revoked", "send one header: Authorization: Bearer ck_…")
    told = [record.__dict__.get("why", "") for record in caplog.records]
    assert not any("anna" in text or "evil" in text or "passwd" in text for text in told)


@pytest.mark.parametrize(
    "groups",
    [["Ops"], ["OPS"], ["ops "], ["admin"], [], None, ..., "", {"ops": True}, [["ops"]], [7], ["o", "p", "s"], ["*"]],
    ids=repr,
)
def test_who_was_granted_nothing_is_forbidden(groups: Any, town: Town) -> None:
    answer = town.get(town.issuer.token(groups=groups, sub=CANARY))
    assert (answer.status_code, answer.get_json()["type"]) == (403, "/problems/forbidden")
    assert CANARY not in answer.get_data(as_text=True)


def test_a_role_or_a_namespace_that_the_token_names_itself_means_nothing(town: Town) -> None:
    claims: dict[str, Any] = {
        "role": "admin",
        "roles": ["admin"],
        "scope": "admin",
        "namespaces": ["*"],
        "namespace": "team-b",
    }
    assert town.get(town.issuer.token(**claims), "/tokens").status_code == 403
    made = town.world.post_job(namespace="team-b")
    assert town.get(town.issuer.token(**claims), f"/jobs/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    "header",
    ["{token}", "bearer\t{token}", "Bearer  {token}", "Bearer {token} ", "BEARER {token}", "JWT {token}"],
)
def test_a_good_token_in_a_bad_header_is_none(header: str, town: Town) -> None:
    sent = {"Authorization": header.format(token=town.issuer.token())}
    assert town.world.call("GET", "/jobs", role=None, headers=sent).status_code == 401


def test_two_headers_are_none(town: Town) -> None:
    headers = [("Authorization", f"Bearer {town.issuer.token()}")] * 2
    assert town.world.client.get("/jobs", headers=headers).status_code == 401


def test_without_an_issuer_no_such_token_is_taken(town: Town) -> None:
    world = World()
    answer = world.call("GET", "/jobs", role=None, headers={"Authorization": f"Bearer {town.issuer.token()}"})
    assert answer.status_code == 401
    world.close()


def test_a_token_ends_when_it_ends(tmp_path: Path) -> None:
    town = Town(tmp_path)
    token = town.issuer.token()
    assert town.get(token).status_code == 200
    town.world.clock.advance_ms(629_000)
    assert town.get(token).status_code == 200
    town.world.clock.advance_ms(2_000)
    assert town.get(token).status_code == 401
    town.world.close()


def test_only_the_algorithms_of_the_setting_are_taken(tmp_path: Path) -> None:
    town = Town(tmp_path, oidc_algorithms=("RS256",))
    assert town.get(town.issuer.token("rsa")).status_code == 200
    assert town.get(town.issuer.token("ed")).status_code == 401
    town.world.close()


def test_a_small_rsa_key_is_not_believed(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.issuer.keys["small"] = rsa_key(1, 1024)
    town.publish()
    assert town.get(town.issuer.token("small")).status_code == 401
    assert town.get(town.issuer.token("rsa")).status_code == 200
    town.world.close()


def test_groups_may_stand_deeper(tmp_path: Path) -> None:
    town = Town(tmp_path, oidc_claim=("realm_access", "roles"))
    good = town.issuer.token(groups=..., realm_access={"roles": ["ops"]})
    assert town.get(good).status_code == 200
    for other in ({"roles": None}, ["roles"], "ops", None):
        assert town.get(town.issuer.token(groups=["ops"], realm_access=other)).status_code == 403
    town.world.close()
