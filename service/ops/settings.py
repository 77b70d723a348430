"""The settings: one frozen struct, read once from flags and ``TAILRACE_*``, every bad value named at once."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from service.errors import Fault, InvalidInput
from service.ops import values
from service.ops.values import SECRET_PREFIX

PREFIX = "TAILRACE_"
# Read by the client verbs, set for commands.
OTHER_NAMES = ("TAILRACE_URL", "TAILRACE_KEY", "TAILRACE_IDEMPOTENCY_KEY", "TAILRACE_PROXY_PASSWORD")
DB = "tailrace.db"
MIB = 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True):
    """Everything ``serve`` can be told. The defaults are the service on loopback, as the guide uses it."""

    host: str = ""
    port: int = 8080
    db: Path = Path(DB)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: tuple[str, ...] = ()
    jwt_key_file: Path | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_leeway_s: float = 10.0
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
    max_watchers_per_user: int = 2_000
    max_watchers_per_ip: int = 1_000
    max_connections_per_ip: int = 1_000
    max_stream_starts_per_minute: int = 3_000
    max_executes_per_minute: int = 6_000
    max_check_seconds_per_minute: int = 6
    max_unfinished_runs: int = 100_000
    max_unfinished_runs_per_user: int = 20_000
    max_events_per_s_per_run: int = 200_000
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
        given: dict[str, Any] = {}
        faults: list[Fault] = []
        for setting in SETTINGS:
            text = flags.pop(setting.name, None)
            text = environ.get(setting.env) if text is None else text
            if text is None:
                continue
            try:
                given[setting.name] = setting.parse(str(text))
            except ValueError as error:
                faults.append(Fault(setting.env, f"{str(text)!r} is refused: {error}"))
        assert not flags, f"unknown flags: {', '.join(flags)}"
        if "env" in given:
            given["env"] = {name: environ[name] for name in given["env"] if name in environ}
        given["secrets"] = _secrets(environ, faults)
        given.setdefault("db", values.log_file(DB))  # there may be a link under that name
        settings = cls(**given)
        faults += [*_halves(settings), *_exposure(settings, commands_given="commands" in given)]
        if faults:
            raise InvalidInput(faults, detail="The settings are not valid.")
        return settings

    def __repr__(self) -> str:  # the generated one would print the secrets
        return f"Settings(host={self.host!r}, port={self.port}, db={str(self.db)!r})"

    @property
    def keys(self) -> Path:
        """Return the file of API keys."""
        return self.db.with_name(f"{self.db.name}.keys")

    @property
    def on_loopback(self) -> bool:
        """Say whether nobody but this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def exposed(self) -> bool:
        """Say whether others than this machine's users can reach the service, be it through a proxy here."""
        return not self.on_loopback or bool(self.behind_proxy)


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
        if value is None:
            return ""
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


def _halves(settings: Settings) -> Iterator[Fault]:
    """Yield a fault for each setting that says nothing without another one."""
    for names in (("tls_cert", "tls_key"), ("jwt_key_file", "jwt_issuer", "jwt_audience")):
        missing = [PREFIX + name.upper() for name in names if getattr(settings, name) is None]
        if missing and len(missing) < len(names):
            others = ", ".join(PREFIX + name.upper() for name in names)
            yield from (Fault(name, f"is missing: {others} belong together") for name in missing)


def _exposure(settings: Settings, *, commands_given: bool) -> Iterator[Fault]:
    """Yield what has to be decided before anybody but this machine can reach the service."""
    if not settings.exposed:
        return
    where = f"it has no default {'behind a proxy' if settings.on_loopback else f'on {settings.host}'}"
    if not commands_given:
        said = "name the executables that workflows may run, '*' for any, empty for none: "
        yield Fault("TAILRACE_COMMANDS", said + where)
    try:
        has_keys = settings.keys.exists()
    except OSError as error:
        yield Fault("TAILRACE_DB", f"its keys cannot be looked for: {error.strerror}: {settings.keys}")
        has_keys = True
    if settings.jwt_key_file is None and not has_keys:
        said = (
            f"create a key first: tailrace keys create NAME --db {settings.db} (or set TAILRACE_JWT_KEY_FILE)"
        )
        if settings.on_loopback:
            said += "; a proxy that asks for passwords itself does without TAILRACE_BEHIND_PROXY"
            yield Fault("TAILRACE_BEHIND_PROXY", f"lets nobody in without credentials: {said}")
        else:
            where = f"nobody may use the service on {settings.host} without credentials"
            yield Fault("TAILRACE_HOST", f"{where}; {said}")
    if settings.tls_cert is None and not settings.behind_proxy:
        said = "give it with TAILRACE_TLS_KEY, or name the proxies that speak TLS with TAILRACE_BEHIND_PROXY"
        yield Fault("TAILRACE_TLS_CERT", f"{said}: credentials must not cross a network in clear")


