"""The verbs that are clients of a running service."""

import asyncio
import json
import math
import os
import re
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO

import rich_click as click

from service.cli.text import event_line, run_lines, run_table, status_text, workflow_table
from service.client import Client, segment

STATUS_CODES = {"success": 0, "failed": 1, "cancelled": 3}
PAGE_ROWS = 1_000
KEY_VARIABLE = "TAILRACE_KEY"

Verb = Callable[..., None]
Work = Callable[..., Coroutine[Any, Any, int | None]]


class Address(click.ParamType[Client]):
    """The address of a service, as a client for it."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Client:
        """Return a client. Fails for what is no address."""
        try:
            return value if isinstance(value, Client) else Client(value, key=os.environ.get(KEY_VARIABLE))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Variable(click.ParamType[tuple[str, Any]]):
    """``name=value``; the value is taken as JSON when it is JSON, else as text."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Return the name and the value."""
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not name=value", param, ctx)
        try:
            return name, _json(text)
        except OverflowError as error:
            self.fail(f"{name}: {error}", param, ctx)
        except ValueError:
            return name, text


class Id(click.ParamType[str]):
    """The id of a run or a workflow, of which the service judges all but that it is there."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id. Fails for an empty one: what it names would be something else."""
        return str(value) or self.fail("an id has at least one character", param, ctx)


def _json(text: str | bytes) -> Any:
    """Return what ``text`` says. Raises ValueError if it is not JSON, OverflowError if it says too much."""
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise OverflowError("is nested too deeply") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise OverflowError(f"{text} is too large a number")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads no more than 4300 digits
        raise OverflowError(f"a number of {len(text)} digits is too large") from None


def client_verb(work: Work) -> Verb:
    """Return ``work`` as click calls it, with the options of all these verbs; it returns the exit code."""

    @wraps(work)
    def verb(**given: Any) -> None:
        sys.exit(asyncio.run(work(**given)))

    server = click.option(
        "--server", "client", type=Address(), envvar="TAILRACE_URL", show_envvar=True,
        default="http://127.0.0.1:8080", show_default=True,
        help=f"The service. A key that it asks for is read from {KEY_VARIABLE}: others can see arguments.",
    )  # fmt: skip
    output = click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="text for people, json for programs: documents and events exactly as the service sent them.",
    )  # fmt: skip
    return server(output(verb))


after_option = click.option(
    "--after", type=click.IntRange(min=0), metavar="SEQ", help="Only events after this one."
)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--var", "variables", type=Variable(), multiple=True, help="A variable of the run; JSON or text."
)
@click.option("--watch", "watching", is_flag=True, help="Show the run's events; exit as the run ended.")
@client_verb
async def run(
    file: BinaryIO, variables: tuple[tuple[str, Any], ...], *, watching: bool, client: Client, output: str
) -> int | None:
    """Create or update the workflow in FILE (JSON; - is stdin), execute it, and print the run's id.

    FILE holds a definition, or {workflowId, name, description, definition}; without a workflowId the
    file's name is taken.
    """
    workflow = _workflow_of(file)
    saved = await client.save(workflow)
    accepted = await client.execute(str(saved["workflowId"]), dict(variables))
    if watching:
        click.echo(f"run {accepted['runId']}", err=True)
        return await _watch(client, accepted["runId"], None, output)
    click.echo(json.dumps(accepted) if output == "json" else accepted["runId"])
    return None


def _workflow_of(file: BinaryIO) -> dict[str, Any]:
    try:
        document = _json(file.read())
    except OverflowError as error:
        raise click.BadParameter(f"{file.name}: {error}", param_hint="FILE") from error
    except ValueError as error:
        raise click.BadParameter(f"{file.name} is not JSON: {error}", param_hint="FILE") from error
    if not isinstance(document, dict):
        raise click.BadParameter(f"{file.name} does not hold a JSON object", param_hint="FILE")
    workflow = document if "definition" in document else {"definition": document}
    if workflow.get("workflowId") is None:
        stem = "" if file is sys.stdin.buffer else Path(file.name).stem
        if not re.search(r"[A-Za-z0-9]", stem):
            raise click.BadParameter("a workflow from stdin needs a workflowId", param_hint="FILE")
        workflow = workflow | {"workflowId": re.sub(r"[^A-Za-z0-9_-]", "-", stem)[:128]}
    return workflow


