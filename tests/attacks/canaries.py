"""Secrets that steps print, send and get back in every way: none is in any file or answer of the service."""

import http.server
import json
import random
import string
import threading
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus, unquote

from ahocorasick_rs import BytesAhoCorasick
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.attacks.watched import attacked, regrets
from tests.server import Server

W = "/api/v2/workflows"
JSON, NDJSON = "application/json", "application/x-ndjson"
BACKUP = "backup.db"
LISTS_TIMEOUT_S = 900.0  # hundreds of runs want more than the machine has for as long as they last
PIECE = 12  # so many characters of a secret, one behind the other, are a leak
PYTHON = "import base64, html, json, os, sys, time, urllib.parse; s = os.environ['S']; w = sys.stdout.write\n"
# What programs do with a secret that they were given in their environment.
SAY = {
    "whole": "print(s)",
    "on stderr": "print('no:', s, file=sys.stderr)",
    "in chunks": "for c in s: w(c); sys.stdout.flush(); time.sleep(0.002)",
    "in two halves": "w(s[:len(s)//2]); sys.stdout.flush(); time.sleep(0.1); w(s[len(s)//2:])",
    "base64": "print(base64.b64encode(s.encode()).decode())",
    "base64 of a header": "print('Authorization: Basic', base64.b64encode(('me:' + s).encode()).decode())",
    "base64 for URLs": "print(base64.urlsafe_b64encode(('ab' + s + 'xyz').encode()).decode())",
    "base64 in lines": "print(base64.encodebytes(('x' * 40 + s + 'y' * 60).encode()).decode())",
    "percent": "print('http://host/?q=' + urllib.parse.quote(s, safe=''))",
    "a form": "print(urllib.parse.urlencode({'token': s}))",
    "JSON": "print(json.dumps({'k': {'l': [s]}}))",
    "repr": "print({'k': s})",
    "HTML": "print(html.escape(s))",
    "hex": "print(s.encode().hex())",
    "in a traceback": "raise ValueError('cannot use ' + s)",
    "in an exit": "sys.exit('bad: ' + s)",
    "in a long line": "print('x' * 16000 + s + 'y' * 16000)",
    "over the end of a piece": "print('x' * (1024 * 1024 - len(s) // 2) + s)",
    "many times": "print(s * 50)",
    "in the middle": "print('x' + s + 'y')",
    "behind NULs": "w('\\0\\0' + s + '\\0')",
    "behind bad UTF-8": "sys.stdout.buffer.write(b'\\xff' + s.encode() + b'\\xfe')",
    "as a variable": "print(json.dumps({'v': s}))",
}
ECHO = {  # of an http step, to a server that echoes all of it
    "in a header": {"headers": {"x-token": "{{secrets.%s}}"}},
    "in two headers": {"headers": {"x-a": "a {{secrets.%s}}", "authorization": "Bearer {{secrets.%s}}"}},
    "in the query": {"query": {"token": "{{secrets.%s}}"}},
    "in the body": {"method": "POST", "body": "{{secrets.%s}}"},
    "in JSON": {"method": "POST", "json": {"k": ["{{secrets.%s}}"]}},
    "in the path": {"path": "/a/{{secrets.%s}}/b"},
    "in a failure": {"path": "/fails/{{secrets.%s}}"},
    "in a redirect": {"path": "/redirect/{{secrets.%s}}"},
    "in base64": {"method": "POST", "path": "/base64", "body": "user:{{secrets.%s}}"},
    "in a bad address": {"whole": "{{secrets.%s}}"},
    "in a bad header": {"headers": {"x-token": "a\r\n{{secrets.%s}}"}},
    "in a bad method": {"method": "{{secrets.%s}}"},
    "in a bad number": {"timeout": "{{secrets.%s}}"},
    "not named": {"path": "/all"},
}
OF_ALL = (  # method, path, Accept, and what has to be in it
    ("GET", W, JSON, "w-S0"),
    ("GET", f"{W}/runs?limit=100", JSON, "{run}"),
    ("GET", "/api/v2/events?limit=1000", JSON, "seq"),
    ("GET", "/api/v2/events?include=control", NDJSON, "{run}"),
    ("POST", "/api/v2/backups", NDJSON, "{run}"),
    ("GET", "/api/v2/streams", JSON, "total"),
    ("GET", "/metrics", "text/plain", "tailrace_"),
    ("GET", "/metrics", "application/openmetrics-text", "# EOF"),
)
BAD = {  # configs of a command that fail before it runs
    "as a command": {"command": "{{secrets.%s}}"},
    "as a directory": {"command": "true", "cwd": "/nowhere/{{secrets.%s}}"},
    "as an exit code": {"command": "true", "expectExit": "{{secrets.%s}}"},
    "as a missing place": {"command": "true", "args": ["{{secrets.%s}}", "{{nowhere}}"]},
    "as input": {"command": "cat", "stdin": "{{secrets.%s}}"},
    "as arguments": {"command": "echo", "args": ["a", "{{secrets.%s}}", "b"]},
}


