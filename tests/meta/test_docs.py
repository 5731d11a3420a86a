"""The documents say what the code does: generated parts are up to date, lists complete, links and commands exist."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from cronkeeper.coord import paths
from cronkeeper.domain.ids import RunKey, TaskId
from cronkeeper.domain.placement import MoveReason
from cronkeeper.domain.run import Reason
from cronkeeper.runtime.passwords import database_weakness, weakness, zookeeper_weakness
from cronkeeper.store.schema import metadata
from cronkeeper_api.config import ApiConfig
from cronkeeper_cli.main import cli
from cronkeeper_manager.config import ManagerConfig
from cronkeeper_worker.config import WorkerConfig

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ARCHITECTURE = DOCS / "architecture.md"
TASK = TaskId(17, 0)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cronkeeper_docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()
DOCUMENTS: list[Path] = generator.documents()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def first_cells(text: str, heading: str) -> list[str]:
    """The code spans in the first cells of the table under a heading."""
    section = re.split(r"^#+ ", text.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows, f"no table under {heading!r}"
    return [span for row in rows for span in _CODE.findall(row.split(" | ")[0])]


# --------------------------------------------------------------------------------------------------- generated parts


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    text = path.read_text()
    assert text == generator.brought_up_to_date(text), "run: .venv/bin/python docs/generate.py"


def test_every_generator_is_used_once() -> None:
    used = [block for path in DOCUMENTS for block in generator.blocks(path.read_text())]
    assert sorted(used) == sorted(generator.GENERATORS)


def test_every_opened_block_is_closed() -> None:
    for path in DOCUMENTS:
        text = path.read_text()
        assert text.count("<!-- generated: ") == len(generator.blocks(text)), name_of(path)


# ------------------------------------------------------------------------------------------------------ complete lists


def test_every_sql_table_is_described() -> None:
    assert sorted(first_cells(ARCHITECTURE.read_text(), "## Tables")) == sorted(metadata.tables)


def test_every_znode_is_described() -> None:
    key = RunKey(TASK, 1_772_366_700_000, 1)
    example = {
        "/workers/<worker>": paths.worker("w1"),
        "/nodes/<worker>": paths.node("w1"),
        "/tasks/<bucket>/<task>": paths.task(TASK),
        "/assign/<worker>/<bucket>/<task>": paths.assigned("w1", TASK),
        "/owned/<worker>/<bucket>/<task>": paths.owned("w1", TASK),
        "/claims/<bucket>/<task>@<fire time>": paths.claim(key),
        "/queue/<bucket>/<run>": paths.queued(key),
        "/leader": paths.LEADER,
        "/trail": paths.TRAIL,
        "/ready": paths.READY,
    }
    described = first_cells(ARCHITECTURE.read_text(), "## Znodes")
    assert sorted(described) == sorted(example)
    assert {"/" + path.split("/")[1] for path in described} == {*paths.TOP_LEVEL, paths.READY, paths.TRAIL}
    for pattern, path in example.items():
        known = {"<worker>": "w1", "<bucket>": TASK.bucket, "<task>": "17.0", "<fire time>": str(key.fire_ms)}
        known["<run>"] = str(key)
        for word, value in known.items():
            pattern = pattern.replace(word, value)
        assert pattern == path


def test_every_reason_is_explained() -> None:
    text = (DOCS / "reference.md").read_text()
    assert sorted(first_cells(text, "## Reasons of runs")) == sorted(Reason)
    assert sorted(first_cells(text, "## Reasons of moves")) == sorted(MoveReason)


def test_every_file_of_a_node_is_named() -> None:
    """What lies in a worker's state directory is looked for at night: the page names each of them."""
    from cronkeeper_worker import node_files, run_files

    text = ARCHITECTURE.read_text()
    named = [
        node_files.JOURNAL,
        node_files.ARTIFACTS,
        node_files.LOCK,
        node_files.AWAY,
        node_files.START,
        node_files._ID,
    ]
    for name in [*named, run_files.START, run_files.EXIT, run_files.OUTPUT, run_files.WORK]:
        assert f"`{name}`" in text or f"/{name}" in text, name


def test_every_dependency_has_its_reason() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    wanted = re.findall(r"^[A-Za-z0-9-]+", parser["options"]["install_requires"], re.MULTILINE)
    text = (DOCS / "decisions" / "0002-libraries.md").read_text()
    assert sorted(first_cells(text, "## What is installed")) == sorted(wanted)


def test_the_example_configuration_is_one() -> None:
    """Every key of the TOML example is a setting, and has a value of its kind."""
    fences = _FENCE.finditer((DOCS / "configuration.md").read_text())
    example = tomllib.loads(next(fence["text"] for fence in fences if fence["kind"] == "toml"))
    fields = {
        field.name: field for cls in (ApiConfig, ManagerConfig, WorkerConfig) for field in dataclasses.fields(cls)
    }
    assert sorted(example.keys() - fields.keys()) == []
    for key, value in example.items():
        kind = str(fields[key].type).partition("[")[0].partition(" ")[0]
        assert type(value).__name__ == {"Path": "str", "tuple": "list"}.get(kind, kind), key


def test_every_decision_is_listed() -> None:
    listing = (DOCS / "decisions" / "README.md").read_text()
    records = {path.name for path in (DOCS / "decisions").glob("[0-9]*.md")}
    assert records and set(_LINK.findall(listing)) == records
    numbers = sorted(name[:4] for name in records)
    assert len(set(numbers)) == len(numbers), "two decisions have one number"


# ---------------------------------------------------------------------------------------------------------- references


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_local_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target in _LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            dead.append(target)
    assert dead == []


