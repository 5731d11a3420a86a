"""`cronkeeper`: one command for people, scripts and services."""

from __future__ import annotations

import click

from cronkeeper import __version__
from cronkeeper_cli import (
    admin,
    audit,
    calendars,
    declare,
    edit,
    forecast,
    imports,
    jobs,
    keys,
    namespaces,
    offline,
    runs,
    secrets,
    services,
    why,
)
from cronkeeper_cli.session import make_session

_EPILOG = """\b
Examples:
  cronkeeper standalone
  cronkeeper create --schedule '5 * * * *' --command 'ls -la' --name listing
  cronkeeper run listing --wait
  cronkeeper list -o json

\b
Exit status: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 timed out.
The API: CRONKEEPER_URL and CRONKEEPER_TOKEN, or url and token in ~/.config/cronkeeper/config.toml (mode 0600)."""


class _Sections(click.Group):
    """A group whose help lists the commands by topic."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own arguments, handed through
        self.sections: list[tuple[str, list[str]]] = []

    def add_section(self, title: str, commands: list[click.Command]) -> None:
        names = []
        for command in commands:
            self.add_command(command)
            names.append(str(command.name))
        self.sections.append((title, names))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for _, names in self.sections for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self.sections:
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(90)) for name in names])


@click.group(cls=_Sections, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", metavar="URL", help="The API's base URL (instead of CRONKEEPER_URL).")
@click.version_option(__version__, prog_name="cronkeeper")
@click.pass_context
def cli(ctx: click.Context, url: str | None) -> None:
    """Cronkeeper: cron for a fleet."""
    ctx.obj = make_session(url)


cli.add_section("Services", services.COMMANDS)
cli.add_section(
    "Jobs",
    [
        *edit.COMMANDS,
        *jobs.COMMANDS,
        runs.run,
        *declare.COMMANDS,
        *imports.COMMANDS,
        *calendars.COMMANDS,
        *offline.COMMANDS,
    ],
)
cli.add_section("Runs", [*runs.COMMANDS, *why.COMMANDS])
cli.add_section(
    "Admin",
    [*admin.COMMANDS, *namespaces.COMMANDS, *secrets.COMMANDS, *keys.COMMANDS, *audit.COMMANDS, *forecast.COMMANDS],
)


def main() -> None:
    """The entry point: run the command and exit with its status."""
    cli(prog_name="cronkeeper")


if __name__ == "__main__":
    main()
