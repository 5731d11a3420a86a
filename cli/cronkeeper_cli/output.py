"""What a command prints: a table for people, JSON and YAML for programs, names for the next command."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

FORMATS = ("table", "json", "yaml", "name")
#: What drives a terminal or ends a line; and what turns the direction of writing, so that a cell reads as another.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its title, and how a cell is taken from an item."""

    title: str
    cell: Callable[[Item], Any]


@dataclass(frozen=True, slots=True)
class View:
    """How one kind of thing is shown; `name` returns what other commands take as its argument."""

    columns: tuple[Column, ...]
    name: Callable[[Item], str]


def key(title: str, *path: str) -> Column:
    """Return a column that shows one value, found by its keys; `-` where it is missing."""

    def cell(item: Item) -> Any:
        value: Any = item
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return Column(title, cell)


def cell_text(value: Any) -> str:
    """Return a cell's text on one line. Control characters are shown, not sent to the terminal."""
    if isinstance(value, Mapping):
        value = [f"{name}={item}" for name, item in value.items() if item is not None]
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ",".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)
    return _CONTROL.sub(_spelt, text)


def _spelt(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, two spaces apart, without blanks at line ends."""
    widths = [max(len(line[index]) for line in [titles, *rows]) for index in range(len(titles))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in [titles, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def render(items: Sequence[Item], view: View, form: str) -> str:
    """Return the items in one of FORMATS; JSON and YAML are always a list here."""
    match form:
        case "json":
            return json.dumps(list(items), indent=2, ensure_ascii=False)
        case "yaml":
            return yaml_text(list(items))
        case "name":
            return "\n".join(view.name(item) for item in items)
        case _:
            return plain_table([column.title for column in view.columns], table_rows(items, view))


def table_rows(items: Sequence[Item], view: View) -> list[list[str]]:
    """Return the cells of a table."""
    return [[cell_text(column.cell(item)) for column in view.columns] for item in items]


def yaml_text(value: Any) -> str:
    """Return YAML with keys in the order given and a block for texts of several lines, no newline at the end."""
    import yaml

    return yaml.dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")


def show_items(items: Sequence[Item], view: View, form: str, *, nothing: str = "") -> None:
    """Print items. With an empty table, `nothing` goes to standard error, so that a pipe gets nothing."""
    if form == "table" and not items:
        click.echo(nothing or "nothing found", err=True)
    elif form == "table" and sys.stdout.isatty():
        _show_rich(items, view)
    elif items or form != "name":
        click.echo(render(items, view, form))


def show_item(item: Item, view: View, form: str) -> None:
    """Print one item: its fields one to a line as a table, or the value itself as JSON or YAML."""
    match form:
        case "json":
            click.echo(json.dumps(item, indent=2, ensure_ascii=False))
        case "yaml":
            click.echo(yaml_text(item))
        case "name":
            click.echo(view.name(item))
        case _:
            click.echo(render_fields(item))


def render_fields(item: Item) -> str:
    """Return `field  value` lines for what is set, aligned."""
    shown = [(str(name), text) for name, value in item.items() if (text := cell_text(value)) != "-"]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)


def _show_rich(items: Sequence[Item], view: View) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in view.columns:
        table.add_column(column.title, overflow="fold")
    for row in table_rows(items, view):
        # Text, not str: a job's name must not be read as markup.
        table.add_row(*(Text(text, style=_STYLES.get(text, "")) for text in row))
    Console().print(table)


_STYLES = {
    **dict.fromkeys(("succeeded", "up", "scheduled"), "green"),
    **dict.fromkeys(("failed", "timed_out", "lost", "error"), "red"),
    **dict.fromkeys(("running", "claimed", "pending", "paused", "cordoned", "draining", "skipped"), "yellow"),
}


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return Dumper
