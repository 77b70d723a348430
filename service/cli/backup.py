"""``tailrace backup`` and ``tailrace verify``: a copy of the log, and whether a log's file is whole.

A live log is read through the service that serves it; only files that nobody serves are opened here.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import rich_click as click

from service.cli.log_file import LogFile
from service.cli.partial import partial
from service.cli.runs import client_verb
from service.client import Backoff, Client, Unreachable

if TYPE_CHECKING:
    from service.log.copy import Copy
    from service.log.verify import Verdict

NDJSON = "application/x-ndjson"
FORMAT = 1
EVENT, ENDING = b'{"stream"', b'{"end"'  # how the lines begin
NOT_NOW = 503
PROGRESS_INTERVAL_S = 0.5
TERMINATED = 143
NICE = 10  # on the service's own machine, the service goes first
DAMAGED = 1
REFUSED = 2

Progress = Callable[[int, int], None]


@click.command()
@click.argument("file", type=LogFile())
@click.option("--force", is_flag=True, help="Replace FILE if it exists; it stays until the backup is whole.")
@click.option(
    "--db", type=LogFile(), metavar="LOG",
    help="Copy this log, which no service has open, instead of asking a service.",
)  # fmt: skip
@client_verb
async def backup(file: Path, *, force: bool, db: Path | None, client: Client, output: str) -> None:
    """Copy the log of a running service into FILE, verify it, and say what it holds.

    Every event that was acknowledged before the backup began is in it, and of each run what came first. FILE
    is a log like any other: `tailrace serve --db FILE` goes on from it. A lost connection is taken up again.
    """
    from service.errors import LogError
    from service.log.copy import Copy

    signal.signal(signal.SIGTERM, _terminated)
    os.nice(NICE)
    began = time.monotonic()
    try:
        with _no_log_of_others(file), partial(file, force=force) as path:
            copy = Copy(path)
            try:
                with _Shown("copied") as show:
                    await (_of_service(copy, client, show) if db is None else _of_file(copy, db, show))
                copy.finish()
            finally:
                copy.close()
            seconds = time.monotonic() - began
            verdict = _verified(path)
            size = path.stat().st_size
    except (LogError, OSError) as error:
        _fail(error)
    if output == "json":
        told = {"file": str(file), "bytes": size, **_facts(verdict), "seconds": round(seconds, 3)}
        click.echo(json.dumps(told))
        return
    rate = f"{size / 2**20:,.1f} MiB in {seconds:.1f} s ({size / 2**20 / max(seconds, 0.001):,.1f} MiB/s)"
    click.echo(f"{file}: {_contents(verdict)}; {rate}; verified")


@contextmanager
def _no_log_of_others(file: Path) -> Iterator[None]:
    """Keep services off ``file``, which may be replaced. Raises LogInUse, FileExistsError."""
    from service.log.lock import at_rest

    with at_rest(file):
        if Path(f"{file}-wal").exists():
            raise FileExistsError(
                f"{file}-wal belongs to a log of that name: take another, or move both away"
            )
        yield


async def _of_service(copy: "Copy", client: Client, show: Progress) -> None:
    """Fill ``copy`` from a service, over as many connections as that takes. Raises ClientError, LogError."""
    backoff = Backoff()
    attempt = 0
    ends: list[int] = []  # where the backup ends, once the service has said it
    while not ends or copy.position < ends[0]:
        begun = copy.flush()
        try:
            await _one_connection(copy, client, show, ends)
        except Unreachable as lost:
            attempt = 1 if copy.flush() > begun else attempt + 1
            if not ends or attempt > backoff.attempts:
                raise
            pause_s = backoff.pause_s(attempt)
            click.echo(f"tailrace: {lost}; again in {pause_s:.1f} s", err=True)
            await backoff.sleep(pause_s)


async def _one_connection(copy: "Copy", client: Client, show: Progress, ends: list[int]) -> None:
    """Add what comes over one connection. Raises Unreachable unless it is all that there is."""
    from service.log.copy import recorded_of

    query = {"cursor": copy.position or None, "upto": ends[0] if ends else None}
    async for lines in client.download("POST", "/backups", accept=NDJSON, query=query):
        copy.add(recorded_of(line) for line in lines if line.startswith(EVENT))
        with client.understood():
            for line in (lines[0], lines[-1]):
                if not line.startswith(EVENT) and (end := _told(line)) is not None:
                    ends[:] = [end]
            end_position = ends[0]
        if not lines[-1].startswith(ENDING):
            show(copy.position, end_position)
        elif copy.flush() == end_position:
            return
    raise Unreachable("the backup breaks off before its end")


def _told(line: bytes) -> int | None:
    """Return where the backup will end, as its first line says, None for its last.

    Raises Unreachable where the service cannot go on at present, NotWhole where it never will.
    """
    from service.log.copy import NotWhole

    document = json.loads(line)
    if problem := document.get("problem"):
        raise (Unreachable if problem["status"] == NOT_NOW else NotWhole)(problem["detail"])
    if "end" in document:
        return None
    if document["format"] != FORMAT:
        raise NotWhole(f"the service speaks format {document['format']} of backups, not {FORMAT}")
    return int(document["lastCursor"])


async def _of_file(copy: "Copy", db: Path, show: Progress) -> None:
    """Fill ``copy`` from a log that no service has open. Raises LogError."""
    from service.errors import LogError
    from service.log.lock import LogInUse, at_rest
    from service.log.verify import pages

    try:
        with at_rest(db):
            for events, head in pages(db):
                copy.add(events)
                show(copy.position, head)
    except LogInUse as error:
        raise LogError(f"{error}: ask its service, without --db") from None


@click.command()
@click.argument("file", type=LogFile(), envvar="TAILRACE_DB", default="tailrace.db")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(file: Path, output: str) -> None:
    """Look at every event of a log that no service has open: a backup, or the log of a stopped service.

    Checks SQLite's pages, the checksum and the place of every event, the chain of every run. Changes nothing.
    Without FILE: TAILRACE_DB, or tailrace.db. Exits 1 when something is wrong, and says what.
    """
    from service.errors import LogError
    from service.log.lock import at_rest
    from service.log.verify import verify as looked_at

    try:
        with at_rest(file), _Shown("checked") as show:
            verdict = looked_at(file, show)
    except (LogError, OSError) as error:
        _fail(error, REFUSED)
    if output == "json":
        faults = {
            "whole": not verdict.faults,
            "faults": list(verdict.faults),
            "faultsCount": verdict.faults_count,
        }
        click.echo(json.dumps({"file": str(file), **_facts(verdict), **faults}))
    else:
        told = f"{verdict.faults_count} faults" if verdict.faults else "whole"
        click.echo(
            "\n".join([f"{file}: {_contents(verdict)}; {told}", *(f"  {each}" for each in verdict.faults)])
        )
    sys.exit(DAMAGED if verdict.faults else 0)


def _verified(path: Path) -> "Verdict":
    """Look at the finished copy as anybody would. Raises NotWhole."""
    from service.log.copy import NotWhole
    from service.log.verify import verify as looked_at

    with _Shown("checked") as show:
        verdict = looked_at(path, show)
    if verdict.faults:
        raise NotWhole(f"the copy is damaged, look at this disk: {verdict.faults[0]}")
    return verdict


def _facts(verdict: "Verdict") -> dict[str, Any]:
    return {
        "events": verdict.events, "streams": verdict.streams, "position": verdict.position,
        "newest": _timestamp(verdict),
    }  # fmt: skip


def _contents(verdict: "Verdict") -> str:
    newest = f", the last of {_timestamp(verdict)}" if verdict.newest else ""
    held = f"{verdict.events:,} events in {verdict.streams:,} streams"
    return f"{held}, up to position {verdict.position:,}{newest}"


def _timestamp(verdict: "Verdict") -> str | None:
    try:
        return str(json.loads(verdict.newest)["timestamp"])
    except (ValueError, KeyError, TypeError):
        return None


class _Shown:
    """How far the work has come, on a terminal only."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = 0.0
        self._shown = False

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now >= self._next:
            self._next = now + PROGRESS_INTERVAL_S
            self._shown = True
            click.echo(f"\r\x1b[K{done:,} of {of:,} events {self._what}", err=True, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _fail(error: Exception, code: int = DAMAGED) -> NoReturn:
    click.echo(f"tailrace: {error}", err=True)
    sys.exit(code)


def _terminated(*_: object) -> NoReturn:
    sys.exit(TERMINATED)  # and on the way remove what is unfinished
