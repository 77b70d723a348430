"""The settings: one frozen struct, read once from flags and ``TAILRACE_*``, every bad value named at once."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from service.errors import Fault, InvalidInput

PREFIX = "TAILRACE_"
SECRET_PREFIX = "TAILRACE_SECRET_"  # noqa: S105  the prefix of a variable's name, not a secret
OTHER_NAMES = ("TAILRACE_URL", "TAILRACE_IDEMPOTENCY_KEY")  # read by the client verbs, set for commands
MIB = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True):
    """Everything ``serve`` can be told. The defaults are the service on loopback, as the guide uses it."""

    host: str = ""
    port: int = 8080
    db: Path = Path("tailrace.db")
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    commands: tuple[str, ...] = ("*",)
    http_allow: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    max_runs: int = 1_000
    max_parallel_steps: int = 64
    max_parallel_steps_per_run: int = 16
    max_steps: int = 1_000
    max_events_per_run: int = 1_000_000
    max_output_bytes: int = 64 * MIB
    max_body_bytes: int = MIB
    max_watchers: int = 10_000
    max_watchers_per_run: int = 5_000
    min_free_bytes: int = 64 * MIB
    ping_interval_s: float = 54.0
    pong_timeout_s: float = 60.0
    stall_timeout_s: float = 60.0
    drain_timeout_s: float = 30.0
    diagnostics: str = "auto"
    diagnostics_level: str = "info"

    @classmethod
    def load(cls, environ: Mapping[str, str], **flags: object) -> "Settings":
        """Return the settings from flags (None: not given), else from ``environ``, else the defaults.

        Raises InvalidInput with one fault per bad value, its variable as the pointer.
        """
        values: dict[str, Any] = {}
        faults: list[Fault] = []
        for setting in SETTINGS:
            text = flags.pop(setting.name, None)
            text = environ.get(setting.env) if text is None else text
            if text is None:
                continue
            try:
                values[setting.name] = setting.parse(str(text))
            except ValueError as error:
                faults.append(Fault(setting.env, f"{str(text)!r} is refused: {error}"))
        assert not flags, f"unknown flags: {', '.join(flags)}"
        if "env" in values:
            values["env"] = {name: environ[name] for name in values["env"] if name in environ}
        values["secrets"] = _secrets(environ, faults)
        settings = cls(**values)
        if not settings.on_loopback and "commands" not in values:
            said = "name the executables that workflows may run, '*' for any, empty for none: "
            faults.append(Fault("TAILRACE_COMMANDS", f"{said}it has no default on {settings.host}"))
        if faults:
            raise InvalidInput(faults, detail="The settings are not valid.")
        return settings

    def __repr__(self) -> str:  # the generated one would print the secrets
        return f"Settings(host={self.host!r}, port={self.port}, db={str(self.db)!r})"

    @property
    def on_loopback(self) -> bool:
        """Say whether nobody but this machine can reach the service."""
        return is_loopback(self.host)


class Setting(Struct, frozen=True):
    """One line of ``tailrace serve --help``: what a setting is called, and what happens at its limit."""

    name: str
    unit: str
    help: str
    parse: Callable[[str], Any]

    @property
    def env(self) -> str:
        """Return the environment variable that sets it."""
        return PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """Return the flag of ``tailrace serve`` that sets it, and wins over the environment."""
        return "--" + self.name.replace("_", "-")

    @property
    def default(self) -> str:
        """Return the default as a person would type it."""
        if self.name == "host":
            return "127.0.0.1 and ::1"
        value = getattr(_DEFAULTS, self.name)
        if isinstance(value, float):
            return f"{value:g}"
        return ",".join(value) if isinstance(value, tuple | dict) else str(value)


def is_loopback(host: str) -> bool:
    """Say whether ``host`` (empty: the default bind) is a loopback address or name."""
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unknown_names(environ: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Yield each TAILRACE_ variable that means nothing here, with the one that was probably meant."""
    known = {setting.name: setting.env for setting in SETTINGS}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(SECRET_PREFIX):
            continue
        if name not in known.values() and name not in OTHER_NAMES:
            near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), known, n=1)
            yield name, known[near[0]] if near else None


# Parsers: each returns the value or raises ValueError saying what would be right.


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return int(text)

    return parse


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not least <= float(text) <= most:
            raise ValueError(f"give seconds from {least:g} to {most:g}")
        return float(text)

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"give one of {', '.join(words)}")
        return text

    return parse


def _list(pattern: str, right: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in text.split(",") if item.strip())
        for item in items:
            if not re.fullmatch(pattern, item):
                raise ValueError(f"{item!r} is not {right}")
        return items

    return parse


def _host(text: str) -> str:
    if not re.fullmatch(_HOST, text):
        raise ValueError("give an address or a host name, such as 127.0.0.1, ::1 or 0.0.0.0")
    return text.strip("[]").lower()


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("give the path of a file")
    return Path(text)


