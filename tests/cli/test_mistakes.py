"""What is mistyped, and services that are none: a line that says so and an exit code, never a traceback."""

import http.server
import json
import re
import threading
from contextlib import contextmanager

import pytest

from tests.cli.test_verbs import Result, tailrace, written

FLOW = {"workflowId": "w", "definition": {"steps": {"a": {"type": "wait", "config": {"duration": 1}}}}}
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def answering(status: int, body: bytes):
    """Run a program that answers every request so, and give its address."""

    class Answering(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815  their names are http.server's

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def is_one_line(result: Result) -> bool:
    return result.out == "" and result.err.startswith("tailrace: ") and result.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["verify", "keys list --db", "backup copy.db --db", "backup"])
def test_a_log_that_cannot_be_looked_for_is_a_mistake(verb, tmp_path):
    for path, said in ((tmp_path / ("x" * 300), "name too long"), (tmp_path, "is a directory")):
        result = tailrace(NOWHERE, *verb.split(), path)
        assert (result.out, result.code) == ("", 2), result
        assert said in " ".join(re.sub("[│\\n]", " ", result.err).split()), result


VERBS = [
    "ls", "ls workflows", "ls -o json", "show r", "show r -o json", "watch r", "history r", "cancel r", "run -",
    "run - --watch", "backup copy.db",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_another_program_is_not_taken_for_the_service(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for body in (b'{"hello":"world"}\n', b"<html>\n"):
        with answering(200, body) as url:
            result = tailrace(url, *verb.split(), stdin=json.dumps(FLOW))
        assert (result.code, is_one_line(result)) == (4, True), result
        assert f"what answers at {url} is not Tailrace" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["ls", "ls workflows", "show r"])
def test_nor_is_one_whose_rows_are_others(verb):
    body = {"data": [{"id": 1}], "nextCursor": None, "runId": "r", "status": "up"}
    with answering(200, json.dumps(body).encode()) as url:
        result = tailrace(url, *verb.split())
    assert (result.code, is_one_line(result)) == (4, True), result


@pytest.mark.parametrize("verb", ["watch", "history"])
def test_nor_is_one_that_speaks_no_websocket(verb):
    with answering(200, b'{"data":[]}') as url:
        result = tailrace(url, verb, "r")
    assert (result.code, result.err) == (4, f"tailrace: what answers at {url} is not Tailrace (200 OK)\n")


NUMBERS = [
    ("1e400", "1e400 is too large a number"),
    ("-1e400", "-1e400 is too large a number"),
    ('{"deep": [1e999]}', "1e999 is too large a number"),
    ("9" * 5_000, "a number of 5000 digits is too large"),
    ("[" * 100_000, "is nested too deeply"),
]


def said_by(result: Result) -> str:
    assert (result.code, result.out) == (2, ""), result
    assert "Traceback" not in result.err
    return unbroken(result.err)


def unbroken(text: str) -> str:
    """Return a text without what a frame, or a long path in it, puts anywhere: ends of lines."""
    return re.sub(r"[\s│]", "", text)


@pytest.mark.parametrize(("text", "said"), NUMBERS, ids=range(len(NUMBERS)))
def test_a_number_that_no_service_takes_is_named(text, said, tmp_path):
    assert unbroken(f"x: {said}") in said_by(
        tailrace(NOWHERE, "run", written(tmp_path, FLOW), "--var", f"x={text}")
    )
    path = tmp_path / "f.json"
    path.write_text(f'{{"steps": {text}}}')
    assert unbroken(f"f.json: {said}") in said_by(tailrace(NOWHERE, "run", path))


def test_a_file_with_a_number_that_json_does_not_have_is_not_json():
    assert unbroken("is not JSON: NaN is no number in JSON") in said_by(
        tailrace(NOWHERE, "run", "-", stdin='{"a": NaN}')
    )


@pytest.mark.parametrize("verb", ["show", "watch", "history", "cancel", "ls --workflow"])
def test_an_empty_id_is_refused(verb):
    assert unbroken("an id has at least one character") in said_by(tailrace(NOWHERE, *verb.split(), ""))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ls", "There are more; --limit shows them."),
        ("ls --limit 999", "There are more; --limit shows them."),
        ("ls --limit 1000", "There are more; GET /api/v2/workflows/runs goes on with cursor=x.y."),
        ("ls workflows --limit 1000", "There are more; GET /api/v2/workflows goes on with cursor=x.y."),
    ],
)
def test_a_list_says_how_to_see_more(words, said):
    with answering(200, b'{"data":[],"nextCursor":"x.y"}') as url:
        result = tailrace(url, *words.split())
    assert (result.code, result.err) == (0, f"{said}\n")
