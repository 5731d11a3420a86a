"""Standalone's folder, secrets and words."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cronkeeper_cli.failures import CommandError
from cronkeeper_cli.standalone import banner
from cronkeeper_cli.standalone_home import Home, Secrets, find_home
from cronkeeper_cli.standalone_parts import stores


def test_the_folder_is_the_users_own_or_the_systems_for_root() -> None:
    def path(root: bool, **environ: str) -> str:
        return str(find_home(None, ephemeral=False, environ=environ, root=root).path)

    assert path(False, HOME="/home/ann") == "/home/ann/.local/share/cronkeeper"
    assert path(False, HOME="/home/ann", XDG_DATA_HOME="/data") == "/data/cronkeeper"
    assert path(True, HOME="/home/ann") == "/var/lib/cronkeeper"


@pytest.mark.parametrize("folder", ["/tmp/with space", "/tmp/a%b", "/tmp/a\nb", "/tmp/a;b", "/tmp/a$b", "/tmp/ä"])
def test_a_folder_that_cannot_stand_in_a_crontab_line_is_refused(folder: str) -> None:
    with pytest.raises(CommandError, match="crontab line") as caught:
        find_home(folder, ephemeral=False, environ={}, root=False)
    assert caught.value.exit_code == 2


def test_a_relative_folder_becomes_a_full_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert find_home("./data/../data", ephemeral=False, environ={}, root=False).path == Path("/tmp/data")


def test_secrets_are_made_once_for_our_eyes_only(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.secrets()
    again = home.secrets()
    assert first.first
    assert not again.first
    assert (first.admin_token, first.signing_seed) == (again.admin_token, again.signing_seed)
    assert first.zookeeper_password == again.zookeeper_password
    assert first.admin_token.startswith("ck_")
    assert len(bytes.fromhex(first.signing_seed)) == 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert first.admin_token not in repr(first)


def test_a_secret_that_was_opened_to_others_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.secrets()
    home.token_file.chmod(0o644)
    with pytest.raises(CommandError, match="chmod 600"):
        home.secrets()


def test_two_starts_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cronkeeper_cli.standalone_home._LOCK_WAIT_S", 0.0)
    with Home(tmp_path).lock(), pytest.raises(CommandError, match="another standalone uses"):
        Home(tmp_path).lock()


def test_the_banner_says_where_it_is_and_shows_the_token_once() -> None:
    home = Home(Path("/data"))
    secrets = Secrets("ck_secret", "00", "pw", first=True)
    lines = "\n".join(banner(home, secrets, "http://127.0.0.1:30000", 0.93, cron=True))
    assert "ready in 0.9 s" in lines
    assert "ck_secret" in lines
    assert "cat /data/admin-token" in lines
    later = "\n".join(banner(home, Secrets("ck_secret", "00", "pw", first=False), "http://x", 1.0, cron=False))
    assert "ck_secret" not in later
    assert "timer" in later


def test_all_parts_use_the_same_stores() -> None:
    shared = stores(Home(Path("/data")), Secrets("ck_x", "00", "pw", first=True), "127.0.0.1:2181")
    assert shared == {
        "database_url": "sqlite:////data/cronkeeper.db",
        "zookeeper": "127.0.0.1:2181/cronkeeper",
        "zookeeper_auth": "cronkeeper:pw",
        "blob_url": "file:///data/objects",
    }
