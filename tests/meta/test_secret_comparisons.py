"""No secret is compared by `==`: how long that takes tells how much of it was right. hmac.compare_digest does not.

A name that speaks of a secret (token, secret, signature, digest …) on either side of `==` or `!=` is found, and must
stand below with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.test_packaging import ROOT, SOURCE_ROOTS

_WORDS = "token secret sig signature mac hmac password passwd credential digest seed bearer"
WORDS = frozenset(re.findall(r"\w+", _WORDS))
#: What was looked at: file and expression, and why nobody learns anything from how long it takes.
REVIEWED = {
    ("core/cronkeeper/coord/election.py", "paths.candidate_token(name) == self._token"): "the name of a znode",
    ("core/cronkeeper/store/secrets.py", "_from_row(found) == secret"): "sealed; a write of ours that is read back",
    ("core/cronkeeper/store/notes.py", "stored.body_digest != body_digest"): "of a body that the caller sent itself",
    (
        "core/cronkeeper/wire/trail.py",
        "found.hash != _digest(seq, found.entry, prev_hash)",
    ): "it is shown to all",
    ("cli/cronkeeper_cli/audit.py", "found[0]['hash'] != digest"): "the same, on the reader's own machine",
    ("worker/cronkeeper_worker/run_files.py", "(start.nonce, start.digest) != (nonce, digest)"): (
        "of an order of ours that the runner wrote back; whoever could try others has the node's files already"
    ),
}
#: Doubles for tests: nobody outside reaches them.
NOT_LOOKED_AT = "core/cronkeeper/testing/"


def speaking_names(node: ast.AST) -> set[str]:
    """The last word of what stands on one side: `a.token`, `token`, `token_of(x)`, `row['token']`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
        case ast.Call(func=func):
            return speaking_names(func)
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            return speaking_names(value) | {key}
        case ast.Subscript(value=value):
            return speaking_names(value)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return {name for part in parts for name in speaking_names(part)}
        case ast.Constant():
            return set()
    return set()


def is_column(node: ast.AST) -> bool:
    """Say whether it is a column, `table.c.digest`: the comparison is made by the database, by an index."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "c"


def speaks_of_a_secret(node: ast.AST) -> bool:
    words = {word for name in speaking_names(node) for word in re.split(r"_+", name.lower())}
    return bool(words & WORDS) and not any(name.endswith(("_id", "_ids")) for name in speaking_names(node))


def comparisons(source: str) -> Iterator[tuple[int, str]]:
    """Every comparison by `==` or `!=` in which a side speaks of a secret."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            continue
        sides = [node.left, *node.comparators]
        # Whether there is one at all, and of what length, is no secret.
        plain = any(isinstance(side, ast.Constant) and not isinstance(side.value, str | bytes) for side in sides)
        if any(map(speaks_of_a_secret, sides)) and not plain and not any(map(is_column, sides)):
            yield node.lineno, ast.unparse(node)


def sources() -> list[Path]:
    found = [path for root in SOURCE_ROOTS for path in sorted((ROOT / root).rglob("*.py"))]
    return [path for path in found if not str(path.relative_to(ROOT)).startswith(NOT_LOOKED_AT)]


def test_no_secret_is_compared_by_equality() -> None:
    found = {
        (str(path.relative_to(ROOT)), expression): line
        for path in sources()
        for line, expression in comparisons(path.read_text())
    }
    new = [f"{file}:{line}: {text}" for (file, text), line in found.items() if (file, text) not in REVIEWED]
    assert new == [], "use hmac.compare_digest, or say in REVIEWED why nobody learns anything"
    assert set(REVIEWED) - set(found) == set(), "these are gone: strike them from REVIEWED"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("token == given", 1),
        ("given != self._token", 1),
        ("caller.api_token == x", 1),
        ("row['signature'] == x", 1),
        ("digest_of(x) == y", 1),
        ("(a, secret) == (b, c)", 1),
        ("password == ''", 1),
        ("token_id == 7", 0),
        ("len(tokens) == 3", 0),
        ("token is None", 0),
        ("table.c.digest == digest", 0),
        ("hmac.compare_digest(token, given)", 0),
        ("tokenize == x", 0),
    ],
)
def test_the_search_sees_what_it_should(source: str, count: int) -> None:
    assert len(list(comparisons(source))) == count
