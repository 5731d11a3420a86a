"""The repository holds together: packages, import contracts, scripts, and nothing that belongs to one machine only."""

from __future__ import annotations

import configparser
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("core", "api", "manager", "worker", "cli")
SUITES = {"unit", "contract", "integration", "acceptance", "faults", "meta", "soak"}
# Written in pieces, so that this file does not find itself.
MACHINE_PATHS = tuple("/" + word for word in ("work/", "root/"))
REGISTRY_HOSTS = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "deb.deb" + "ian.org", "index" + "-url")


def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def repository_files() -> list[Path]:
    """Every file that is or would be part of a commit."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""  # a picture or the like


def scripts() -> list[Path]:
    return [path for path in repository_files() if path.read_bytes()[:2] == b"#!"]


def bash_scripts() -> list[Path]:
    return [path for path in scripts() if re.match(r"#!.*\b(ba)?sh\b", text_of(path).partition("\n")[0])]


def test_every_package_is_listed() -> None:
    found = {package for root in SOURCE_ROOTS for package in find_packages(str(ROOT / root))}
    assert set(config()["options"]["packages"].split()) == found


def test_every_folder_with_code_is_a_package() -> None:
    """A forgotten __init__.py keeps a folder out of the wheel, and no other test notices."""
    folders = {path.parent for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/**/*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_source_root_holds_one_typed_package() -> None:
    for root in SOURCE_ROOTS:
        packages = [path.parent for path in (ROOT / root).glob("*/__init__.py")]
        assert len(packages) == 1, f"{root} holds {packages}"
        assert (packages[0] / "py.typed").exists()


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCE_ROOTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_every_module_fits_its_budget() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in repository_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in SOURCE_ROOTS
        if (lines := len(text_of(path).splitlines())) > 400
    }
    assert long == {}


@pytest.mark.parametrize("forbidden", MACHINE_PATHS + REGISTRY_HOSTS)
def test_no_file_belongs_to_one_machine_or_one_registry(forbidden: str) -> None:
    naming = [str(path.relative_to(ROOT)) for path in repository_files() if mentions(text_of(path), forbidden)]
    assert naming == []


def mentions(text: str, forbidden: str) -> bool:
    # A path of the machine starts there: docs/work/ is not one.
    return re.search(rf"(?<![\w./-]){re.escape(forbidden)}", text) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see " + MACHINE_PATHS[0] + "main", True),
        ("'" + MACHINE_PATHS[1] + ".bashrc'", True),
        ("docs" + MACHINE_PATHS[0] + "x", False),
        ("nothing here", False),
    ],
)
def test_the_search_for_machine_paths_sees_what_it_should(text: str, expected: bool) -> None:
    assert any(mentions(text, forbidden) for forbidden in MACHINE_PATHS) is expected


def test_the_changelog_has_an_unreleased_section_with_something_in_it() -> None:
    section = (ROOT / "CHANGELOG.md").read_text().partition("## Unreleased")[2].partition("\n## ")[0]
    assert re.search(r"^- \S", section, re.MULTILINE), "CHANGELOG.md: nothing under '## Unreleased'"


def test_the_usual_files_are_there() -> None:
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "haproxy.cfg"):
        assert (ROOT / name).read_text().strip(), f"{name} is empty"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_script_is_executable_and_is_one() -> None:
    assert ROOT / "tests" / "run" in scripts()
    wrong = [str(path.relative_to(ROOT)) for path in scripts() if not path.stat().st_mode & stat.S_IXUSR]
    assert wrong == []


def test_bash_can_read_every_shell_script() -> None:
    assert {ROOT / "tests" / "run", ROOT / "deploy" / "install-packages", ROOT / ".ci" / "run"} <= set(bash_scripts())
    for path in bash_scripts():
        result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, ""), f"{path.relative_to(ROOT)}: {result.stderr}"


def test_every_test_stands_in_a_folder_that_names_its_kind() -> None:
    kinds = {path.relative_to(ROOT / "tests").parts[0] for path in ROOT.glob("tests/**/test_*.py")}
    assert kinds <= SUITES
    markers = {line.partition(":")[0] for line in config()["tool:pytest"]["markers"].strip().splitlines()}
    assert markers == SUITES


def test_every_dependency_has_an_upper_bound_or_is_data() -> None:
    """A new major version must be tried before our users get it; the zone data must never be held back."""
    unbound = [
        requirement
        for requirement in config()["options"]["install_requires"].strip().splitlines()
        if not re.search(r"<|==", requirement) and not requirement.startswith("tzdata")
    ]
    assert unbound == []
