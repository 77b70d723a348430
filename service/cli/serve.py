"""``tailrace serve``: every setting is a flag, and nothing of the service is imported before it runs."""

import os
import sys
from collections.abc import Iterator
from shutil import get_terminal_size
from textwrap import wrap

import click as plain_click
import rich_click as click

TABLE_COLUMNS_MIN = 120  # in fewer, and without a terminal, a table would cut the names of settings
INDENT = " " * 6


class Serve(click.RichCommand):
    """A command whose flags are the settings; they are read only when the command is asked for."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return a flag per setting: its unit, its default, what happens when it is full."""
        from service.ops.settings import SETTINGS

        if not self.params:
            self.params = [
                click.Option(
                    [setting.flag],
                    metavar=setting.unit.upper(),
                    help=f"{setting.help} [{setting.env}; default: {setting.default or 'none'}]",
                )
                for setting in SETTINGS
            ]
        return super().get_params(ctx)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help: a table where there is room for one, else lines; no setting's name is cut."""
        columns = get_terminal_size().columns
        if columns >= TABLE_COLUMNS_MIN:
            return super().get_help(ctx)
        formatter = plain_click.HelpFormatter(width=columns)
        plain_click.Command.format_usage(self, ctx, formatter)
        plain_click.Command.format_help_text(self, ctx, formatter)
        return "\n".join([formatter.getvalue(), "Options:", *self._option_lines(ctx, columns)])

    def _option_lines(self, ctx: click.Context, columns: int) -> Iterator[str]:
        for option in self.get_params(ctx):
            names, said = option.get_help_record(ctx) or ("", "")
            said, bracket, setting = said.partition(" [")
            yield f"  {names}"
            yield from wrap(
                said, columns, initial_indent=INDENT, subsequent_indent=INDENT,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            if bracket:
                yield f"{INDENT}[{setting}"


@click.command(cls=Serve)
def serve(**flags: str | None) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    A flag wins over its environment variable.
    """
    from service.errors import InvalidInput
    from service.ops.settings import Settings

    try:
        settings = Settings.load(os.environ, **flags)
    except InvalidInput as error:
        lines = [f"  {fault.pointer}: {fault.message}" for fault in error.faults]
        click.echo("\n".join([f"tailrace: {error.detail}", *lines]), err=True)
        sys.exit(2)
    from service import app

    sys.exit(app.serve(settings))
