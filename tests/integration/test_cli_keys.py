"""Keys at the command line: made once, shown, and changed for all tasks."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cronkeeper.wire.task import Signer
from tests.integration.served_api import FIELDS, Api, serve


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serve(tmp_path) as found:
        yield found


def test_a_key_is_made_and_its_public_half_shown(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "key"
    public = api.ok("key", "create", str(file)).strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Signer.from_seed(bytes.fromhex(file.read_text())).public_bytes.hex() == public
    assert api.ok("key", "show", str(file)).strip() == public
    assert file.read_text().strip() not in public


def test_a_key_is_never_overwritten(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "key"
    api.ok("key", "create", "--for", "secrets", str(file))
    before = file.read_bytes()
    for path in (file, tmp_path / "no" / "folder"):
        result = api.run("key", "create", str(path))
        assert (result.exit_code, "cannot write" in result.output) == (1, True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "00" * 32, "zz" * 32, "ab"])
def test_what_is_no_key_is_not_shown(text: str, api: Api, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    assert api.run("key", "show", str(file)).exit_code == 1


def test_resigning_says_how_far_it_is(api: Api) -> None:
    api.ok("create", *FIELDS)
    assert "0 signed anew, 1 were signed by" in api.ok("resign")


def test_resigning_fails_if_something_is_not_rightly_signed(api: Api) -> None:
    api.ok("create", *FIELDS)
    raw = api.store.jobs.get(1).envelope
    api.store.jobs.reseal({1: (raw, raw.replace(b"ls -la", b"rm -rf"))})
    result = api.run("resign")
    assert result.exit_code == 1
    assert "job 1: task of job 1: the signature is wrong" in result.output
