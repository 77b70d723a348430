"""The step that runs a program: an argument vector, never a shell; each line it writes is recorded live."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from service.domain.expressions import as_text
from service.domain.fields import child, kind_of
from service.errors import Fault
from service.steps import Attempt, Outcome
from service.steps.config import Config
from service.steps.containment import CannotStart, Containing, Containment
from service.steps.documents import bad_config, failed
from service.steps.output import perform

ARGUMENTS_BYTES_MAX = 1024 * 1024
PATH_CHARS_MAX = 4096
INHERITED_ENV = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEYS = ("command", "cmd", "args", "env", "cwd", "stdin", "timeout", "expectExit")


class Invocation(Struct, frozen=True):
    """What a rendered config asks for."""

    argv: list[str]
    env: dict[str, str]
    cwd: str | None
    stdin: str
    timeout_ms: int | None
    expect_exit: tuple[str, ...]


class Command:
    """``{command | cmd, args?, env?, cwd?, stdin?, timeout?, expectExit?}``."""

    type = "command"
    holds_slot = True

    def __init__(
        self,
        *,
        commands: frozenset[str],
        output_bytes_max: int,
        wanted: Containing = "pid namespace",
        files_max: int = 0,
    ) -> None:
        # An entry with a slash is a place, one without is a name that the service's own PATH explains.
        self._names = frozenset(entry for entry in commands if "/" not in entry)
        self._paths = frozenset(str(Path(entry).absolute()) for entry in commands - self._names)
        self._output_bytes_max = output_bytes_max
        self._containment = Containment(wanted, files_max)

    def containment(self) -> Containing:
        """Return what keeps commands from outliving their attempt; blocks ≤ 0.1 s the first time.

        Raises OSError when no command can be started at all.
        """
        return self._containment.start()

    def check(self, config: Mapping[str, Any], pointer: str) -> list[Fault]:
        """Return every fault of an unrendered config."""
        reading = Config(config, pointer, templates=True)
        _read(reading)
        return reading.faults

    def repeatable(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002  the protocol's
        """Nobody knows what half a command has done."""
        return False

    async def run(self, attempt: Attempt) -> Outcome:
        """Run the command to its end. It never outlives the attempt, nor does anything it started."""
        reading = Config(attempt.config)
        asked = _read(reading)
        if reading.faults:
            return bad_config(reading.faults)
        env = _environment(asked.env, attempt)
        path = _resolve(asked.argv[0], env["PATH"], asked.cwd)
        if not self._allows(asked.argv[0], path):
            return failed("command_not_allowed", f"{asked.argv[0]!r} is not among the allowed commands.")
        if path is None:
            return failed("command_not_found", f"There is no executable {asked.argv[0]!r}.")
        try:
            command = await self._containment.run(path, asked.argv, env, cwd=asked.cwd, stdin=asked.stdin)
        except CannotStart as error:
            return _not_started(asked, error)
        except OSError as error:
            return failed("command_not_started", f"No process could be started: {error.strerror or error}.")
        return await perform(
            command,
            attempt.emit,
            expect_exit=asked.expect_exit or ("0",),
            output_bytes_max=self._output_bytes_max,
            timeout_ms=asked.timeout_ms,
        )

    async def close(self) -> None:
        """End the process that guards commands."""
        await self._containment.close()

    def _allows(self, name: str, path: str | None) -> bool:
        if "*" in self._names or (path is None and name in self._names):
            return True
        if path is None:
            return False
        places = {path, os.path.realpath(path)}
        by_name = {_which(allowed, os.environ.get("PATH", DEFAULT_PATH)) for allowed in self._names}
        return not places.isdisjoint(self._paths | by_name)


def _read(reading: Config) -> Invocation:
    argv = _argv(reading)
    env = reading.texts("env")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            reading.faults.append(Fault(child(reading.at("env"), name), "must hold neither = nor NUL"))
    cwd = reading.text("cwd", chars_max=PATH_CHARS_MAX)
    if cwd is not None and (not cwd or "\0" in cwd):
        reading.fault("cwd", "must be a path")
    stdin = reading.raw.get("stdin")
    reading.refuse_unknown(_KEYS)
    return Invocation(
        argv=argv,
        env=env,
        cwd=cwd,
        stdin="" if stdin is None else as_text(stdin),
        timeout_ms=reading.duration("timeout", least_ms=1),
        expect_exit=reading.codes("expectExit", least=0, most=255),
    )


def _argv(reading: Config) -> list[str]:
    key = reading.one_of("command", "cmd")
    written, more = reading.raw.get(key), reading.raw.get("args")
    argv = written if isinstance(written, list) else [written]
    if reading.has(key) and not reading.is_open(reading.config[key]):
        if not argv or not isinstance(argv[0], str):
            reading.fault(
                key, f"must name an executable, or be a list that begins with one, not {kind_of(written)}"
            )
        elif not argv[0]:
            reading.fault(key, "must name an executable")
    if more is not None and not isinstance(more, list):
        reading.fault("args", f"must be a list, not {kind_of(more)}")
    texts = [as_text(item) for item in argv]
    arguments = [as_text(item) for item in more] if isinstance(more, list) else []
    for name, items in ((key, texts), ("args", arguments)):
        if any("\0" in item for item in items):
            reading.fault(name, "must not hold a NUL character")
    if sum(len(item.encode("utf-8", "replace")) for item in texts + arguments) > ARGUMENTS_BYTES_MAX:
        reading.fault("args", f"must be at most {ARGUMENTS_BYTES_MAX} bytes together; use stdin")
    return texts + arguments


def _environment(env: Mapping[str, str], attempt: Attempt) -> dict[str, str]:
    """Return the command's environment: nothing of the service's own but the usual few."""
    inherited = {name: os.environ[name] for name in INHERITED_ENV if name in os.environ}
    key = {"TAILRACE_IDEMPOTENCY_KEY": attempt.idempotency_key}
    trace = {} if "TRACEPARENT" in env else {name.upper(): text for name, text in attempt.trace.items()}
    return {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8"} | inherited | trace | dict(env) | key


def _resolve(name: str, path: str, cwd: str | None) -> str | None:
    """Return the absolute path of the executable that ``name`` means to the command, None if none."""
    if "/" in name:
        name = str(Path(cwd or ".", name).absolute())
    return _which(name, path)


def _which(name: str, path: str) -> str | None:
    found = shutil.which(name, path=path)
    return None if found is None else str(Path(found).absolute())


def _not_started(asked: Invocation, error: CannotStart) -> Outcome:
    reason = os.strerror(error.number)
    match error.stage:
        case "cwd":
            return failed("bad_cwd", f"The command cannot start in {asked.cwd!r}: {reason}.")
        case "exec":
            return failed("command_not_started", f"{asked.argv[0]!r} cannot be executed: {reason}.")
        case _:
            return failed("command_not_started", f"No process could be contained: {reason}.")
