"""The issuer's keys: fetched seldom, changed without a gap, kept while it is away, and not for ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cronkeeper.errors import UnavailableError, WireFormatError
from cronkeeper.testing.fake_clock import FakeClock
from cronkeeper_api.oidc.config import ALGORITHMS
from cronkeeper_api.oidc.keys import MAX_KEYS, Keyring, parse_keys
from tests.harness.issuer import Issuer, jwk_of, rsa_key

HOUR_MS = 3_600_000


class Site:
    """An issuer that counts how often its keys are fetched, and that may be away."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.issuer = Issuer(lambda: 0.0)
        self.fetched = 0
        self.away = False
        self.ring = Keyring(self.fetch, ALGORITHMS, self.clock, kept_s=6 * 3600)

    def fetch(self) -> bytes:
        self.fetched += 1
        if self.away:
            raise UnavailableError("away")
        return json.dumps(self.issuer.jwks()).encode()


def test_keys_are_fetched_once_for_many_tokens() -> None:
    site = Site()
    for _ in range(100):
        assert site.ring.find("ed") is not None
    assert site.fetched == 1


def test_a_new_key_is_found_at_its_first_token() -> None:
    site = Site()
    assert site.ring.find("new") is None
    site.issuer.keys["new"] = ed25519.Ed25519PrivateKey.generate()
    site.clock.advance_ms(10_000)
    assert site.ring.find("new") is not None


def test_tokens_of_unknown_keys_cause_few_fetches() -> None:
    site = Site()
    for number in range(1000):
        assert site.ring.find(f"forged-{number}") is None
        site.clock.advance_ms(60)
    # A minute: once at the start, and then every ten seconds.
    assert site.fetched <= 7


def test_a_key_that_was_taken_back_is_forgotten_within_five_minutes() -> None:
    site = Site()
    assert site.ring.find("ed") is not None
    del site.issuer.keys["ed"]
    site.clock.advance_ms(300_000)
    assert site.ring.find("ed") is None


def test_a_key_that_was_exchanged_under_its_name_is_exchanged_here() -> None:
    site = Site()
    before = site.ring.find("ed")
    site.issuer.keys["ed"] = ed25519.Ed25519PrivateKey.generate()
    site.clock.advance_ms(300_000)
    after = site.ring.find("ed")
    assert before is not None and after is not None
    assert before.public.public_bytes_raw() != after.public.public_bytes_raw()


def test_while_the_issuer_is_away_its_keys_are_kept_and_then_nobody_is_let_in() -> None:
    site = Site()
    site.ring.find("ed")
    site.away = True
    for _ in range(6 * 12):
        site.clock.advance_ms(HOUR_MS // 12)
        assert site.ring.find("ed") is not None
    site.clock.advance_ms(1000)
    with pytest.raises(UnavailableError):
        site.ring.find("ed")
    site.away = False
    site.clock.advance_ms(10_000)
    assert site.ring.find("ed") is not None


def test_an_issuer_that_was_never_reached_lets_nobody_in_and_is_not_hammered() -> None:
    site = Site()
    site.away = True
    for _ in range(50):
        with pytest.raises(UnavailableError):
            site.ring.find("ed")
        site.clock.advance_ms(100)
    assert site.fetched == 1


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 5000, b'{"keys": [1]}', b"\xff"]
)
def test_nonsense_instead_of_keys_changes_nothing(raw: bytes) -> None:
    site = Site()
    site.ring.find("ed")
    ring = Keyring(lambda: raw, ALGORITHMS, site.clock, kept_s=3600)
    with pytest.raises(UnavailableError):
        ring.find("ed")
    with pytest.raises(WireFormatError):
        parse_keys(raw, ALGORITHMS)


def test_while_one_fetches_the_others_go_on_with_what_is_known() -> None:
    site = Site()
    site.ring.find("ed")
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> bytes:
        inside.set()
        assert go_on.wait(30)
        return json.dumps(site.issuer.jwks()).encode()

    site.ring._fetch = slow
    site.clock.advance_ms(300_000)
    thread = threading.Thread(target=site.ring.find, args=["ed"])
    thread.start()
    assert inside.wait(30)
    assert site.ring.find("ed") is not None
    assert site.ring.find("unknown") is None
    go_on.set()
    thread.join()


def _without(jwk: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in jwk.items() if key != name}


ED = jwk_of("k", ed25519.Ed25519PrivateKey.generate())
EC = jwk_of("k", ec.generate_private_key(ec.SECP256R1()))
RSA = jwk_of("k", rsa_key())


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "AAAA", "kid": "k", "alg": "HS256"},
        7,
        None,
        [],
        {},
        ED | {"crv": ["Ed25519"]},
        ED | {"kty": {}},
        ED | {"key_ops": 7},
        ED | {"x": None},
        RSA | {"e": 3},
        ED | {"use": "enc"},
        ED | {"key_ops": ["sign"]},
        ED | {"alg": "RS256"},
        ED | {"alg": "none"},
        ED | {"d": ED["x"]},
        ED | {"crv": "X25519"},
        ED | {"x": "AA"},
        ED | {"kid": 7},
        _without(ED, "kid"),
        _without(ED, "x"),
        EC | {"crv": "P-384"},
        EC | {"crv": "secp256k1"},
        EC | {"x": EC["y"]},
        EC | {"alg": "HS256"},
        RSA | {"alg": "RS512"},
        RSA | {"alg": "HS256"},
        RSA | {"n": ""},
        jwk_of("k", rsa_key(1, 1024)),
    ],
    ids=str,
)
def test_a_key_that_is_not_for_checking_tokens_is_left_out(jwk: Any) -> None:
    good = jwk_of("good", ed25519.Ed25519PrivateKey.generate())
    assert list(parse_keys(json.dumps({"keys": [jwk, good]}).encode(), ALGORITHMS)) == ["good"]


def test_two_keys_of_one_name_are_none() -> None:
    keys = [jwk_of(kid, ed25519.Ed25519PrivateKey.generate()) for kid in ("a", "a", "b")]
    assert list(parse_keys(json.dumps({"keys": keys}).encode(), ALGORITHMS)) == ["b"]


def test_so_many_keys_are_read_and_no_more() -> None:
    keys = [ED | {"kid": str(number)} for number in range(MAX_KEYS + 10)]
    assert len(parse_keys(json.dumps({"keys": keys}).encode(), ALGORITHMS)) == MAX_KEYS


@pytest.mark.parametrize(("jwk", "algorithm"), [(ED, "EdDSA"), (EC, "ES256"), (RSA, "RS256")], ids=["ed", "ec", "rsa"])
def test_each_kind_of_key_has_its_one_algorithm(jwk: dict[str, Any], algorithm: str) -> None:
    raw = json.dumps({"keys": [_without(_without(jwk, "alg"), "use")]}).encode()
    assert parse_keys(raw, ALGORITHMS)["k"].algorithm == algorithm
    without: Callable[[str], bool] = lambda name: name != algorithm  # noqa: E731
    with pytest.raises(WireFormatError):
        parse_keys(raw, tuple(filter(without, ALGORITHMS)))