def run(count: int, seed: int) -> list[str]:
    """Let steps try to show ``count`` secrets, each in every way; return where one was found."""
    secrets = {f"S{number}": any_secret(random.Random(f"{seed}/{number}"), number) for number in range(count)}
    settings = {f"TAILRACE_SECRET_{name}": value for name, value in secrets.items()}
    with (
        _echo(list(secrets.values())) as port,
        attacked(**settings, TAILRACE_HTTP_ALLOW="127.0.0.0/8") as server,
    ):
        run_ids = []
        for name in secrets:
            server.create(f"w-{name}", {"steps": steps_with(name, port)})
            run_ids.append(server.execute(f"w-{name}"))
        answers = {f"answers about {run_id}": _answers(server, run_id) for run_id in run_ids}
        faults = regrets(server)
        if any(b"***" not in answer for answer in answers.values()):
            faults.append("nothing was masked: the steps have not run")
        if not any(b'"openFor"' in answer for answer in answers.values()):
            faults.append("no open stream was listed")
        answers |= _of_all(server, run_ids[-1])
        server.tailrace("backup", BACKUP, "--server", server.url, timeout_s=LISTS_TIMEOUT_S)
        server.kill_hard()  # so that the WAL is still there
        files = {
            path.name: path.read_bytes() for path in sorted(server.db.parent.iterdir()) if path.is_file()
        }
        assert run_ids[-1].encode() in files[BACKUP], "the backup is not whole"
        pieces = Pieces(secrets.values())
        faults += [
            f"{place}: {found}"
            for place, data in (answers | files).items()
            for found in pieces.found_in(data)
        ]
        server.start()
        return faults


def any_secret(chance: random.Random, number: int) -> str:
    """Return a secret of another kind each time, none of it a word that may be anywhere."""
    letters = string.ascii_letters + string.digits
    match number % 4:
        case 0:
            return "".join(chance.choices(letters, k=40))
        case 1:
            return "".join(chance.choices(letters + "@/+&=?#:%\"'\\<>", k=36)) + "Zé"
        case 2:
            return "eyJ" + "".join(chance.choices(letters + "-_.", k=300))
        case _:
            return "\n".join("".join(chance.choices(letters + "+/", k=64)) for _ in range(4))


def steps_with(name: str, port: int) -> dict:
    """Return steps that all try to show the secret ``name``."""
    steps = {}

    def add(title: str, kind: str, config: dict) -> None:
        step_id = f"{kind}-{len(steps)}"
        steps[step_id] = {
            "name": title, "type": kind, "config": config, "onError": "continue", "output": {"got": "v"},
            "retry": {"maxAttempts": 1 + len(steps) % 2, "interval": 1},
        }  # fmt: skip

    for title, script in SAY.items():
        config = {
            "command": "python3",
            "args": ["-c", PYTHON + script],
            "env": {"S": f"{{{{secrets.{name}}}}}"},
        }
        add(title, "command", config)
    for title, config in BAD.items():
        add(title, "command", json.loads(json.dumps(config).replace("%s", name)))
    for title, config in ECHO.items():
        config = json.loads(json.dumps(config).replace("%s", name).replace("{port}", str(port)))
        whole, path = config.pop("whole", None), config.pop("path", "/")
        add(title, "http", {"url": whole or f"http://127.0.0.1:{port}{path}", **config})
    return steps


