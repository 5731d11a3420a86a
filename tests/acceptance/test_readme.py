"""What the README shows is what a user gets: each of its `sh` blocks is run, and must print what stands below it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster

README = Path(__file__).resolve().parents[2] / "README.md"
_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_RUN_WITHIN_S = 120


@dataclass(frozen=True)
class Example:
    """A block to be run, and what the README says that it prints; None where it says nothing."""

    line: int
    script: str
    expected: str | None


def examples(text: str) -> Iterator[Example]:
    """Return the `sh` blocks; a `json` or `text` block right below one is its output."""
    fences = list(_FENCE.finditer(text))
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        if fence["kind"] != "sh":
            continue
        below = None
        if following is not None and following["kind"] in ("json", "text"):
            below = following["text"] if not text[fence.end() : following.start()].strip() else None
        yield Example(text.count("\n", 0, fence.start()) + 1, fence["text"], below)


def pattern_of(expected: str) -> re.Pattern[str]:
    """Return what an output must contain: `…` stands for anything, numbers may differ, blanks may be more or fewer."""
    pieces = [re.escape(" ".join(piece.split())) for piece in expected.strip().split("…")]
    pattern = ".*?".join(re.sub(r"\d+", r"\\d+", piece) for piece in pieces)
    return re.compile(pattern.replace(r"\ ", r"\s+"), re.DOTALL)


def remembered(output: str) -> dict[str, str]:
    """Return JOB and RUN, as a reader takes them from the answers: the id of the last job and of the last run."""
    found = {}
    for line in output.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            if "generation" in answer:
                found["JOB"] = answer["id"]
            elif "job_id" in answer:
                found["RUN"] = answer["id"]
    return found


def test_everything_the_readme_shows_works(cluster: Cluster, tmp_path: Path) -> None:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NO_PROXY": "*",
        "CRONKEEPER_URL": cluster.url,
        "CRONKEEPER_TOKEN": cluster.token,
    }
    for example in examples(README.read_text()):
        done = subprocess.run(
            ["sh", "-eu"],
            input=example.script,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=_RUN_WITHIN_S,
            check=False,
        )
        told = f"README.md, line {example.line}:\n{example.script}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, told
        if example.expected is not None:
            assert pattern_of(example.expected).search(done.stdout), f"{told}\nexpected:\n{example.expected}"
        env |= remembered(done.stdout)
    assert {"JOB", "RUN"} <= env.keys()


def test_the_readme_has_examples_for_all_that_was_asked() -> None:
    text = "".join(example.script for example in examples(README.read_text()))
    for words in (
        '"type": "command"', "base64", "/next?", "/run ", "/runs ", "/log", "/pause ", "/workers ", "/reassign ",
        "-X DELETE", "cronkeeper create", "cronkeeper run ", "cronkeeper drain",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("expected", "output", "matches"),
    [
        ('{"id": "1", … "state": "up"}', '{"id": "17", "host": "n", "state": "up"}', True),
        ('{"id": "1", … "state": "up"}', '{"id": "17", "host": "n", "state": "lost"}', False),
        ("ID  STATE\nw1  up", "ID   STATE   TASKS\nw1   up", False),
        ("ID  STATE\nw1  up", "ID   STATE\nw22  up\n", True),
        ("a.b", "axb", False),
    ],
)
def test_the_comparison_sees_what_it_should(expected: str, output: str, matches: bool) -> None:
    assert (pattern_of(expected).search(output) is not None) is matches


def test_an_output_belongs_to_the_block_right_above_it() -> None:
    text = "```sh\none\n```\n```text\n1\n```\n```sh\ntwo\n```\nwords\n```text\n2\n```\n```console\n$ three\n```\n"
    assert [(item.script, item.expected) for item in examples(text)] == [("one\n", "1\n"), ("two\n", None)]