def _secrets(environ: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    found = {}
    for name in sorted(environ):
        if name.startswith(SECRET_PREFIX):
            if not re.fullmatch(r"[A-Za-z0-9_]+", name[len(SECRET_PREFIX) :]):
                faults.append(Fault(name, "is refused: a secret's name consists of letters, digits and _"))
            elif environ[name].encode("utf-8", "ignore").decode() != environ[name]:
                faults.append(Fault(name, "is not text in UTF-8"))
            found[name[len(SECRET_PREFIX) :]] = environ[name]
    return found


_DEFAULTS = Settings()

SETTINGS: tuple[Setting, ...] = (
    Setting("host", "address", "Where to listen; outside loopback only with credentials, TAILRACE_COMMANDS, "
            "and TLS or TAILRACE_BEHIND_PROXY.", values.host),
    Setting("port", "port", "The port to listen on; 0 takes a free one and prints it.",
            values.whole(0, 65_535)),
    Setting("db", "file", "The log; FILE.views and FILE.segments* beside it can be deleted at any time.",
            values.log_file),
    Setting("tls_cert", "file", "Certificate chain (PEM) to speak TLS with; read at start.", values.file),
    Setting("tls_key", "file", "Private key (PEM) of that certificate.", values.file),
    Setting("behind_proxy", "networks", "Proxies whose X-Forwarded-For and -Proto are believed; connections "
            "from elsewhere get 403, save this machine's own.", values.networks),
    Setting("jwt_key_file", "file", "Public key (PEM) or shared secret of the issuer whose tokens are taken, "
            "besides the keys of tailrace keys.", values.file),
    Setting("jwt_issuer", "text", "What their iss must be.", values.words),
    Setting("jwt_audience", "text", "What their aud must hold.", values.words),
    Setting("jwt_leeway_s", "seconds", "How far the issuer's clock may be off.", values.seconds(0, 300)),
    Setting("hosts", "names", "Further Host names the service answers to; others get 421.", values.hosts),
    Setting("origins", "origins", "Web origins besides our own that may call us; others get 403.",
            values.origins),
    Setting("commands", "names", "Executables that command steps may run; * is any, on loopback without a "
            "proxy the default. Another one fails its step.",
            values.listed(r"[^\s,]+", "an executable's name or path")),
    Setting("http_allow", "hosts", "Hosts and networks outside the global internet that http steps may "
            "reach; others fail the step.", values.reachable),
    Setting("env", "names", "Environment variables that workflows may read as env.NAME; they are "
            "recorded. Secrets: set TAILRACE_SECRET_NAME and write {{secrets.NAME}}.", values.env_names),
    Setting("max_runs", "runs", "Runs at work at once, one user's at most nine tenths of them (of ten or "
            "more); further ones stay queued.", values.whole(1, 100_000)),
    Setting("max_parallel_steps", "steps", "Attempts at once in all runs, one user's at most nine "
            "tenths of them (of ten or more); further ones wait.", values.whole(1, 10_000)),
    Setting("max_parallel_steps_per_run", "steps", "Attempts at once in one run; further ones wait.",
            values.whole(1, 10_000)),
    Setting("max_steps", "steps", "Steps of a definition that is sent; a larger one is refused with 400.",
            values.whole(1, 10_000)),
    Setting("max_events_per_run", "events", "Events of one run; at the limit the run fails, with every step "
            "ended.", values.whole(1_000, 100_000_000)),
    Setting("max_output_bytes", "bytes", "Output of one attempt; the rest is read, dropped and counted in "
            "one warn event.", values.whole(1_024, 2**40)),
    Setting("max_body_bytes", "bytes", "A request's body; a larger one gets 413.",
            values.whole(1_024, 64 * MIB)),
    Setting("max_watchers", "streams", "Open streams; further ones get 503.", values.whole(1, 1_000_000)),
    Setting("max_watchers_per_run", "streams", "Open streams of one run; further ones get 429.",
            values.whole(1, 1_000_000)),
    Setting("max_watchers_per_user", "streams", "Open streams of one user, 0 any; further ones get 429.",
            values.whole(0, 1_000_000)),
    Setting("max_watchers_per_ip", "streams", "Open streams of one address (IPv6: of one /64) that is not "
            "this machine's, 0 any; further ones get 429.", values.whole(0, 1_000_000)),
    Setting("max_connections_per_ip", "connections", "Open connections of one such address that are no "
            "WebSockets, 0 any; further ones get 429.", values.whole(0, 1_000_000)),
    Setting("max_stream_starts_per_minute", "streams", "Streams that one user, and one address, begin within "
            "a minute, 0 any; further ones get 429.", values.whole(0, 1_000_000)),
    Setting("max_executes_per_minute", "requests", "Runs that one user starts within a minute, 0 any; "
            "further ones get 429.", values.whole(0, 1_000_000)),
    Setting("max_check_seconds_per_minute", "seconds", "Computing time within a minute to check the "
            "definitions that one user sends, 0 any; further ones get 429.", values.whole(0, 60)),
    Setting("max_unfinished_runs", "runs", "Runs that are queued or at work, 0 any; further ones get 429.",
            values.whole(0, 10_000_000)),
    Setting("max_unfinished_runs_per_user", "runs", "Those of one user, 0 any; further ones get 429.",
            values.whole(0, 10_000_000)),
    Setting("max_events_per_s_per_run", "events", "Events of one run within a second, 0 any; its steps then "
            "wait.", values.whole(0, 10_000_000)),
    Setting("min_free_bytes", "bytes", "Free space beside the log; below it execute answers 503, and so do "
            "new definitions.",
            values.whole(0, 2**50)),
    Setting("ping_interval_s", "seconds", "Time between two PINGs to a watcher.",
            values.seconds(0.05, 3_600)),
    Setting("pong_timeout_s", "seconds", "Time for the PONG; then the stream closes 1011.",
            values.seconds(0.05, 3_600)),
    Setting("stall_timeout_s", "seconds", "Time a watcher may take nothing; then it is closed 4408.",
            values.seconds(0.05, 3_600)),
    Setting("drain_timeout_s", "seconds", "Time that running steps get at SIGTERM; the rest is taken up at "
            "the next start.", values.seconds(0, 3_600)),
    Setting("diagnostics", "format", "Lines on stderr: json, console, or auto (console on a terminal).",
            values.one_of("auto", "json", "console")),
    Setting("diagnostics_level", "level", "The least level that is printed.",
            values.one_of("debug", "info", "warning", "error")),
)  # fmt: skip
