"""``tailrace doctor``: looks at everything that the service stands on, and at the service if one runs."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from service.cli.serving import Serving
    from service.ops.doctor import Finding
    from service.ops.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--db", metavar="FILE", help="The log, if TAILRACE_DB does not say it.")
@click.option("--url", help="Where clients call the service: through the proxy, if there is one.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
def doctor(db: str | None, url: str | None, *, as_json: bool) -> None:
    """Say what is wrong with the set-up, and how to mend it; change nothing.

    Run it as the service's user, with the service's environment. If a service runs on the log, its own
    settings are taken where the system lets us see them. For --url: TAILRACE_PROXY_PASSWORD=NAME:PASSWORD is
    for a proxy that asks for one, TAILRACE_KEY for what only a user sees. Exits 1 if anything fails.
    """
    findings = list(_findings({} if db is None else {"db": db}, url))
    failed = any(finding.status == "fail" for finding in findings)
    if as_json:
        import msgspec

        click.echo(json.dumps({"ok": not failed, "findings": msgspec.to_builtins(findings)}))
    else:
        for finding in findings:
            click.echo(_line(finding))
    sys.exit(1 if failed else 0)


def _line(finding: "Finding") -> str:
    status = click.style(f"{finding.status:<4}", fg=COLOURS[finding.status])
    remedy = f" — {finding.remedy}" if finding.remedy else ""
    return f"{status}  {finding.check}: {finding.said}{remedy}"


def _findings(flags: dict[str, str], url: str | None) -> Iterator["Finding"]:
    from service.cli.serving import Serving
    from service.ops import doctor, machine

    settings, _ = doctor.settings_given(os.environ, flags)
    environ: Mapping[str, str] = os.environ
    try:
        serving = Serving.of(settings.db)
    except OSError as error:
        serving = None
        yield doctor.fail("files", f"{settings.db}.lock: {error.strerror}", "run this as the service's user")
    if serving is not None and (theirs := serving.environ()) is not None:
        environ, flags = theirs, serving.flags() | {"db": str(settings.db)}
        yield doctor.ok("settings", f"those of process {serving.pid}, which serves the log")
    settings, findings = doctor.settings_given(environ, flags)
    yield from findings
    yield from doctor.addresses(settings)
    yield from doctor.files(settings.db)
    yield doctor.sqlite()
    yield _containment(settings)
    yield machine.open_files(settings, None if serving is None else serving.open_files())
    yield machine.connections()
    newest, of_service = _at_rest(settings) if serving is None else _in_service(settings, serving)
    yield from machine.clock(newest)
    yield from machine.disk(settings)
    yield from of_service
    if url is not None:
        yield from _through(url, settings)


def _containment(settings: "Settings") -> "Finding":
    from service.ops.doctor import fail, ok, warn
    from service.steps.containment import Containment

    if not settings.commands:
        return ok("commands", "none may run")
    containment = Containment()
    try:
        kind = containment.start()
    except OSError as error:
        return fail(
            "commands",
            f"none can be started: {error}",
            "look at the limits on processes (TasksMax, ulimit -u)",
        )
    finally:
        asyncio.run(containment.close())
    if kind == "process group":
        said = (
            "a command may leave descendants behind: the kernel offers neither pid namespaces nor a subreaper"
        )
        return warn("commands", said, "CAP_SYS_ADMIN, or /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)")
    return ok("commands", f"contained by a {kind}")


def _at_rest(settings: "Settings") -> tuple[datetime | None, list["Finding"]]:
    """Look at the log that nobody serves, and whether somebody else has its port."""
    from service.errors import LogError
    from service.log.lock import at_rest
    from service.log.verify import newest
    from service.ops.doctor import fail, ok

    findings = [ok("service", "none runs on this log")]
    last = None
    try:
        if settings.db.exists():
            with at_rest(settings.db):
                last = newest(settings.db)
    except LogError as error:
        findings.append(fail("log", str(error), "tailrace verify says more; restore a backup"))
    except OSError as error:
        findings.append(fail("log", f"{settings.db}: {error.strerror}", "run this as the service's user"))
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host or "127.0.0.1", settings.port))
        except OSError as error:
            said = f"{settings.host or '127.0.0.1'}, port {settings.port}: {error.strerror or error}"
            findings.append(
                fail("service", said, "end what has it (ss -tlnp), or give another address or port")
            )
    return _time_of(last), findings


def _in_service(settings: "Settings", serving: "Serving") -> tuple[datetime | None, list["Finding"]]:
    """Ask the service that has the log."""
    from service.cli.asked import of_service
    from service.client.http import Address

    ports = serving.ports() or [settings.port]
    port = settings.port if settings.port in ports else ports[0]
    host = settings.host if settings.host not in {"", "0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
    scheme = "http" if settings.tls_cert is None else "https"
    address = Address(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    findings, newest = asyncio.run(of_service(address))
    return newest, findings


def _through(url: str, settings: "Settings") -> list["Finding"]:
    from service.cli.asked import PASSWORD, of_proxy
    from service.client.http import Address
    from service.ops.doctor import fail

    try:
        address = Address(url)
    except ValueError as error:
        return [fail("proxy", str(error), "--url https://tailrace.example.org")]
    password, key = os.environ.get(PASSWORD), os.environ.get("TAILRACE_KEY")
    return asyncio.run(of_proxy(address, settings, password=password, key=key))


def _time_of(event: bytes | None) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads(event or b"{}")["timestamp"])
    except (ValueError, KeyError, TypeError):
        return None
