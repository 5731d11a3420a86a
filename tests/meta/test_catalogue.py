"""The catalogue of faults: each has a test of its name, and those that are short run in `tests/run`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
#: T50 to T56 are of the API's input and named by what they send; T61 and later are operations.
CATALOGUE = [*range(1, 50), *range(57, 61)]
#: Those that are run with every change.
SHORT = [1, 2, 6, 10, 11, 14, 22, 27, 35, 41]
_NUMBER = re.compile(r"^test_t(\d\d)_|^TestT(\d\d)")


def numbered() -> dict[int, set[str]]:
    """Return the folders in which tests are that bear a number of the catalogue."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            name = node.name if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ""
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            if match := _NUMBER.match(name):
                found[int(match[1] or match[2])].add(path.relative_to(TESTS).parts[0])
    return found


FOLDERS = numbered()


@pytest.mark.parametrize("number", CATALOGUE)
def test_each_fault_of_the_catalogue_has_a_test_of_its_name(number: int) -> None:
    assert FOLDERS[number]


@pytest.mark.parametrize("number", SHORT)
def test_the_short_ones_run_with_every_change(number: int) -> None:
    assert FOLDERS[number] - {"soak"}


def test_tests_run_leaves_none_of_them_out() -> None:
    ignored = re.findall(r"--ignore=(\S+)", (TESTS / "run").read_text())
    texts = [(TESTS.parent / path).read_text() for path in ignored]
    assert not [number for number in SHORT for text in texts if re.search(rf"\btest_t{number:02d}_", text)]
