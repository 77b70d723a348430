"""What can be wrong with how the service is set up, one finding each: settings, files, SQLite.

A check looks at one thing and changes nothing. What the machine offers is in machine.py.
"""

import os
import sqlite3
import ssl
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from service.errors import InvalidInput
from service.ops.settings import DB, PREFIX, Settings, unknown_names
from service.ops.values import SECRET_PREFIX, log_file

SQLITE_SAFE = (3, 51, 3)
WAL_BYTES_MAX = 256 * 1024 * 1024  # the service empties it at 8 MiB, unless somebody reads for long

Verdict = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, omit_defaults=True):
    """What was looked at, what was found, and, unless it is ok, how to mend it."""

    status: Verdict
    check: str
    said: str
    remedy: str | None = None


def ok(check: str, said: str) -> Finding:
    """Return a finding that all is well."""
    return Finding("ok", check, said)


def warn(check: str, said: str, remedy: str) -> Finding:
    """Return a finding that the service can live with."""
    return Finding("warn", check, said, remedy)


def fail(check: str, said: str, remedy: str) -> Finding:
    """Return a finding that keeps the service from starting, or from keeping its promises."""
    return Finding("fail", check, said, remedy)


def settings_given(environ: Mapping[str, str], flags: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """Return the settings, without those that are not valid, and what is to be said of them."""
    findings = []
    faulty: set[str] = set()
    try:
        settings = Settings.load(environ, **flags)
    except InvalidInput as error:
        faulty = {fault.pointer for fault in error.faults}
        for fault in error.faults:
            remedy = "set it right or leave it out; tailrace serve --help lists every setting"
            findings.append(fail("settings", f"{fault.pointer}: {fault.message}", remedy))
        kept = {name: value for name, value in environ.items() if name not in faulty}
        flags = {name: value for name, value in flags.items() if PREFIX + name.upper() not in faulty}
        try:
            settings = Settings.load({"TAILRACE_COMMANDS": "", **kept}, **flags)
        except InvalidInput:  # what one setting says, another one lacks
            settings = Settings(db=log_file(flags.get("db") or kept.get("TAILRACE_DB") or DB))
    for name, meant in unknown_names(environ):
        remedy = f"{meant} may be meant" if meant else "tailrace serve --help lists every setting"
        findings.append(warn("settings", f"{name} is no setting of this version and has no effect", remedy))
    given = [name for name in environ if name.startswith(PREFIX) and not name.startswith(SECRET_PREFIX)]
    if not faulty:
        secrets = f", {len(settings.secrets)} secrets" if settings.secrets else ""
        findings.insert(0, ok("settings", f"{len(given) + len(flags)} given, all valid{secrets}"))
    if not settings.exposed and settings.commands == ("*",):
        findings.append(ok("settings", "commands: any, which is the default on loopback alone"))
    elif settings.commands == ("*",):
        where = "proxies let others in" if settings.on_loopback else f"{settings.host} is not loopback"
        said = f"any program may be run by whoever may create workflows, and {where}"
        findings.append(warn("settings", said, "name the executables in TAILRACE_COMMANDS"))
    return settings, findings


def addresses(settings: Settings) -> Iterator[Finding]:
    """Look at by which names clients reach the service, and at its certificate if it speaks TLS itself."""
    if not settings.hosts and settings.exposed:
        said = "clients come by a name that the service does not know, and get 421"
        yield warn("names", said, "TAILRACE_HOSTS=the names that clients use")
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # an SSLError is one
        said = f"TAILRACE_TLS_CERT and TAILRACE_TLS_KEY cannot be used: {error}"
        yield fail("tls", said, "two PEM files that belong together, readable by the service's user")
    else:
        yield ok("tls", f"{settings.tls_cert} and its key belong together")


def files(db: Path) -> Iterator[Finding]:
    """Look at the log's directory and files: whether they can be written, and by whom."""
    try:
        yield from _files(db)
    except OSError as error:
        yield fail("files", f"{error.filename}: {error.strerror}", "run this as the service's user")


def _files(db: Path) -> Iterator[Finding]:
    directory = db.absolute().parent
    if not directory.is_dir():
        yield fail(
            "files", f"{directory} is not there", f"mkdir -m 700 -p {directory}, for the service's user"
        )
        return
    owner = f"uid {os.geteuid()}"
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        yield fail("files", f"{directory} cannot be written by {owner}", f"chown it to {owner}, chmod 700")
        return
    found = directory.stat()
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        yield fail(
            "files",
            f"others may put files in the place of the log's in {directory}",
            f"chmod 700 {directory}",
        )
    count = 0
    for path in sorted(directory.glob(f"{_literal(db.name)}*")):
        if path.name == db.name or path.name.startswith((f"{db.name}-", f"{db.name}.")):
            count += 1
            yield from _file(path, owner)
    if count and db.exists():
        yield ok("files", f"{db}, {db.stat().st_size / 2**20:,.1f} MiB")
    elif not count:
        yield ok("files", f"{db} is not there yet; the first start makes it")
    else:
        said = f"{db} is not there, but files that were beside it are"
        yield warn("files", said, "look for the log before you start: without it a new, empty one is made")
    wal = Path(f"{db}-wal")
    if wal.exists() and wal.stat().st_size > WAL_BYTES_MAX:
        said = f"{wal} has grown to {wal.stat().st_size / 2**20:,.0f} MiB"
        yield warn("files", said, f"something reads the file and does not end: fuser {db}")


def _file(path: Path, owner: str) -> Iterator[Finding]:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return  # it belonged to a service that has just ended
    if path.is_dir():
        return
    if not stat.S_ISREG(found.st_mode):
        yield fail(
            "files", f"{path} is no plain file", "move the log itself there; SQLite needs its real place"
        )
    elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        yield fail("files", f"{path} cannot be written by {owner}", f"chown it to {owner}")
    elif found.st_uid != os.geteuid() and os.geteuid() != 0:
        yield warn("files", f"{path} belongs to uid {found.st_uid}", f"chown it to {owner}")
    elif found.st_mode & 0o077:
        yield warn("files", f"others may read {path} (mode {found.st_mode & 0o777:o})", f"chmod 600 {path}")


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def sqlite() -> Finding:
    """Look at the version of SQLite that this Python has."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= SQLITE_SAFE:
        return ok("sqlite", version)
    said = (
        f"{version} can, rarely, damage a log that two connections write or checkpoint at once (until 3.51.3)"
    )
    return warn(
        "sqlite", said, "let no other program open the log: Tailrace itself writes through one connection"
    )