class Pieces:
    """Pieces of secrets in all the forms in which they may stand somewhere, looked for in one pass."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms: dict[bytes, str] = {}
        for line in (line for secret in secrets for line in secret.splitlines()):
            for form, text in _forms(line):
                for piece in (text[:PIECE], text[-PIECE:], text[len(text) // 2 :][:PIECE]):
                    if len(piece) == PIECE:
                        self._forms[piece.encode()] = form
        self._pieces = list(self._forms)
        self._finder = BytesAhoCorasick(self._pieces)

    def found_in(self, data: bytes) -> Iterator[str]:
        """Yield each piece that is in ``data``, where it stands first."""
        seen: set[int] = set()
        for number, start, _ in self._finder.find_matches_as_indexes(data, overlapping=True):
            if number not in seen:
                seen.add(number)
                piece = self._pieces[number]
                yield f"{piece!r} ({self._forms[piece]}) in {data[max(0, start - 300) : start + 100]!r}"


def _forms(line: str) -> Iterator[tuple[str, str]]:
    raw = line.encode()
    yield from {
        "raw": line, "JSON": json.dumps(line)[1:-1], "JSON in JSON": json.dumps(json.dumps(line)[1:-1])[1:-1],
        "percent": quote(line, safe=""), "form": quote_plus(line), "path": quote(line), "hex": raw.hex(),
    }.items()  # fmt: skip
    for before in (b"", b"1", b"12"):
        text = b64encode(before + raw).decode()[4:-4]
        yield f"base64 behind {len(before)}", text
        yield f"base64 for URLs behind {len(before)}", text.replace("+", "-").replace("/", "_")


def _of_all(server: Server, run_id: str) -> dict[str, bytes]:
    """Return what can be asked about all runs, each answer whole; ``run_id`` is the newest."""
    found = {}
    for method, path, accept, holds in OF_ALL:
        answer = server.request(method, path, headers={"accept": accept})
        assert answer.status == 200, answer
        assert holds.format(run=run_id).encode() in answer.body, f"{path} is not what it should be"
        last = answer.body.splitlines()[-1]
        assert b'{"problem"' not in last, f"{path} is cut off: {last!r}"
        found[f"{path} as {accept}"] = answer.body
    return found


def _answers(server: Server, run_id: str) -> bytes:
    """Return everything that can be asked about a run, its stream in each way and as one of many included."""
    said = b""
    with connect(f"{server.ws_url}{W}/runs/{run_id}/stream?types=all&control=1", max_size=None) as stream:
        said += server.listed("/api/v2/streams").body + server.listed("/metrics").body
        try:
            while True:
                said += stream.recv(decode=False)
        except ConnectionClosed as closed:
            said += str(closed).encode()
    for path in ("", "/steps", "/logs?limit=1000", "/variables", "/events?types=all&limit=1000"):
        said += server.listed(f"{W}/runs/{run_id}{path}", LISTS_TIMEOUT_S).body
    for accept in ("text/event-stream", "application/x-ndjson"):
        said += server.get(f"{W}/runs/{run_id}/stream", accept=accept).body
    return (
        said
        + server.get(f"/api/v2/events?runId={run_id}&include=control", accept="application/x-ndjson").body
    )


@contextmanager
def _echo(secrets: list[str]) -> Iterator[int]:
    """Run a server that says back whatever it is told, and return its port."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")
            told = {
                "path": self.path,
                "headers": dict(self.headers),
                "body": body,
                "plain": unquote(self.path),
            }
            if "authorization" in self.headers and self.headers["authorization"].startswith("Basic "):
                told["user"] = b64decode(self.headers["authorization"][6:]).decode(errors="replace")
            answer = json.dumps(told).encode()
            if self.path == "/base64":
                answer = urlsafe_b64encode(body.encode())
            elif self.path == "/all":
                answer = json.dumps(secrets).encode()
            status = (
                302 if self.path.startswith("/redirect") else 500 if self.path.startswith("/fails") else 200
            )
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"/fails{self.path}?token={self.path[10:]}")
            self.send_header("x-echo", self.path)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()
