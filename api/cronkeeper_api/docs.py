"""The API for people: one page of plain HTML, made of the OpenAPI document. No script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #8881; padding: .75rem; overflow-x: auto; border-radius: .3rem; }
code { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }
h3 code { font-size: 1.05em; }
.role { font-size: .85em; opacity: .75; }
:root { color-scheme: light dark; }
"""
#: Nothing but our own style sheet, named by its content.
POLICY = (
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def page_of(document: dict[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        _start(),
        _contents(operations),
        *(_operation(path, method, operation, document) for path, method, operation in operations),
        _problems(document["x-problems"]),
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _start() -> str:
    command = (
        'curl -X POST $CRONKEEPER_URL/jobs -H "Authorization: Bearer $CRONKEEPER_TOKEN" \\\n'
        "     -H 'Content-Type: application/json' \\\n"
        '     -d \'{"executable": "ls -la", "schedule": "5 * * * *", "type": "command"}\''
    )
    return f"<h2>A first job</h2><pre><code>{escape(command)}</code></pre>"


def _contents(operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></a></td>'
        f"<td>{escape(operation['summary'])}</td><td>{escape(operation['x-role'])}</td></tr>"
        for path, method, operation in operations
    )
    return f"<h2>Paths</h2><table><tr><th>path</th><th>does</th><th>takes</th></tr>{rows}</table>"


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    head = (
        f'<h3 id="{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></h3>'
        f"<p>{escape(operation['summary'])}. {escape(operation['description'])}</p>"
    )
    return head + _parameters(operation) + _body(operation, document) + _answers(operation)


def _parameters(operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{escape(item['in'])}</td>"
        f"<td>{escape(item.get('description', ''))}</td><td>{escape(_default(item['schema']))}</td></tr>"
        for item in operation["parameters"]
    )
    return f"<table><tr><th>parameter</th><th>in</th><th></th><th></th></tr>{rows}</table>" if rows else ""


def _default(schema: dict[str, Any]) -> str:
    told = [f"default {json.dumps(schema['default'])}"] if "default" in schema else []
    told += [f"one of {', '.join(schema['enum'])}"] if "enum" in schema else []
    return ", ".join(told)


def _body(operation: dict[str, Any], document: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    content = body["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' (required)' if field in schema.get('required', ()) else ''}</td>"
        f"<td>{escape(str(item.get('description', '')))}</td><td>{escape(_default_of(item))}</td></tr>"
        for field, item in schema.get("properties", {}).items()
    )
    example = escape(json.dumps(content["example"]))
    return f"<p>Body:</p><pre><code>{example}</code></pre>" + (f"<table>{rows}</table>" if rows else "")


def _default_of(item: dict[str, Any]) -> str:
    return f"default {json.dumps(item['default'])}" if "default" in item else ""


def _answers(operation: dict[str, Any]) -> str:
    rows = []
    for status, answer in operation["responses"].items():
        example = ""
        if int(status) < 400:
            for content in answer.get("content", {}).values():
                shown = content["example"]
                text = shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False)
                example = f"<pre><code>{escape(text)}</code></pre>"
        rows.append(f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}{example}</td></tr>")
    return f"<table><tr><th>status</th><th></th></tr>{''.join(rows)}</table>"


def _problems(kinds: list[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr id="{escape(kind["type"])}"><td><code>{escape(kind["type"])}</code></td><td>{kind["status"]}</td>'
        f"<td>{escape(kind['title'])}. {escape(kind['help'])}</td></tr>"
        for kind in kinds
    )
    return f"<h2>Problems</h2><table><tr><th>type</th><th>status</th><th></th></tr>{rows}</table>"
