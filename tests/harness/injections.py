"""Texts that mean something to somebody: shells, crontabs, templates, terminals, headers; and every place to put them.

The places come from the models of requests, so that a new field is one of them without anybody thinking of it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

#: In every text below, and in nothing else.
MARK = "zqx"

#: Each with a word that is found again wherever it should not be.
TEXTS: dict[str, str] = {
    "a line end": f"{MARK}\n* * * * * root sh",
    "CRLF and a header": f"{MARK}\r\nX-{MARK}: y\r\n\r\nbody",
    "a carriage return": f"{MARK}\rroot",
    "NUL": f"{MARK}\x00root",
    "a percent sign": f"{MARK}%root%s%n%x%p",
    "quotes": f"{MARK}'\"`\\",
    "a shell's words": f"{MARK};$(id)|`id`&&id>/tmp/x #",
    "a template": f"{MARK}{{{{1337*1337}}}}${{1337*1337}}<%=1337*1337%>#{{1337*1337}}",
    "a format string": f"{MARK}{{0.__class__.__mro__}}{{}}{{0}}",
    "a terminal's orders": f"{MARK}\x1b[2J\x1b]0;root\x07\x9b31m",
    "SQL": f"{MARK}' OR 1=1; DROP TABLE jobs; -- ",
    "markup": f"{MARK}<script>alert(1)</script><img src=x onerror=alert(1)>",
    "JSON in JSON": f'{MARK}", "type": "script", "x": "',
    "a path": f"../../../../etc/{MARK}",
    "a path from the root": f"/etc/cron.d/{MARK}",
    "blanks around it": f" {MARK}\t",
    "right to left": f"{MARK}\u202egnp.sh\u202c\u2066x\u2069",
    "no width": f"{MARK}\u200b\u200d\ufeff\u2060",
    "letters that look alike": f"{MARK}\u0430dmin\u03bf\uff52oot",
    "half a character": f"{MARK}\ud800",
    "the other half": f"{MARK}\udfff\ud800",
    "four bytes": f"{MARK}\U0001f600\U0010ffff",
    "marks upon marks": MARK + "e" + "\u0301\u0489" * 50,
    "line ends that are none": f"{MARK}\u2028x\u2029y\x85z\x0bv\x0cf",
    "no characters": f"{MARK}\ufffe\uffff\ufdd0",
    "digits of another script": f"{MARK}\u0661\u0662\u00b2\u2460",
    "a letter that grows": f"{MARK}\u0130\u00df\ufb03",
    "a thousand": MARK + "A" * 1000,
    "ten thousand": MARK + "A" * 10_000,
}


def places(model: type[BaseModel]) -> list[tuple[str | int, ...]]:
    """Return the path of every text in a request: values, members of lists, and names of maps (as `KEY`)."""
    schema = model.model_json_schema()
    return list(dict.fromkeys(_walk(schema, schema.get("$defs", {}), ())))


#: Stands in a path for the name of an entry of a map.
KEY = "\0key"


def _walk(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    if "$ref" in schema:
        yield from _walk(definitions[schema["$ref"].rpartition("/")[2]], definitions, path)
    for option in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _walk(option, definitions, path)
    if schema.get("type") == "string" or "enum" in schema or "const" in schema:
        yield path
    if "items" in schema:
        yield from _walk(schema["items"], definitions, (*path, 0))
    for name, field in schema.get("properties", {}).items():
        yield from _walk(field, definitions, (*path, name))
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        yield (*path, KEY)
        yield from _walk(more, definitions, (*path, "k"))


def put(base: Any, path: tuple[str | int, ...], text: str) -> Any:
    """Return a copy of `base` with the text at the path; what is missing on the way is made."""
    if not path:
        return text
    here, rest = path[0], path[1:]
    if here == KEY:
        return {text: "x"}
    if isinstance(here, int):
        return [put(None, rest, text)]
    found = copy.deepcopy(base) if isinstance(base, dict) else {}
    found[here] = put(found.get(here), rest, text)
    return found
