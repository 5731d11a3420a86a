from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "install-packages"


@pytest.mark.parametrize("what", ["runtime", "test", "bench"])
def test_it_does_nothing_and_says_nothing_where_all_is_installed(what: str) -> None:
    result = subprocess.run([str(SCRIPT), what], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_it_explains_itself_when_asked_for_something_else() -> None:
    result = subprocess.run([str(SCRIPT), "everything"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "install-packages runtime" in result.stderr
