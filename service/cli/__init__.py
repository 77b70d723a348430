"""The command line: ``serve`` runs the service; ``keys``, ``verify``, ``doctor``, ``health`` look after it.

The other verbs are clients of its public API, and import nothing of the service, so that they start at once.
"""

import sys
from typing import Any

import rich_click as click

from service.cli.backup import backup, verify
from service.cli.doctor import doctor
from service.cli.health import health
from service.cli.keys import keys
from service.cli.runs import cancel, history, ls, run, show, watch
from service.cli.serve import serve
from service.client import ClientError, Refused

REFUSED = 2  # also what click answers to a command that is not understood
UNREACHABLE = 4
INTERRUPTED = 130


class Tailrace(click.RichGroup):
    """The group of all verbs; what a service refused becomes one line per fault, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that was asked for."""
        try:
            return super().invoke(ctx)
        except Refused as error:
            faults = (f"  {pointer or '/'}: {message}" for pointer, message in error.faults)
            _complain(str(error) + _later(error), *faults)
            ctx.exit(REFUSED)
        except ClientError as error:
            _complain(str(error) + _later(error))
            ctx.exit(UNREACHABLE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _later(error: ClientError) -> str:
    return "" if error.retry_after_s is None else f" Try again in {error.retry_after_s:g} s."


def _complain(line: str, *more: str) -> None:
    click.echo("\n".join((f"tailrace: {line}", *more)), err=True)


@click.group(cls=Tailrace, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailrace")
def tailrace() -> None:
    """Run workflows, and watch any run from its first event on.

    Exit codes: 0 done, or the run succeeded; 1 the run failed, serve could not start, or what backup,
    verify, doctor, health or keys looked at is not as it should be; 2 the command is wrong, or the service
    refused it; 3 the run was cancelled; 4 no service answers (health: 1), or it cannot work, or what it sent
    is not whole; 130 interrupted.
    """


for command in (serve, run, watch, ls, show, history, cancel, keys, backup, verify, doctor, health):
    tailrace.add_command(command)


def main() -> None:
    """Run the command line; never returns."""
    sys.exit(tailrace(prog_name="tailrace"))
