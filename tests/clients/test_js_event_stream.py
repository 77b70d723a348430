"""The parser of server-sent events in the JavaScript client: what browsers read, wherever the bytes are cut."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "js/event_stream.mjs"
MESSAGE = "message"
TEXTS = {
    # As the HTML standard shows them, or as its grammar has them
    "": [],
    "data: YHOO\ndata: +2\ndata: 10\n\n": [(MESSAGE, "YHOO\n+2\n10")],
    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n": [
        (MESSAGE, "first event"), (MESSAGE, "second event"), (MESSAGE, " third event"),
    ],
    "data\n\ndata\ndata\n\ndata:": [(MESSAGE, ""), (MESSAGE, "\n")],
    "data:test\n\ndata: test\n\n": [(MESSAGE, "test"), (MESSAGE, "test")],
    "event: add\ndata: 7\n\nevent: add\n\ndata: 8\n\n": [("add", "7"), (MESSAGE, "8")],
    "event\ndata: x\n\nevent:\ndata: y\n\nevent: a\nevent: b\ndata: z\n\n": [
        (MESSAGE, "x"), (MESSAGE, "y"), ("b", "z"),
    ],
    "data: lost, for nothing follows\n": [],
    # Line ends of every kind, mixed
    "data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\n\ndata: e\n\r\ndata: f\r\r\n": [
        (MESSAGE, each) for each in "abcdef"
    ],
    "data: a\rdata: b\r\ndata: c\n\r\r\r\n\n\ndata: d\r\r": [(MESSAGE, "a\nb\nc"), (MESSAGE, "d")],
    "\r\n\r\rdata: \r\r\n": [(MESSAGE, "")],
    # What is no line end, and what is no field
    "data: a\u2028b\u2029c\x85d\x0be\n\n": [(MESSAGE, "a\u2028b\u2029c\x85d\x0be")],
    "DATA: a\ndatas: b\n data: c\nretry: 10\nfoo\ndata: d\n\n": [(MESSAGE, "d")],
    ":data: a\n:\ndata: : b:c\n\n": [(MESSAGE, ": b:c")],
    # UTF-8 of every length; a byte order mark at the start, and one that is a character
    "\ufeffdata: é€😀\ufffd\n\n\ufeffdata: x\n\ndata: \ufeff\n\n": [(MESSAGE, "é€😀\ufffd"), (MESSAGE, "\ufeff")],
    # The service's own
    ':\n\nid: 1\ndata: {"seq":1,"payload":{"m":"ü\\r\\n"}}\n\n:\n\nevent: end\nid: 1\ndata: {}\n\n': [
        (MESSAGE, '{"seq":1,"payload":{"m":"ü\\r\\n"}}'), ("end", "{}"),
    ],
}  # fmt: skip


def parsed(client_file: Path, *texts: bytes) -> subprocess.CompletedProcess[str]:
    given = json.dumps([base64.b64encode(text).decode() for text in texts])
    command = ["node", PROGRAM, client_file]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)


def test_every_text_cut_everywhere(client_file):
    done = parsed(client_file, *(text.encode() for text in TEXTS))
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in done.stdout.split("\n") if line]
    expected = [[{"type": type_, "data": data} for type_, data in events] for events in TEXTS.values()]
    assert got == expected


@pytest.mark.parametrize("text", [b"data: \xff\n\n", b"data: \xc3\n\n", b"data: \xed\xa0\x80\n\n"])
def test_what_is_not_utf_8_is_refused(text, client_file):
    done = parsed(client_file, text)
    assert done.returncode != 0
    assert "TypeError" in done.stderr