def _origins(text: str) -> tuple[str, ...]:
    return tuple(item.lower() for item in _list(_ORIGIN, "an origin such as https://example.org")(text))


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(item.lower() for item in _list(_AUTHORITY, "a host such as example.org or [::1]:8080")(text))


def _reachable(text: str) -> tuple[str, ...]:
    items = _list(r"[^\s/]+(/[0-9]{1,3})?", "a host, an address or a network such as 10.0.0.0/8")(text)
    for item in items:
        if "/" in item:
            ipaddress.ip_network(item)  # its ValueError says what is wrong
    return items


def _env_names(text: str) -> tuple[str, ...]:
    names = _list(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")(text)
    for name in names:
        if name.startswith(SECRET_PREFIX):
            raise ValueError(f"{name} is a secret: workflows read it as secrets.{name[len(SECRET_PREFIX) :]}")
    return names


def _secrets(environ: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    found = {}
    for name in sorted(environ):
        if name.startswith(SECRET_PREFIX):
            if not re.fullmatch(r"[A-Za-z0-9_]+", name[len(SECRET_PREFIX) :]):
                faults.append(Fault(name, "is refused: a secret's name consists of letters, digits and _"))
            found[name[len(SECRET_PREFIX) :]] = environ[name]
    return found


_HOST = r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?"
_AUTHORITY = r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
_ORIGIN = rf"[a-zA-Z][a-zA-Z0-9+.-]*://{_AUTHORITY}|null"
_DEFAULTS = Settings()

SETTINGS: tuple[Setting, ...] = (
    Setting("host", "address", "Where to listen; outside loopback TAILRACE_COMMANDS must be given.", _host),
    Setting("port", "port", "The port to listen on; 0 takes a free one and prints it.", _whole(0, 65_535)),
    Setting("db", "file", "The log; FILE.views and FILE.segments* beside it can be deleted at any time.",
            _path),
    Setting("hosts", "names", "Further Host names the service answers to; others get 421.", _hosts),
    Setting("origins", "origins", "Web origins besides our own that may call us; others get 403.", _origins),
    Setting("commands", "names", "Executables that command steps may run; * is any, on loopback only the "
            "default. Another one fails its step.", _list(r"[^\s,]+", "an executable's name or path")),
    Setting("http_allow", "hosts", "Hosts and networks outside the global internet that http steps may "
            "reach; others fail the step.", _reachable),
    Setting("env", "names", "Environment variables that workflows may read as env.NAME; they are "
            "recorded. Secrets: set TAILRACE_SECRET_NAME and write {{secrets.NAME}}.", _env_names),
    Setting("max_runs", "runs", "Runs at work at once; further ones stay queued.", _whole(1, 100_000)),
    Setting("max_parallel_steps", "steps", "Attempts at once in all runs; further ones wait.",
            _whole(1, 10_000)),
    Setting("max_parallel_steps_per_run", "steps", "Attempts at once in one run; further ones wait.",
            _whole(1, 10_000)),
    Setting("max_steps", "steps", "Steps of one definition; a larger one is refused with 400.",
            _whole(1, 10_000)),
    Setting("max_events_per_run", "events", "Events of one run; at the limit the run fails, with every step "
            "ended.", _whole(1_000, 100_000_000)),
    Setting("max_output_bytes", "bytes", "Output of one attempt; the rest is read, dropped and counted in "
            "one warn event.", _whole(1_024, 2**40)),
    Setting("max_body_bytes", "bytes", "A request's body; a larger one gets 413.", _whole(1_024, 64 * MIB)),
    Setting("max_watchers", "streams", "Open streams; further ones get 503.", _whole(1, 1_000_000)),
    Setting("max_watchers_per_run", "streams", "Open streams of one run; further ones get 429.",
            _whole(1, 1_000_000)),
    Setting("min_free_bytes", "bytes", "Free space beside the log; below it execute answers 503.",
            _whole(0, 2**50)),
    Setting("ping_interval_s", "seconds", "Time between two PINGs to a watcher.", _seconds(0.05, 3_600)),
    Setting("pong_timeout_s", "seconds", "Time for the PONG; then the stream closes 1011.",
            _seconds(0.05, 3_600)),
    Setting("stall_timeout_s", "seconds", "Time a watcher may take nothing; then it is closed 4408.",
            _seconds(0.05, 3_600)),
    Setting("drain_timeout_s", "seconds", "Time that running steps get at SIGTERM; the rest is taken up at "
            "the next start.", _seconds(0, 3_600)),
    Setting("diagnostics", "format", "Lines on stderr: json, console, or auto (console on a terminal).",
            _one_of("auto", "json", "console")),
    Setting("diagnostics_level", "level", "The least level that is printed.",
            _one_of("debug", "info", "warning", "error")),
)  # fmt: skip