@click.command()
@click.argument("run_id", metavar="RUN", type=Id())
@after_option
@client_verb
async def watch(run_id: str, after: int | None, client: Client, output: str) -> int:
    """Show a run's events from the first on, then as they happen; exit as the run ended.

    A lost connection is taken up again where it ended. At the end, how many of how many events came.
    """
    await _look_for(client, run_id, after)
    return await _watch(client, run_id, after, output)


async def _look_for(client: Client, run_id: str, after: int | None) -> None:
    """Ask for the run once: a person who mistyped something should know at once, not after all attempts."""
    query = {"after": after, "limit": 1}
    client.document(
        await client.request("GET", f"/workflows/runs/{segment(run_id)}/events", query=query), "data"
    )


async def _watch(client: Client, run_id: str, after: int | None, output: str) -> int:
    watch = client.watch(run_id, after=after, notice=_say)
    async for event in watch:
        click.echo(event.data if output == "json" else event_line(event))
    click.echo(f"run {status_text(str(watch.status))}: {watch.summary}", err=True)
    return STATUS_CODES.get(str(watch.status), 1)


def _say(text: str) -> None:
    click.echo(f"tailrace: {text}", err=True)


@click.command()
@click.argument("what", type=click.Choice(["runs", "workflows"]), default="runs")
@click.option("--workflow", "workflow_id", metavar="ID", type=Id(), help="Only runs of this workflow.")
@click.option("--status", metavar="STATUS", help="Only runs in this status.")
@click.option("--limit", type=click.IntRange(1, PAGE_ROWS), default=50, show_default=True, help="Rows.")
@client_verb
async def ls(
    what: str, workflow_id: str | None, status: str | None, limit: int, client: Client, output: str
) -> None:
    """List runs, the newest first, or workflows."""
    if what == "workflows":
        if workflow_id is not None or status is not None:
            raise click.UsageError("--workflow and --status select runs, not workflows")
        path = "/workflows"
    else:
        path = "/workflows/runs"
    query = {"workflowId": workflow_id, "status": status, "limit": limit}
    answer = await client.request("GET", path, query=query)
    page = client.document(answer, "data", "nextCursor")
    if output == "json":
        click.echo(answer)
        return
    with client.understood():
        lines = run_table(page["data"]) if what == "runs" else workflow_table(page["data"])
    click.echo("\n".join(lines))
    if page["nextCursor"] is not None:
        way = "--limit shows them"
        if limit == PAGE_ROWS:
            way = f"GET /api/v2{path} goes on with cursor={page['nextCursor']}"
        click.echo(f"There are more; {way}.", err=True)


@click.command()
@click.argument("run_id", metavar="RUN", type=Id())
@client_verb
async def show(run_id: str, client: Client, output: str) -> None:
    """Show a run as it is now: its status, its variables, its steps."""
    path = f"/workflows/runs/{segment(run_id)}"
    answer = await client.request("GET", path)
    run = client.document(answer, "runId", "status")
    if output == "json":
        click.echo(answer)
        return
    steps = await client.get(f"{path}/steps")
    with client.understood():
        lines = run_lines(run, steps["data"])
    click.echo("\n".join(lines))


@click.command()
@click.argument("run_id", metavar="RUN", type=Id())
@after_option
@client_verb
async def history(run_id: str, after: int | None, client: Client, output: str) -> None:
    """Print the events of a run that have happened so far, and do not wait for more."""
    await _look_for(client, run_id, after)
    async for event in client.watch(run_id, after=after, live=False, notice=_say):
        click.echo(event.data if output == "json" else event_line(event))


@click.command()
@click.argument("run_id", metavar="RUN", type=Id())
@click.option("--reason", help="Why; it is recorded.")
@client_verb
async def cancel(run_id: str, reason: str | None, client: Client, output: str) -> None:
    """Ask for a run to be cancelled; its events tell when it is."""
    answer = await client.cancel(run_id, reason=reason)
    click.echo(
        json.dumps(answer) if output == "json" else f"asked; the run is {status_text(answer['status'])}"
    )
