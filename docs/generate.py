#!/usr/bin/env python3
"""Write the parts of the documents that the code knows better: everything between `<!-- generated: … -->` and its end.

    .venv/bin/python docs/generate.py            write what has changed
    .venv/bin/python docs/generate.py --check    only name the documents that are out of date; exit status 1 if any

tests/meta/test_docs.py fails while a document is out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = ("core", "api", "manager", "worker", "cli")
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(<!-- end of (?P=name) -->)", re.DOTALL)
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_EVENT_WORD = re.compile(r"[a-z_]+\.[a-z_]+", re.ASCII)


# ---------------------------------------------------------------------------------------------------------- documents


def documents() -> list[Path]:
    """Return every Markdown file of the repository that people read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/*.md")])


def blocks(text: str) -> dict[str, str]:
    """Return the generated blocks of a document, by name."""
    return {match["name"]: match["text"] for match in _BLOCK.finditer(text)}


def brought_up_to_date(text: str) -> str:
    """Return the document with every block as the code has it now. Raises KeyError for a block nobody generates."""
    return _BLOCK.sub(lambda match: f"{match[1]}{GENERATORS[match['name']]()}{match[4]}", text)


def main(arguments: Sequence[str]) -> int:
    """Write or check all documents."""
    stale = []
    for path in documents():
        old = path.read_text()
        new = brought_up_to_date(old)
        if new != old:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in arguments:
                path.write_text(new)
    if stale:
        sys.stdout.write(f"{'out of date' if '--check' in arguments else 'written'}: {', '.join(stale)}\n")
    return 1 if stale and "--check" in arguments else 0


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --------------------------------------------------------------------------------------------------------- the blocks


def transitions() -> str:
    """The transition table of runs."""
    from cronkeeper.domain.run import TERMINAL, TRANSITIONS, RunState

    rows = []
    for state in RunState:
        edges = [(event, new) for (old, event), new in TRANSITIONS.items() if old is state]
        told = " · ".join(f"{event} → {f'**{new}**' if new in TERMINAL else new}" for event, new in edges)
        rows.append((f"**{state}**" if state in TERMINAL else str(state), told or "no event leads on"))
    return table(("from", "event → to"), rows)


def settings(cls: type[Any], inherited: type[Any] | None) -> str:
    """The settings that a configuration class adds to those of the class that it inherits from."""
    known = set() if inherited is None else {field.name for field in dataclasses.fields(inherited)}
    rows = [
        (f"`{field.name}`", _default_text(field), str(field.metadata["help"]))
        for field in dataclasses.fields(cls)
        if field.name not in known
    ]
    return table(("setting", "default", "meaning"), rows)


def _default_text(field: dataclasses.Field[Any]) -> str:
    default = {} if field.default is dataclasses.MISSING else field.default
    if default in ("", None, (), {}):
        return "(secret) unset" if field.metadata["secret"] else "unset"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def settings_of_all() -> str:
    from cronkeeper.runtime.config import Config

    return settings(Config, None)


def settings_of_stores() -> str:
    from cronkeeper.runtime.config import Config, StoreConfig

    return settings(StoreConfig, Config)


def settings_of_api() -> str:
    from cronkeeper.runtime.config import StoreConfig
    from cronkeeper_api.config import ApiConfig

    return settings(ApiConfig, StoreConfig)


def settings_of_manager() -> str:
    from cronkeeper.runtime.config import StoreConfig
    from cronkeeper_manager.config import ManagerConfig

    return settings(ManagerConfig, StoreConfig)


def settings_of_worker() -> str:
    from cronkeeper.runtime.config import StoreConfig
    from cronkeeper_worker.config import WorkerConfig

    return settings(WorkerConfig, StoreConfig)


def routes() -> str:
    """The HTTP routes, with the role that each takes, and whether for all namespaces."""
    from cronkeeper_api.routing import Access, Reach
    from cronkeeper_api.views import all_routes

    rows = [
        (
            f"`{route.method} {route.path}`",
            f"{route.access.value}{', all namespaces' if route.reach is Reach.FLEET else ''}",
            ", ".join(f"`{param.name}`" for param in route.params),
            route.summary,
        )
        for route in all_routes(metrics=Access.VIEWER)
    ]
    return table(("route", "takes", "parameters", "does"), rows)


def problems() -> str:
    """The kinds of problems that the API answers with."""
    from cronkeeper_api.problems import KINDS

    return table(
        ("`type`", "status", "title", "what to do"),
        ((f"`/problems/{kind.name}`", str(kind.status), kind.title, kind.help) for kind in KINDS.values()),
    )


def metrics() -> str:
    """The metrics of all services."""
    from prometheus_client import CollectorRegistry

    from cronkeeper.runtime.metrics import ManagerMetrics, WorkerMetrics
    from cronkeeper_api.metrics import ApiMetrics

    worker, manager = CollectorRegistry(), CollectorRegistry()
    WorkerMetrics(worker)
    ManagerMetrics(manager)
    rows = []
    for service, registry in (("worker", worker), ("manager", manager), ("api", ApiMetrics().registry)):
        for collector in list(registry._collector_to_names):
            found: Any = collector
            name = found._name + ("_total" if found._type == "counter" else "")
            rows.append((service, f"`{name}`", ", ".join(found._labelnames), found._documentation))
    return table(("service", "metric", "labels", "meaning"), rows)


@dataclass(frozen=True, order=True)
class Said:
    """One log line that the code can write."""

    event: str
    service: str
    level: str
    sentence: str


def events() -> str:
    """The log lines that carry an event, from the source itself."""
    seen = sorted({line for path in _modules() for line in _said_in(path)})
    rows = ((f"`{line.event}`", line.level, line.service, line.sentence) for line in seen)
    return table(("event", "level", "from", "sentence"), rows)


def _modules() -> list[Path]:
    return sorted(path for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/**/*.py"))


