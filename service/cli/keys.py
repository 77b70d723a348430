"""``tailrace keys``: create, list and revoke the keys of a service. It need not run, nor be restarted."""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import rich_click as click

from service.cli.log_file import LogFile
from service.cli.text import table

if TYPE_CHECKING:
    from service.access import KeyFile

T = TypeVar("T")

_UNITS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}

db_option = click.option(
    "--db", type=LogFile(), envvar="TAILRACE_DB", show_envvar=True, default="tailrace.db",
    show_default=True, help="The log; the keys are in FILE.keys beside it.",
)  # fmt: skip
output_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")


class Lifetime(click.ParamType[int]):
    """A time such as 12h, 90d or 4w, as seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        text = str(value)
        if not re.fullmatch(r"[1-9][0-9]{0,5}[hdw]", text):
            self.fail(f"{text!r} is not a time such as 12h, 90d or 4w", param, ctx)
        return int(text[:-1]) * _UNITS[text[-1]]


@click.group()
def keys() -> None:
    """Say who may use a service: create, list and revoke its keys.

    With the first key a service asks everybody for one. What changes holds at once, for open streams within
    15 seconds; the service need not be restarted. Only a hash of each key is kept.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--rights", default="read,run", show_default=True,
    help="Some of: read (definitions, and one's own runs), run (execute, cancel), write (definitions), "
    "metrics, admin (all of it, and everybody's runs).",
)  # fmt: skip
@click.option("--expires", type=Lifetime(), help="After this time the key is worth nothing: 12h, 90d, 4w.")
@db_option
def create(name: str, rights: str, expires: int | None, db: Path) -> None:
    """Create a key for NAME and print it, for the only time.

    NAME stands in the log behind what the key does, and owns the runs it starts; several keys may have the
    same name.
    """
    wanted = tuple(right.strip() for right in rights.split(",") if right.strip())
    now = int(time.time())
    expires_at = None if expires is None else now + expires
    key, text = _changed(db, lambda file: file.create(name, wanted, now, expires_at=expires_at))
    until = "" if key.expires_at is None else f", until {_day(key.expires_at)}"
    click.echo(f"key {key.id} for {key.name}: {', '.join(key.rights)}{until}", err=True)
    if not db.exists():
        click.echo(f"There is no log {db} yet: the service that is to know this key has to use it.", err=True)
    click.echo(text)


@keys.command(name="list")
@output_option
@db_option
def list_(output: str, db: Path) -> None:
    """List all keys, also those that are worth nothing any more."""
    book = _changed(db, lambda file: file.read())
    now = time.time()
    rows = [(key, key.state(now)) for key in book.keys.values()] if book else []
    if output == "json":
        shown = [
            {"id": key.id, "name": key.name, "rights": key.rights, "state": state,
             "createdAt": key.created_at, "expiresAt": key.expires_at, "revokedAt": key.revoked_at}
            for key, state in rows
        ]  # fmt: skip
        click.echo(json.dumps(shown))
        return
    lines = [
        (key.id, key.name, ",".join(key.rights), state, _day(key.created_at), _day(key.expires_at))
        for key, state in rows
    ]
    for line in table(("ID", "NAME", "RIGHTS", "STATE", "CREATED", "EXPIRES"), lines):
        click.echo(line)


@keys.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@db_option
def revoke(ids: tuple[str, ...], db: Path) -> None:
    """Revoke keys by their ids: all of them, or none if one is unknown."""
    for key in _changed(db, lambda file: file.revoke(ids, int(time.time()))):
        click.echo(f"key {key.id} of {key.name} is revoked")


def _changed(db: Path, change: "Callable[[KeyFile], T]") -> T:
    from service.access import KeyFile
    from service.errors import InvalidInput

    try:
        return change(KeyFile(db.with_name(f"{db.name}.keys")))
    except InvalidInput as error:
        lines = [f"  {fault.pointer}: {fault.message}" for fault in error.faults]
        click.echo("\n".join([f"tailrace: {error.detail}", *lines]), err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"tailrace: {error}", err=True)
        sys.exit(1)


def _day(seconds: int | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) + "Z"
