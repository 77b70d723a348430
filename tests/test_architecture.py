"""The rules between rooms, and the sizes: ARCHITECTURE.md in a form that fails.

A rule is a function of a file's place and source that returns what is wrong with it; BROKEN holds a file for
each rule that it must catch. A new arrow between rooms is a decision: it changes ARROWS and ARCHITECTURE.md.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
VERB_LINES_MAX = 60  # a screen
CONCRETE_LOGS = ("service.log.sqlite", "service.log.memory")

# Which rooms a room may import. `app` is the composition root and may know them all.
ARROWS = {
    "__init__": set(),
    "__main__": {"cli"},
    "access": {"errors"},
    "api": {"access", "domain", "errors", "log", "ops", "projection", "repository", "segments", "wire"},
    "cli": {"access", "app", "client", "errors", "log", "ops", "steps"},
    "client": set(),
    "definitions": {"domain"},
    "domain": {"errors"},
    "engine": {"domain", "errors", "log", "repository", "steps"},
    "errors": set(),
    "front": {"access", "api", "errors", "log", "ops", "projection", "repository", "segments"},
    "log": {"errors"},
    "ops": {"errors"},
    "projection": {"domain", "errors", "log"},
    "repository": {"definitions", "domain", "errors", "log"},
    "segments": {"errors", "log", "wire"},
    "server": {"api", "errors", "ops", "wire"},
    "steps": {"domain", "errors"},
    "wire": {"log"},
}

# Who may import what is not ours; msgspec and the standard library are everybody's, save those named here.
LIBRARIES = {
    "ahocorasick_rs": {"engine"},
    "aiohttp": {"steps"},
    "click": {"cli"},
    "cryptography": {"access"},
    "isal": {"log", "segments"},
    "jmespath": {"domain"},
    "jwt": {"access"},
    "litestar": {"api"},
    "migrations": {"log", "projection", "segments"},
    "prometheus_client": {"ops"},
    "rich_click": {"cli"},
    "sqlite3": {"log", "ops", "projection", "segments", "app", "front"},
    "sqlite_utils": {"log", "projection", "segments"},
    "structlog": {
        "access",
        "api",
        "app",
        "engine",
        "front",
        "log",
        "ops",
        "projection",
        "segments",
        "server",
    },
    "subprocess": {"steps"},
    "uuid_utils": {"api"},
    "uvicorn": {"server", "wire"},
    "uvloop": {"app"},
    "websockets": {"client", "wire"},
    "yarl": {"steps"},
}

# The domain does nothing: it sees neither clocks nor dice nor the world.
NOT_IN_DOMAIN = re.compile(
    "asyncio|concurrent|io|logging|multiprocessing|os|pathlib|random|secrets|select|shutil|signal|socket|"
    "subprocess|sys|threading|time|uuid"
)
CLOCKS = {"now", "today", "utcnow", "time", "monotonic", "perf_counter"}
BANNED_NAMES = re.compile(r"(util|common|model|manager|handler|helper)s?")


def _room(place: str) -> str:
    return Path(place).with_suffix("").parts[1]


def _imports(source: str) -> Iterator[str]:
    """Yield every module, and every name of a module, that ``source`` imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def arrows(place: str, source: str) -> Iterator[str]:
    """A room imports only the rooms that it has an arrow to."""
    room = _room(place)
    if room == "app":
        return
    for name in _imports(source):
        if name.startswith("."):
            yield f"imports {name}: say service.… in full"
        elif name.startswith("service."):
            other = name.split(".")[1]
            if other != room and other not in ARROWS[room]:
                yield f"{room} must not import {other} ({name})"


def libraries(place: str, source: str) -> Iterator[str]:
    """A library is known to the rooms that it was chosen for, and to no other."""
    for name in _imports(source):
        top = name.split(".")[0]
        if top == "service":
            continue
        if _room(place) not in LIBRARIES.get(top, {_room(place)}):
            yield f"{top} is not for {_room(place)}"
        elif top not in sys.stdlib_module_names and top not in {*LIBRARIES, "msgspec"}:
            yield f"{top} has no room yet: add it to LIBRARIES"


def one_file_names_a_log(place: str, source: str) -> Iterator[str]:
    """Only app.py names a concrete log."""
    if place != "service/app.py" and _room(place) != "log":
        for name in _imports(source):
            if name.startswith(CONCRETE_LOGS):
                yield f"names a concrete log ({name})"


def domain_does_nothing(place: str, source: str) -> Iterator[str]:
    """The domain is not async and has no clock, no randomness, no I/O."""
    if _room(place) != "domain":
        return
    for name in _imports(source):
        if NOT_IN_DOMAIN.fullmatch(name.split(".")[0]):
            yield f"the domain must not import {name}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"line {node.lineno}: async in the domain"
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in CLOCKS or called in {"open", "print", "input"}:
                yield f"line {node.lineno}: {called}() in the domain"


def docstrings(place: str, source: str) -> Iterator[str]:
    """Every public module and class says what it is; a step of a tagged union says it by its name."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is None:
        yield "the module has no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if "Payload" not in bases:
                yield f"{node.name} has no docstring"


def sizes(place: str, source: str) -> Iterator[str]:
    """A file has at most 400 lines, a function 60."""
    if (lines := source.count("\n")) > FILE_LINES_MAX:
        yield f"{lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES_MAX:
                yield f"{node.name} has {lines} lines"


def names(place: str, source: str) -> Iterator[str]:
    """No file is called by what it is not about."""
    for part in Path(place).with_suffix("").parts:
        if BANNED_NAMES.fullmatch(part):
            yield f"is called {part}"


def words(place: str, source: str) -> Iterator[str]:
    """Nothing of ours is called a manager, a handler, a job …: the house has its own words."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts = re.findall(r"[A-Z]?[a-z0-9]+", node.name)
            if found := {part.lower() for part in parts} & {
                "manager",
                "handler",
                "job",
                "activity",
                "publish",
            }:
                yield f"line {node.lineno}: {node.name} says {', '.join(found)}"


