"""Where the command finds the API and the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from cronkeeper_cli.failures import CommandError
from cronkeeper_cli.settings import DEFAULT_URL, check_url, config_path, load_settings


def write_config(home: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = home / ".config" / "cronkeeper" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(mode)
    return {"HOME": str(home)}


def test_without_anything_the_api_is_on_this_machine(tmp_path: Path) -> None:
    settings = load_settings({"HOME": str(tmp_path)})
    assert (settings.url, settings.token) == (DEFAULT_URL, "")


def test_the_environment_wins_over_the_file_and_the_flag_over_both(tmp_path: Path) -> None:
    environ = write_config(tmp_path, 'url = "http://file:1"\ntoken = "ck_file"\n')
    assert load_settings(environ).url == "http://file:1"
    environ |= {"CRONKEEPER_URL": "http://environment:1/", "CRONKEEPER_TOKEN": "ck_environment"}
    assert load_settings(environ).url == "http://environment:1"
    assert load_settings(environ).token == "ck_environment"
    assert load_settings(environ, url="http://flag:1").url == "http://flag:1"


def test_the_token_shows_in_no_repr(tmp_path: Path) -> None:
    assert "ck_" not in repr(load_settings({"HOME": str(tmp_path), "CRONKEEPER_TOKEN": "ck_secret"}))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_with_a_token_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    environ = write_config(tmp_path, 'token = "ck_file"\n', mode)
    with pytest.raises(CommandError, match="chmod 600") as caught:
        load_settings(environ)
    assert caught.value.exit_code == 2


def test_a_file_without_a_token_may_be_read_by_all(tmp_path: Path) -> None:
    environ = write_config(tmp_path, 'url = "http://file:1"\n', 0o644)
    assert load_settings(environ).url == "http://file:1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('urll = "http://x"\n', "urll: no such setting"),
        ("url = 5\n", "url: write a text in quotes"),
        ("url = \n", "config.toml"),
    ],
)
def test_a_file_that_does_not_add_up_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CommandError, match=said) as caught:
        load_settings(write_config(tmp_path, text))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:30000",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://user:pass@host",
        "http://host/?a=1",
        "http://host/#a",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(CommandError) as caught:
        check_url(url)
    assert caught.value.exit_code == 2


def test_a_token_with_a_line_end_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="copied whole"):
        load_settings({"HOME": str(tmp_path), "CRONKEEPER_TOKEN": "ck_a\nX-Other: b"})


def test_xdg_config_home_is_honoured() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/cronkeeper/config.toml")
    assert config_path({"HOME": "/h"}) == Path("/h/.config/cronkeeper/config.toml")
