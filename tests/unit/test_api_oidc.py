"""Callers by an issuer's tokens have the rights that were granted, on every route; they are told in the trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.ports import Role
from cronkeeper_api.routing import Reach, Route
from tests.harness.api import JOB
from tests.harness.issuer import AUDIENCE, ISSUER, Issuer
from tests.unit import test_api_matrix as matrix

WHOSE = {"own": "team-a", "foreign": "team-b", "all": "*"}
NOBODY = "nobody"


class OidcTown(matrix.Town):
    """The matrix's town, whose callers have tokens of an issuer."""

    def __init__(self, folder: Path) -> None:
        file = folder / "jwks.json"
        file.touch(0o644)
        grants = {f"{role}-{whose}": f"{role} {names}" for role, (whose, names) in product(Role, WHOSE.items())}
        settings = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_keys": str(file), "oidc_grants": grants}
        super().__init__(**settings)
        self.issuer = Issuer(lambda: self.world.clock.now_ms() / 1000)
        file.write_text(json.dumps(self.issuer.jwks()))
        self.tokens = {(role, whose): self.token(f"{role}-{whose}") for role, whose in product(Role, WHOSE)}
        # Any role will do: nothing is granted.
        self.tokens |= {(role, NOBODY): self.token("unknown") for role in Role}

    def token(self, group: str, sub: str = "anna") -> str:
        return self.issuer.token(groups=[group], sub=sub)

    def ask(self, method: str, path: str, token: str, **rest: Any) -> Any:
        return self.world.call(method, path, role=None, headers={"Authorization": f"Bearer {token}"}, **rest)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[OidcTown]:
    found = OidcTown(tmp_path)
    yield found
    found.world.close()


@pytest.mark.parametrize("route", matrix.GUARDED, ids=lambda route: route.endpoint)
def test_every_route_takes_what_was_granted_and_nothing_else(route: Route, town: OidcTown) -> None:
    for role, whose in product(Role, [*WHOSE, NOBODY]):
        before = [town.state(job) for job in (town.job, town.other)]
        answer = town.call(route, role, whose)
        told = (role, whose, text := answer.get_data(as_text=True))
        wanted = {403} if whose == NOBODY else matrix.expected(route, role, whose)
        assert answer.status_code in wanted, told
        assert town.state(town.other) == before[1], told
        if whose in ("foreign", NOBODY):
            assert town.state(town.job) == before[0], told
            assert matrix.CANARY not in text or route.reach is not Reach.NAMESPACES, told


def test_the_trail_names_issuer_and_subject(town: OidcTown) -> None:
    made = town.ask("POST", "/jobs", town.token("operator-own"), json={**JOB, "namespace": "team-a"})
    assert made.status_code == 201
    entry = town.world.call("GET", "/audit?action=job.created", role=Role.ADMIN).get_json()[-1]
    assert entry["object"] == f"job/{made.get_json()['id']}"
    assert (entry["actor"]["name"], entry["actor"]["role"]) == (f"{ISSUER}#anna", "operator")
    found = town.world.call("GET", f"/audit?actor={ISSUER}%23anna", role=Role.ADMIN).get_json()
    assert [one["nonce"] for one in found] == [entry["nonce"]]


def test_two_subjects_do_not_share_their_idempotency_keys(town: OidcTown) -> None:
    body = {**JOB, "namespace": "team-a"}
    ids = []
    for sub in ("anna", "ben", "anna"):
        headers = {"Authorization": f"Bearer {town.token('operator-own', sub)}", "Idempotency-Key": "k" * 16}
        ids.append(town.world.call("POST", "/jobs", role=None, headers=headers, json=body).get_json()["id"])
    assert ids[0] == ids[2] != ids[1]