def threads(place: str, source: str) -> Iterator[str]:
    """A thread does not keep its process alive: a test that fails leaves some behind, and CI would never end."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in {"Thread", "threading.Thread"}:
            continue
        if "daemon" not in {keyword.arg for keyword in node.keywords}:
            yield f"line {node.lineno}: a thread that is no daemon"


OF_SERVICE = (arrows, libraries, one_file_names_a_log, domain_does_nothing, docstrings, words)
OF_ALL = (sizes, names, threads)
SERVICE = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "service").rglob("*.py"))
PYTHON = SERVICE + sorted(
    path.relative_to(ROOT).as_posix()
    for room in ("migrations", "scripts", "tests")
    for path in (ROOT / room).rglob("*.py")
)

BROKEN = [
    (arrows, "service/engine/x.py", "from service.api import problems"),
    (arrows, "service/api/x.py", "from service.engine.runner import Runner"),
    (arrows, "service/log/x.py", "import service.domain.events"),
    (arrows, "service/domain/x.py", "def f():\n    from service.log import Log"),
    (arrows, "service/cli/x.py", "from service import repository"),
    (arrows, "service/wire/x.py", "from .. import api"),
    (libraries, "service/engine/x.py", "import aiohttp"),
    (libraries, "service/client/x.py", "from litestar import get"),
    (libraries, "service/api/x.py", "import numpy"),
    (one_file_names_a_log, "service/api/x.py", "from service.log.sqlite import SqliteLog"),
    (one_file_names_a_log, "service/engine/x.py", "from service.log import memory"),
    (domain_does_nothing, "service/domain/x.py", "async def f(): ..."),
    (domain_does_nothing, "service/domain/x.py", "import random"),
    (domain_does_nothing, "service/domain/x.py", "from time import monotonic"),
    (domain_does_nothing, "service/domain/x.py", "import datetime\ndatetime.datetime.now()"),
    (domain_does_nothing, "service/domain/x.py", "open('x')"),
    (docstrings, "service/x.py", "x = 1"),
    (docstrings, "service/x.py", '"""x"""\nclass Public: ...'),
    (sizes, "tests/x.py", "x = 1\n" * 401),
    (sizes, "scripts/x.py", "def f():\n" + "    x = 1\n" * 60),
    (names, "service/api/utils.py", ""),
    (names, "tests/handlers/x.py", ""),
    (threads, "tests/x.py", "from threading import Thread\nThread(target=print).start()"),
    (words, "service/x.py", "class RunManager: ..."),
    (words, "service/x.py", "async def publish_event(): ..."),
]


@pytest.mark.parametrize("rule", OF_SERVICE, ids=lambda rule: rule.__name__)
def test_rule_of_the_service(rule):
    assert _faults(rule, SERVICE) == []


def test_every_arrow_is_taken_and_every_library_used_where_it_may_be():
    taken: dict[str, set[str]] = {room: set() for room in ARROWS}
    used: dict[str, set[str]] = {library: set() for library in LIBRARIES}
    for place in SERVICE:
        room = _room(place)
        for name in _imports((ROOT / place).read_text()):
            top, _, rest = name.partition(".")
            if top == "service" and room in taken:
                taken[room].add(rest.partition(".")[0])
            elif top in used:
                used[top].add(room)
    assert {room: allowed - taken[room] for room, allowed in ARROWS.items() if allowed - taken[room]} == {}
    assert {name: rooms - used[name] for name, rooms in LIBRARIES.items() if rooms - used[name]} == {}


@pytest.mark.parametrize("rule", OF_ALL, ids=lambda rule: rule.__name__)
def test_rule_of_every_file(rule):
    assert _faults(rule, PYTHON) == []


def _faults(rule, places: list[str]) -> list[str]:
    assert len(places) > 20
    sources = ((place, (ROOT / place).read_text()) for place in places)
    return [f"{place}: {fault}" for place, source in sources for fault in rule(place, source)]


@pytest.mark.parametrize(("rule", "place", "source"), BROKEN)
def test_rule_catches(rule, place, source):
    assert list(rule(place, source))


def test_every_room_is_on_the_map():
    rooms = {_room(place) for place in SERVICE} - {"app"}
    assert rooms == set(ARROWS)
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [room for room in rooms if not room.startswith("_") and not re.search(rf"\b{room}\b", text)]
    assert missing == []


def test_a_script_is_a_screen():
    verbs = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert len(verbs) >= 6
    assert [path.name for path in verbs if path.read_text().count("\n") > VERB_LINES_MAX] == []
    assert [path.name for path in verbs if not path.stat().st_mode & 0o100] == []


def test_the_lock_is_hashed_and_knows_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    requirements = lock.replace("\\\n", " ").splitlines()
    assert [line for line in requirements if "--hash=sha256:" not in line] == []
    assert re.search(r"--(index|extra|find|trusted)|://| @ ", lock) is None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    locked = {line.split("==")[0] for line in requirements}
    assert {re.match(r"[\w-]+", each)[0] for each in wanted} <= locked
    clients = (ROOT / "tests/clients/wscat/package-lock.json").read_text()
    assert "://" not in re.sub(r'"url": "[^"]*"', "", clients)
