"""A real issuer on loopback: its keys are fetched from one place only, within limits, and changed without a gap."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from cronkeeper.errors import UnavailableError
from cronkeeper_api.oidc.fetch import MAX_BYTES, read_file, read_url
from tests.harness.api import NOON_MS, World
from tests.harness.issuer import AUDIENCE, Issuer, Published, answering, make_certificate, published

LOCAL = "http://127.0.0.1"


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(lambda: NOON_MS / 1000, name=LOCAL)


@pytest.fixture
def site(issuer: Issuer) -> Iterator[Published]:
    with published(issuer.jwks) as found:
        yield found


def world_of(url: str, **settings: Any) -> World:
    grants = {"ops": "operator team-a"}
    given = {"oidc_issuer": LOCAL, "oidc_audience": AUDIENCE, "oidc_keys": url, "oidc_grants": grants}
    world = World(**{**given, **settings})
    assert [fault for fault in world.config.check() if "oidc" in fault] == []
    return world


def status(world: World, token: str) -> int:
    return world.call("GET", "/jobs", role=None, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_of_a_real_issuer_gets_in(issuer: Issuer, site: Published) -> None:
    with closing(world_of(site.url)) as world:
        assert [status(world, issuer.token(kid)) for kid in ("rsa", "ec", "ed")] == [200, 200, 200]
        assert site.asked == ["/keys"]


def test_over_https_the_issuer_is_who_it_should_be(issuer: Issuer, tmp_path: Path) -> None:
    mine, other = make_certificate(tmp_path / "mine.pem"), make_certificate(tmp_path / "other.pem")
    elsewhere = make_certificate(tmp_path / "elsewhere.pem", "127.0.0.2")
    with published(issuer.jwks, mine) as site:
        with closing(world_of(site.url, oidc_ca_file=mine)) as world:
            assert status(world, issuer.token()) == 200
        for trusted in (other, None):
            with closing(world_of(site.url, oidc_ca_file=trusted)) as world:
                assert status(world, issuer.token()) == 503
        assert site.asked == ["/keys"]
    # A certificate that is trusted, but of another address.
    with published(issuer.jwks, elsewhere) as site, closing(world_of(site.url, oidc_ca_file=elsewhere)) as world:
        assert status(world, issuer.token()) == 503
        assert site.asked == []


def test_keys_change_without_a_gap(issuer: Issuer, site: Published) -> None:
    with closing(world_of(site.url)) as world:
        old = issuer.token()
        assert status(world, old) == 200
        issuer.keys["next"] = ed25519.Ed25519PrivateKey.generate()
        world.clock.advance_ms(10_000)
        assert [status(world, issuer.token("next")), status(world, old)] == [200, 200]
        del issuer.keys["ed"]
        world.clock.advance_ms(300_000)
        assert [status(world, issuer.token("next")), status(world, old)] == [200, 401]


def test_an_issuer_that_is_away_locks_nobody_out_for_hours(issuer: Issuer, site: Published) -> None:
    with closing(world_of(site.url)) as world:
        assert status(world, issuer.token()) == 200
        site.answer = answering(dict, 500)
        world.clock.advance_ms(6 * 3_600_000)
        assert status(world, Issuer(lambda: world.clock.now_ms() / 1000, LOCAL, issuer.keys).token()) == 200
        world.clock.advance_ms(1000)
        assert status(world, Issuer(lambda: world.clock.now_ms() / 1000, LOCAL, issuer.keys).token()) == 503
        # Our own tokens do not depend on it.
        assert world.call("GET", "/jobs").status_code == 200


def test_addresses_in_a_token_are_never_asked(issuer: Issuer, site: Published) -> None:
    stranger = Issuer(issuer.now_s, name=LOCAL, keys={"evil": ed25519.Ed25519PrivateKey.generate()})
    with published(stranger.jwks) as trap, closing(world_of(site.url)) as world:
        offered = {"jku": trap.url, "x5u": trap.url, "jwk": stranger.jwks()["keys"][0]}
        assert status(world, stranger.token("evil", header=offered)) == 401
        assert status(world, stranger.token("evil", header={"kid": trap.url})) == 401
        assert status(world, issuer.token(iss=trap.url)) == 401
        assert trap.asked == []
        assert set(site.asked) == {"/keys"}


def test_a_redirect_is_not_followed(issuer: Issuer, site: Published) -> None:
    with published(issuer.jwks) as target, closing(world_of(site.url)) as world:
        for code in (301, 302, 303, 307, 308):
            site.answer = answering(issuer.jwks, code, Location=target.url)
            assert status(world, issuer.token()) == 503
            world.clock.advance_ms(10_000)
        assert (len(site.asked), target.asked) == (5, [])


def test_a_proxy_of_the_environment_is_not_used(
    issuer: Issuer, site: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    with published(issuer.jwks) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert json.loads(read_url(site.url)) == issuer.jwks()
        assert proxy.asked == []


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 20 * MAX_BYTES])
def test_an_answer_that_is_too_large_is_refused(size: int, site: Published) -> None:
    site.answer = answering(lambda: b"x" * size)
    with pytest.raises(UnavailableError, match="more than"):
        read_url(site.url)


@pytest.mark.parametrize("code", [204, 206, 301, 304, 400, 401, 404, 500, 503])
def test_an_answer_of_any_other_kind_is_refused(code: int, issuer: Issuer, site: Published) -> None:
    site.answer = answering(lambda: b"" if code in (204, 304) else issuer.jwks(), code)
    with pytest.raises(UnavailableError):
        read_url(site.url)


def test_an_answer_that_ends_early_is_none(issuer: Issuer, site: Published) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        raw = json.dumps(issuer.jwks()).encode()
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(raw) + 1) + raw)

    site.answer = answer
    with pytest.raises(UnavailableError, match="ended early"):
        read_url(site.url)


def _drip(lines: Callable[[], bytes]) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        while True:
            handler.wfile.write(lines())
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize(
    "piece",
    [b"H", b"X-More: 1\r\n", b""],
    ids=["in the first line", "in the headers", "nothing at all"],
)
def test_an_answer_that_never_ends_holds_nobody(piece: bytes, site: Published) -> None:
    first = [b"HTTP/1.1 200 OK\r\n"] if piece.startswith(b"X") else []
    site.answer = _drip(lambda: first.pop() if first else piece)
    _takes_about_a_second(site.url)


def test_a_body_that_never_ends_holds_nobody(site: Published) -> None:
    first = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"]
    site.answer = _drip(lambda: first.pop() if first else b" ")
    _takes_about_a_second(site.url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing_holds_nobody(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _takes_about_a_second(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/keys")


def _takes_about_a_second(url: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        read_url(url, all_s=1.0)
    # The bound is a second; the rest is for a machine that is busy.
    assert time.monotonic() - begun < 5


def test_nobody_there_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnavailableError, match="cannot fetch"):
        read_url(f"http://127.0.0.1:{port}/keys")


def test_a_file_is_read_within_the_same_bounds(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(b"{}")
    assert read_file(file) == b"{}"
    file.write_bytes(b"x" * (MAX_BYTES + 1))
    for path in (file, tmp_path / "none", tmp_path):
        with pytest.raises(UnavailableError):
            read_file(path)


def test_many_forged_tokens_at_once_cause_one_fetch(issuer: Issuer, site: Published) -> None:
    with closing(world_of(site.url)) as world:
        assert status(world, issuer.token()) == 200
        world.clock.advance_ms(10_000)
        forged = [issuer.token(header={"kid": f"forged-{number}"}) for number in range(50)]
        found: list[int] = []
        threads = [threading.Thread(target=lambda one=one: found.append(status(world, one))) for one in forged]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (set(found), len(site.asked)) == ({401}, 2)