def test_a_denied_identity_is_refused_until_it_is_let_in_again(town: OidcTown) -> None:
    anna, ben = town.token("operator-own"), town.token("operator-own", "ben")
    assert town.ask("GET", "/jobs", anna).status_code == 200
    denied = town.world.call("POST", "/denials", role=Role.ADMIN, json={"subject": "anna"})
    assert denied.status_code == 201
    assert denied.get_json()["identity"] == f"{ISSUER}#anna"
    again = town.world.call("POST", "/denials", role=Role.ADMIN, json={"subject": "anna"})
    assert again.get_json() == denied.get_json()
    assert town.ask("GET", "/jobs", anna).status_code == 401
    # One that the issuer makes afterwards is no better.
    assert town.ask("GET", "/jobs", town.token("admin-all")).status_code == 401
    assert town.ask("GET", "/jobs", ben).status_code == 200
    assert town.world.call("GET", "/denials", role=Role.ADMIN).get_json() == [denied.get_json()]
    shown = town.world.call("GET", "/tokens", role=Role.ADMIN).get_json()
    assert denied.get_json()["id"] not in {token["id"] for token in shown}
    path = f"/denials/{denied.get_json()['id']}"
    assert town.world.call("DELETE", path, role=Role.ADMIN).status_code == 204
    assert town.world.call("DELETE", path, role=Role.ADMIN).status_code == 404
    assert town.ask("GET", "/jobs", anna).status_code == 200
    actions = [entry["action"] for entry in town.world.call("GET", "/audit", role=Role.ADMIN).get_json()]
    assert [action for action in actions if action.startswith("identity")] == ["identity.denied", "identity.allowed"]


def test_a_denial_on_another_server_holds_within_five_seconds(town: OidcTown, tmp_path: Path) -> None:
    from cronkeeper_manager.service.denials import Denials
    from cronkeeper_manager.service.values import Caller

    anna = town.token("operator-own")
    assert town.ask("GET", "/jobs", anna).status_code == 200
    elsewhere = Denials(town.world.store.tokens, town.world.clock)
    elsewhere.deny(ISSUER, "anna", Caller("1", "root", Role.ADMIN))
    town.world.clock.advance_ms(5000)
    assert town.ask("GET", "/jobs", anna).status_code == 401


def test_what_stands_for_an_identity_opens_nothing(town: OidcTown) -> None:
    from cronkeeper_manager.service.denials import digest_of

    town.world.call("POST", "/denials", role=Role.ADMIN, json={"subject": "anna"})
    stored = next(token for token in town.world.store.tokens.all() if token.digest == digest_of(ISSUER, "anna"))
    assert stored.scope.listed() == [] and stored.revoked_ms is not None
    # No secret has such a digest: those of secrets are hex.
    assert not set(stored.digest) <= set("0123456789abcdef")


def test_tokens_are_no_denials(town: OidcTown) -> None:
    assert town.world.call("DELETE", "/denials/1", role=Role.ADMIN).status_code == 404
    revoked = town.world.call("DELETE", "/tokens/1", role=Role.ADMIN)
    assert revoked.status_code == 204
    assert town.world.call("DELETE", "/denials/1", role=Role.ADMIN).status_code == 404
    assert town.world.store.tokens.all()[0].revoked_ms is not None


def test_without_the_database_nobody_is_let_in(town: OidcTown) -> None:
    town.world.store.set_available(False)
    assert town.ask("GET", "/jobs", town.token("operator-own")).status_code == 503


@pytest.mark.parametrize("subject", ["", "a b", "a\n", "ä", "x" * 190, None, 7, ["anna"], {"all": True}, "*"])
def test_a_denial_of_no_clear_subject_denies_nobody(subject: Any, town: OidcTown) -> None:
    answer = town.world.call("POST", "/denials", role=Role.ADMIN, json={"subject": subject})
    # A subject may well be called `*`: then it is that one alone.
    assert answer.status_code == (201 if subject == "*" else 422)
    assert town.ask("GET", "/jobs", town.token("operator-own")).status_code == 200


def test_where_no_issuer_is_set_there_is_nobody_to_deny() -> None:
    other = matrix.Town()
    assert other.world.call("POST", "/denials", role=Role.ADMIN, json={"subject": "anna"}).status_code == 409
    other.world.close()