def linked_tests() -> list[str]:
    """The links of docs/guarantees.md: `[test_name](../tests/…/test_file.py)`."""
    text = (DOCS / "guarantees.md").read_text()
    return [f"{target} {name}" for name, target in re.findall(r"\[`?(test_\w+)`?\]\((\S+\.py)\)", text)]


@pytest.mark.parametrize("link", linked_tests())
def test_every_guarantee_names_a_test_that_exists(link: str) -> None:
    target, _, test = link.partition(" ")
    tree = ast.parse((DOCS / target).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_guarantee_has_a_test() -> None:
    text = (DOCS / "guarantees.md").read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(sections) >= 10
    assert [section.splitlines()[0] for section in sections if not re.search(r"\[`test_\w+`\]\(", section)] == []
    for section in sections:
        for word in ("Mechanism", "Bound", "Test"):
            assert f"**{word}" in section, f"{section.splitlines()[0]}: no {word}"


def checklist() -> dict[str, str]:
    """The rows of docs/security-checklist.md, by their numbers."""
    rows = re.findall(r"^\| (S\d+) \| (.*) \|$", (DOCS / "security-checklist.md").read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a point stands twice"
    return dict(rows)


def test_every_point_of_security_is_there_and_has_a_test_or_a_decision() -> None:
    rows = checklist()
    assert list(rows) == [f"S{number}" for number in range(1, 32)]
    bare = [name for name, row in rows.items() if "[`test_" not in row and "(decisions/" not in row]
    assert bare == []


def test_every_test_of_the_checklist_exists() -> None:
    dead = []
    for name, target in re.findall(r"\[`(test_\w+)`\]\((\S+\.py)\)", (DOCS / "security-checklist.md").read_text()):
        tree = ast.parse((DOCS / target).read_text())
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            dead.append(f"{target} {name}")
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_document_holds_a_key_that_could_be_copied(path: Path) -> None:
    """32 bytes in hex, or a token of ours: whoever copies it has a secret that all the world knows."""
    text = path.read_text()
    assert re.findall(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", text) == []
    assert re.findall(r"ck_[A-Za-z0-9_-]{43}", text) == []


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "cli" / "cronkeeper_cli" / "services.py"], ids=name_of)
def test_no_password_of_an_example_starts_anything(path: Path) -> None:
    """Whoever copies an example is told so, by the judge of passwords."""
    text = path.read_text()
    urls = [url for url in re.findall(r"mysql\+pymysql://[^\s\"'`]+", text) if ":" in url.partition("://")[2]]
    digests = re.findall(r"zookeeper_auth = \"([^\"]+)\"", text)
    keys = re.findall(r"s3_secret_key = \"([^\"]+)\"", text)
    assert [url for url in urls if not database_weakness(url)] == []
    assert [digest for digest in digests if not zookeeper_weakness(digest, "zk:2181")] == []
    assert [key for key in keys if not weakness(key)] == []


def commands_in(text: str) -> Iterator[str]:
    """Every command line that begins with `cronkeeper`, in fenced blocks and in code spans."""
    for fence in _FENCE.finditer(text):
        if fence["kind"] in ("sh", "console"):
            for line in fence["text"].replace("\\\n", " ").splitlines():
                yield from _commands_of_line(line)
    for span in _CODE.findall(_FENCE.sub("", text)):
        yield from _commands_of_line(span)


def _commands_of_line(line: str) -> Iterator[str]:
    for part in re.split(r"\||&&|;|\$\(", line.removeprefix("$ ")):
        found = re.match(r"\s*(?:sudo )?(?:[A-Z_]+=\S+ )*(?:\S*/bin/)?cronkeeper ([^)#>]*)", part)
        if found:
            yield found[1].strip()


def fault_of(command: str) -> str:
    """What is wrong with a command line, by the click tree; empty when it is all right."""
    group: click.Command = cli
    try:
        words = shlex.split(command)
    except ValueError:
        # A quote was cut at a pipe: the words before it are still worth a look.
        words = command.split()
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name == "…" or "|" in name:
            return ""
        if name not in group.commands:
            return f"no such command: {name}"
        group = group.commands[name]
    known = {option for param in group.params for option in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    if group is cli:
        known.add("--version")
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no such option: {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_in_a_document_exists(path: Path) -> None:
    wrong = {command: fault for command in commands_in(path.read_text()) if (fault := fault_of(command))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("list --status error -o name", ""),
        ("db token --role admin --name first", ""),
        ("run 17 --wait", ""),
        ("--version", ""),
        ("frobnicate 17", "no such command: frobnicate"),
        ("token forge", "no such command: forge"),
        ("run 17 --weit", "no such option: --weit"),
    ],
)
def test_the_search_for_wrong_commands_sees_what_it_should(command: str, expected: str) -> None:
    assert fault_of(command) == expected


def test_the_search_for_commands_finds_them() -> None:
    block = "```sh\ncronkeeper run 1 --wait | head\nexport T=$(cronkeeper db token --role a)\n```\n"
    text = f"Say `cronkeeper list`:\n\n{block}"
    assert list(commands_in(text)) == ["run 1 --wait", "db token --role a", "list"]


def test_files_named_in_documents_exist() -> None:
    """A code span such as `worker/cronkeeper_worker/gate.py` or `tests/run` must not outlive its file."""
    roots = ("core/", "api/", "manager/", "worker/", "cli/", "tests/", "deploy/", "docs/", "bench/")
    dead = []
    for path in DOCUMENTS:
        for span in _CODE.findall(prose(path)):
            word = span.split()[0] if span.split() else ""
            plain = re.fullmatch(r"[A-Za-z0-9_./-]+", word) is not None
            if plain and word.startswith(roots) and not (ROOT / word.rstrip(".")).exists():
                dead.append(f"{name_of(path)}: {word}")
    assert dead == []
