"""Every example of docs/definitions.md, run by the real service, ends as the page says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.domain.page import examples
from tests.server import Server

HOST = "https://api.example.org"
TOKEN = "a-token-of-some-length"


class Upstream(ThreadingHTTPServer):
    """What the page's examples ask; one that a test asks for the first time fails at ``/flaky``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.tries = 0


class _Answer(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        match self.command, url.path:
            case "GET", "/users":
                self.answer(200, {"id": 7, "title": f"Dr {query['name'][0]}"})
            case "GET", "/me":
                known = self.headers["Authorization"] == f"Bearer {TOKEN}"
                self.answer(200 if known else 401, {"login": "ann"} if known else {})
            case "POST", "/flaky":
                self.server.tries += 1
                self.answer(200 if self.server.tries == 3 else 503, None)
            case "POST", "/shop/orders":
                order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(201 if order == {"item": "tea", "count": 2} else 400, {"number": 12})
            case "GET", "/orders":
                sorted_ = query == {"number": ["12"], "sort": ["date", "id"]}
                self.answer(200 if sorted_ else 400, [{"item": "tea"}])
            case _:
                self.answer(404, None)

    do_POST = do_GET

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture(scope="module")
def upstream():
    with Upstream() as upstream:
        threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{upstream.server_port}"
        upstream.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = {"TAILRACE_HTTP_ALLOW": "127.0.0.1", "TAILRACE_SECRET_API_TOKEN": TOKEN}
    with Server(tmp_path_factory.mktemp("service"), **settings) as running:
        yield running


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_ends_as_the_page_says(server, upstream, example):
    definition = json.loads(example.text.replace(HOST, upstream))
    created = server.post("/api/v2/workflows", definition)
    assert created.status == 201, created
    run = server.finished(server.execute(created.json["workflowId"]))
    assert (run["status"], (run["error"] or {}).get("code")) == (example.status, example.error), run
    assert {name: run["context"]["variables"].get(name) for name in example.variables} == example.variables


def test_the_examples_show_every_step_type_and_both_ends():
    text = "".join(example.text for example in examples())
    assert len(examples()) >= 10
    assert {example.status for example in examples()} == {"success", "failed"}
    for word in ("http", "command", "wait"):
        assert f'"type": "{word}"' in text