def _said_in(path: Path) -> Iterator[Said]:
    tree = ast.parse(path.read_text())
    service = path.relative_to(ROOT).parts[0]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _LEVELS:
            continue
        extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
        value = _event_value(extra)
        if value is None:
            continue
        level = {"exception": "ERROR"}.get(node.func.attr, node.func.attr.upper())
        for event, sentence in _words(value, tree).items():
            yield Said(event, service, level, _sentence(node.args[0]) or sentence)


def _event_value(extra: ast.expr | None) -> ast.expr | None:
    if isinstance(extra, ast.Dict):
        for key, value in zip(extra.keys, extra.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "event":
                return value
    return None


def _words(value: ast.expr, tree: ast.AST) -> dict[str, str]:
    """Return the words that an expression may be, with the sentence that belongs to each, where that is known.

    For a variable: every dotted word that the module hands to a call, with the sentence that it hands along.
    """
    if isinstance(value, ast.Constant):
        return {str(value.value): ""}
    if isinstance(value, ast.IfExp):
        return {**_words(value.body, tree), **_words(value.orelse, tree)}
    found = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            for word in texts:
                if _EVENT_WORD.fullmatch(word):
                    found[word] = next((text for text in texts if " " in text), "")
    return found


def _sentence(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def decisions() -> str:
    """The decision records, by number."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        words = re.sub(r"^\d+[.:] ", "", title)
        lines.append(f"- [{int(path.name[:4])}. {words[:1].upper()}{words[1:]}]({path.name})\n")
    return "".join(lines)


def benches() -> str:
    """The programs that measure."""
    found = sorted((ROOT / "bench").glob("*.py"))
    told = [(path, (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]) for path in found]
    return table(("program", "measures"), ((f"`bench/{path.name}`", " ".join(words.split())) for path, words in told))


GENERATORS: dict[str, Callable[[], str]] = {
    "transitions": transitions,
    "settings-all": settings_of_all,
    "settings-stores": settings_of_stores,
    "settings-api": settings_of_api,
    "settings-manager": settings_of_manager,
    "settings-worker": settings_of_worker,
    "routes": routes,
    "problems": problems,
    "metrics": metrics,
    "events": events,
    "decisions": decisions,
    "benches": benches,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
