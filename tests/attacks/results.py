"""Whatever steps bring from outside: every run ends, its history is whole, and nobody else notices.

An upstream and commands answer with what no program expects: JSON nested without end, numbers without measure, half
characters, charsets that are none. Mapped into variables, compared in conditions, inserted into the next steps.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from encodings.aliases import aliases
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.attacks.watched import MIB, Size, attacked, faults_after
from tests.faults.checker import faults_of_history
from tests.faults.kill import stored_bytes
from tests.server import Server

GROWN_BYTES_MAX = 128 * MIB
AT_ONCE = 20
ENDS_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 10.0  # anybody's request meanwhile
LEVELS = (1, 60, 199, 200, 201, 450, *range(965, 1_000), 5_000, 100_000)
NUMBERS = (
    "0", "-0", "1e400", "-1e400", "1e-400", "9223372036854775808", "18446744073709551616", "1" * 400, "1" * 4_299,
    "1" * 5_000, "1.7976931348623157e308", "NaN", "Infinity", "0.1e1", "01",
)  # fmt: skip
TEXTS = (
    "", "x", "\\ud800", "\\udc00\\ud800", "\\u0000", "\\u2028", "ü", "{{v}}", "{{secrets.X}}", "$(id)", "\\\\{{", "a b",
    "../../x", "\\u001b[31m", "x" * 5_000, "x" * 65_530, "\\u0001" * 12_000, "😀" * 20_000, "x" * 1_000_000,
)  # fmt: skip
PATHS = (
    "x", "x[0]", "x.x", "response", "response.body", "response.headers", 'response.headers."x-odd"', "stdout", "exitCode",
    "stderr", "y", '""', "x[-1].response",
)  # fmt: skip
CONDITIONS = (
    "v == steps.a.output.x", "steps.a.output.x == steps.b.output.x", "steps.a.output.x > `1`", "v[0].x", "!v", "v < v",
    "steps.b.output.x || v", "steps.a.output.response.body == v && v", "v[?x > `0`] | [0]",
)  # fmt: skip
INSERTED = (
    "{{v}}",
    "x{{v}}",
    "{{steps.a.output}}",
    "{{w}}{{v}}",
    "{{v}}" * 15,
    "{{steps.b.output.x}}",
    "{{steps.a.output.x}}",
)


class Odd:
    """One hostile result, told by its number and the seed."""

    def __init__(self, seed: int, number: int) -> None:
        self.chance = random.Random(f"{seed}/{number}")
        self.status = self.chance.choice([200] * 12 + [204, 206, 301, 304, 404, 418, 500, 599, 999])
        self.body = self._body()
        charset = self.chance.choice(
            [*sorted({*aliases, *aliases.values()}), "utf-8", "x" * 300, "\xff", "a;b", ""]
        )
        self.headers = {
            "Content-Type": self.chance.choice(["application/json", "text/plain"]) + f"; charset={charset}",
            "X-Odd": self.chance.choice(["", "\xff\xfe", "x" * 4_000, "ü", '"', "a,b"]),
        }

    def _body(self) -> bytes:
        chance = self.chance
        value = self._json(chance.randrange(5))
        body = f'{{"x":{value},"y":{self._json(2)}}}' if chance.random() < 0.8 else value
        data = body.encode("utf-8", "surrogatepass")
        match chance.randrange(14):
            case 0:
                return chance.randbytes(chance.randrange(3_000))
            case 1:
                return data[: chance.randrange(len(data) + 1)]
            case 2:
                return b"\xef\xbb\xbf" + data
            case 3:
                return body.encode("utf-16", "surrogatepass")
            case 4:
                place = chance.randrange(len(data) + 1)
                return data[:place] + chance.randbytes(3) + data[place:]
        return data

    def _json(self, kind: int) -> str:
        chance = self.chance
        match kind:
            case 0:
                levels = chance.choice(LEVELS)
                begin, end = chance.choice([("[", "]"), ('{"x":', "}"), ('[{"a":', "}]")])
                return begin * levels + "1" + end * levels
            case 1:
                return chance.choice(NUMBERS)
            case 2:
                return f'"{chance.choice(TEXTS)}"'
            case 3:
                names = ("x", "response", "stdout", "exitCode", "__proto__", "x" * 70_000, "")
                return "{" + ",".join(f'"{chance.choice(names)}":{self._json(2)}' for _ in range(4)) + "}"
        return "[" + ",".join(str(number) for number in range(chance.choice([0, 3, 20_000]))) + "]"


def run(count: int, seed: int) -> list[str]:
    """Run ``count`` workflows over such results; return what came of it."""
    with (
        TemporaryDirectory(prefix="odd-") as directory,
        upstream(seed) as port,
        attacked(TAILRACE_HTTP_ALLOW="127.0.0.1", TAILRACE_MAX_PARALLEL_STEPS=AT_ONCE) as server,
        others(server) as faults,
    ):
        before = Size.of(server)
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            faults += _together(server, Path(directory), port, seed, numbers)
            if server.process is None or server.process.poll() is not None:
                break
        return faults + faults_after(server, before, grown_bytes_max=GROWN_BYTES_MAX, files_more=8)


def _together(server: Server, place: Path, port: int, seed: int, numbers: range) -> Iterator[str]:
    runs: dict[int, str] = {}
    for number in numbers:
        definition = workflow(place, port, seed, number)
        answer = server.request("PUT" if number >= AT_ONCE else "POST", *_saved(number, definition))
        if answer.status >= 500 or (answer.status >= 400 and "errors" not in answer.json):
            yield f"{number}: it cannot be created: {answer}"
        if answer.status < 400:
            runs[number] = server.execute(f"odd-{number % AT_ONCE}")
    if len(runs) < len(numbers) // 2:
        yield f"only {len(runs)} of {len(numbers)} were accepted"
    for number, run_id in runs.items():
        try:
            found = server.finished(run_id, timeout_s=ENDS_WITHIN_S)
        except (AssertionError, OSError) as error:
            yield f"{number}: {run_id} does not end: {error!r:.500}"
            continue
        if (found["error"] or {}).get("code") == "internal_error":
            yield f"{number}: {found['error']}"
        answer = server.get(f"/api/v2/workflows/runs/{run_id}/events?types=all&limit=1000")
        yield from faults_of_history(f"{number}: {run_id}", stored_bytes(answer.body))


def _saved(number: int, definition: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = f"odd-{number % AT_ONCE}"
    if number < AT_ONCE:
        return "/api/v2/workflows", {"workflowId": name, "definition": definition}
    return f"/api/v2/workflows/{name}", {"definition": definition}


def workflow(place: Path, port: int, seed: int, number: int) -> dict[str, Any]:
    """Return a definition whose first steps bring odd things, and whose later ones use them."""
    odd = Odd(seed, number)
    chance, printed = odd.chance, place / str(number)
    printed.write_bytes(Odd(seed, -1 - number).body)
    outputs = [{name: chance.choice(PATHS) for name in ("v", "w")} for _ in range(2)]
    insert = lambda: chance.choice(INSERTED)  # noqa: E731
    later = chance.choice([
        {"type": "command", "config": {"command": insert(), "args": [insert()], "cwd": insert()}},
        {"type": "command", "config": {"command": "cat", "args": ["-", insert()], "stdin": insert(), "env": {"X": insert()}}},
        {"type": "http", "config": {"url": f"http://127.0.0.1:{port}/{number}", "method": "POST", "json": insert(),
                                    "headers": {"x": insert()}, "query": {"x": insert()}}},
        {"type": "http", "config": {"url": f"http://127.0.0.1:{port}/{{{{v}}}}/x", "timeout": "5s"}},
        {"type": "wait", "config": {"duration": insert()}, "timeout": "200ms"},
    ])  # fmt: skip
    return {
        "onError": "continue",
        "variables": {"v": chance.choice([1, "x", None, [], {"b": [{}], "a": 1}, "a" * 60_000]), "w": 0},
        "steps": {
            "a": {"type": "http", "config": {"url": f"http://127.0.0.1:{port}/{number}"}, "output": outputs[0],
                  "retry": {"maxAttempts": 2, "interval": 1}},
            "b": {"type": "command", "config": {"command": "cat", "args": [str(printed)]}, "output": outputs[1]},
            "c": later | {"dependsOn": ["a", "b"], "when": chance.choice([*CONDITIONS, *["true"] * 16])},
            "d": {"type": "command", "dependsOn": ["c"], "when": chance.choice(CONDITIONS),
                  "config": {"command": "true"}, "output": {"v": "x"}},
        },
    }  # fmt: skip


@contextmanager
def upstream(seed: int) -> Iterator[int]:
    """Answer ``/N`` with the Nth odd result."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            number = self.path.strip("/").partition("?")[0]
            odd = Odd(seed, int(number) if number.isdecimal() and len(number) < 9 else 0)
            lines = [
                f"HTTP/1.1 {odd.status} Odd",
                *(f"{name}: {value}" for name, value in odd.headers.items()),
            ]
            length = "" if odd.status in {204, 304} else f"Content-Length: {len(odd.body)}\r\n"
            head = (
                "\r\n".join(lines).encode("latin-1", "replace")
                + f"\r\n{length}Connection: close\r\n\r\n".encode()
            )
            self.wfile.write(head + (odd.body if length else b""))
            self.close_connection = True

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def others(server: Server) -> Iterator[list[str]]:
    """Ask for the service's health all the while; what takes too long, or fails, is in the list at the end."""
    faults: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.05) and not faults:
            began = time.monotonic()
            try:
                status = server.get("/health").status
            except OSError as error:
                faults.append(f"somebody else's request: {error!r}")
                return
            took_s = time.monotonic() - began
            if status != 200 or took_s > ANSWERED_WITHIN_S:
                faults.append(f"somebody else's request: {status} after {took_s:.1f} s")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield faults
    finally:
        over.set()
        asking.join()
