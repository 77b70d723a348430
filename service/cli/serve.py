"""``tailrace serve``: every setting is a flag, and nothing of the service is imported before it runs."""

import os
import sys

import rich_click as click


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
