"""What we stand on: locked by hash, in step with setup.cfg, told as a bill of materials, and asked about."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.harness.bandit_review import differences, expected
from tests.meta.test_packaging import ROOT, config

RUNTIME, DEV = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
S3, AUDIT = ROOT / "tests/harness/s3-requirements.lock", ROOT / "deploy/audit-requirements.lock"
LOCKS = [RUNTIME, DEV, S3, AUDIT]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cronkeeper_deploy_{name}", ROOT / "deploy" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sbom = load("sbom")


def locked(path: Path) -> dict[str, str]:
    """The version of each package of a lock file."""
    return {name: version for name, version, _, _ in sbom.packages(path.read_text())}


def wanted(section: str, key: str) -> list[Requirement]:
    lines = config()[section][key].splitlines()
    return [Requirement(line) for line in lines if line.strip()]


def build_requirements() -> list[Requirement]:
    found = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return [Requirement(text) for text in re.findall(r'"([^"]+)"', found[1])]


# ---------------------------------------------------------------------------------------------------------- the locks


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        (RUNTIME, wanted("options", "install_requires")),
        (DEV, [*wanted("options", "install_requires"), *wanted("options.extras_require", "dev")]),
        (RUNTIME, build_requirements()),
        (DEV, build_requirements()),
    ],
    ids=["runtime", "dev", "build", "build-dev"],
)
def test_the_lock_holds_what_setup_cfg_asks_for(lock: Path, requirements: list[Requirement]) -> None:
    versions = locked(lock)
    wrong = [
        str(requirement)
        for requirement in requirements
        if versions.get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]
    assert requirements and wrong == [], f"{lock.name} does not hold these; run deploy/lock"


@pytest.mark.parametrize(
    ("lock", "source"), [(S3, "tests/harness/s3-requirements.txt"), (AUDIT, "deploy/audit-requirements.txt")]
)
def test_environments_of_their_own_are_locked_too(lock: Path, source: str) -> None:
    lines = (ROOT / source).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = locked(lock)
    assert [
        str(one) for one in requirements if versions.get(canonicalize_name(one.name), "0") not in one.specifier
    ] == []


def test_the_tests_run_with_the_versions_that_run() -> None:
    dev = locked(DEV)
    assert {name: dev.get(name) for name in locked(RUNTIME)} == locked(RUNTIME)


def test_what_is_installed_is_what_is_locked() -> None:
    """An environment that somebody changed by hand tests something else."""
    # Not all of sys.path: setuptools puts copies of its own there.
    found = distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(dist.metadata["Name"]): dist.version for dist in found}
    dev = locked(DEV)
    assert {name: version for name, version in installed.items() if dev.get(name, version) != version} == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_file_of_every_package_is_named_by_its_hash(lock: Path) -> None:
    """Nothing but names, versions, markers and hashes: no address, no option, no path."""
    packages = sbom.packages(lock.read_text())
    assert len(packages) > 5
    assert [name for name, _, _, hashes in packages if not hashes] == []
    assert [name for name, _, _, hashes in packages if len(set(hashes)) != len(hashes)] == []
    names = [name for name, *_ in packages]
    assert sorted(set(names)) == sorted(names)


def test_compiled_packages_are_locked_for_other_machines_too() -> None:
    """Files for one interpreter and one processor only would be two or three; there are many more of these."""
    hashes = {name: len(found) for name, _, _, found in sbom.packages(RUNTIME.read_text())}
    for name in ("cffi", "cryptography", "markupsafe", "pydantic-core", "pyyaml", "sqlalchemy"):
        assert hashes[name] >= 20, name


def test_everything_installs_by_the_locks_alone() -> None:
    for script in ("tests/run", "deploy/quickstart"):
        text = (ROOT / script).read_text()
        assert "--require-hashes" in text
        for line in text.splitlines():
            if re.search(r'"\$\{pip\[@\]\}"|pip install', line) and "pip=(" not in line:
                assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line, line
    assert "--require-hashes -r requirements.lock" in (ROOT / "docs" / "operations.md").read_text()


# -------------------------------------------------------------------------------------------------- bill of materials


def test_the_bill_of_materials_names_every_package_and_every_hash() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "sbom.py")]
    once, again = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert once == again
    bill = json.loads(once)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert {one["purl"] for one in bill["components"]} == {f"pkg:pypi/{n}@{v}" for n, v in locked(RUNTIME).items()}
    told = {fact["value"] for one in bill["components"] for fact in one["properties"] if "sha256" in fact["name"]}
    assert told == set(re.findall(r"sha256:([0-9a-f]{64})", RUNTIME.read_text()))


@pytest.mark.parametrize(
    "line", ["--index-url x", "flask", "flask>=3", "flask @ file:///x", "-e .", "    --hash=md5:abc", "# a comment"]
)
def test_a_lock_with_anything_else_in_it_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="neither a package nor a hash"):
        sbom.packages(f"alembic==1.20.1 \\\n    --hash=sha256:{'a' * 64}\n{line}\n")


# ------------------------------------------------------------------------------------------------------ the advisories

CLEAN = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
WEAK = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}
AWAY = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (f"echo '{json.dumps(CLEAN)}'", 0, "1 of 1 packages looked up, 0 known weaknesses"),
        (f"echo '{json.dumps(WEAK)}'; exit 1", 1, "a 1: CVE-1, mended in 2"),
        (f"echo '{json.dumps(AWAY)}'", 0, "could not be reached"),
        ("echo no network >&2; exit 1", 0, "nothing is known"),
        ("echo '[]'", 0, "nothing is known"),
    ],
    ids=["clean", "weak", "not-found", "no-network", "nonsense"],
)
def test_a_known_weakness_fails_and_silence_does_not(tmp_path: Path, script: str, status: int, said: str) -> None:
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(stat.S_IRWXU)
    command = [sys.executable, str(ROOT / "deploy" / "audit.py"), str(program), "requirements.lock"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (result.returncode, result.stderr) == (status, "")
    assert said in result.stdout


# -------------------------------------------------------------------------------------------------------------- bandit


def _finding(line: int, **changes: Any) -> dict[str, Any]:
    return {"filename": "core/x.py", "test_id": "B602", "line_number": line, "issue_text": "shell", **changes}


def test_a_finding_that_nobody_has_looked_at_is_told_with_its_line() -> None:
    assert differences([_finding(7)], {}) != []
    assert "core/x.py: B602 at 7 (shell)" in differences([_finding(7)], {})[0]
    assert differences([_finding(7)], {("core/x.py", "B602"): 1}) == []
    assert differences([_finding(7), _finding(9)], {("core/x.py", "B602"): 1}) != []
    assert differences([_finding(7, test_id="B603")], {("core/x.py", "B602"): 1}) != []


def test_a_finding_that_is_gone_is_struck_from_the_list() -> None:
    assert "still says more" in differences([], {("core/x.py", "B602"): 1})[0]


def test_every_reviewed_finding_has_its_reason() -> None:
    with pytest.raises(AssertionError, match="say why"):
        expected({"reviewed": [{"test": "B602", "reason": "fine", "files": {"core/x.py": 1}}]})
